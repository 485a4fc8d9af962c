"""The openb cluster (Alibaba GPU trace 2023): place the published pod lists, and lists inflated to 130 % of the GPUs.

`python -m benchmarks.openb --list default --json OUT`. The inflated lists are sampled from the published one with
replacement until the demand reaches 130 % of the GPUs, as FGD (ATC'23) does; FGD places them online, in order of
arrival, treadle chooses offline, so the difference is also the price of being online. Here the objective is GPU
allocation: whole and well-filled devices are offered first, up to what the cluster has.
"""

from __future__ import annotations

import random
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.openb_bound import allocation_bound
from treadle.costmodels.packing_claims import recheck
from treadle.frontends.openb import load_openb
from treadle.ir.cluster.cluster import PENDING, Cluster, Pod
from treadle.ir.cluster.objective import Objective
from treadle.ir.cluster.placement import check
from treadle.solvers.packing.bundles import bundle
from treadle.solvers.packing.solve import Options, pack

FGD_PERCENT = {"default": 95.39, "gpushare100": 86.90}
"""GPU allocation of FGD at 130 % arrived demand, mean of 10 seeds (its analysis_allo_discrete.csv)."""


def allocation_percent(cluster: Cluster, nodes: tuple[int, ...]) -> float:
    """Return the share of all device slots that placed pods use, in percent."""
    return 100 * sum(_slots(cluster, p) for p, n in enumerate(nodes) if n != PENDING) / _capacity(cluster)


def inflated(cluster: Cluster, percent: int, seed: int) -> Cluster:
    """Return the cluster with pods sampled from its list until they ask for `percent` of the devices."""
    source = random.Random(seed)
    pods: list[Pod] = []
    asked, goal = 0, _capacity(cluster) * percent // 100
    while asked < goal:
        chosen = source.randrange(len(cluster.pods))
        pods.append(replace(cluster.pods[chosen], name=f"pod-{len(pods)}"))
        asked += _slots(cluster, chosen)
    return replace(cluster, pods=tuple(pods))


def best_filling(cluster: Cluster) -> Cluster:
    """Return the cluster with only the pods offered: bundles by how full they are, until the devices are used up."""
    bundled = bundle(cluster)
    have = sum(node.devices.count for node in cluster.nodes if node.devices)

    def fullness(inside: tuple[int, ...]) -> tuple[float, int]:
        asked = max(1, _devices(cluster, inside))
        return -sum(_slots(cluster, p) for p in inside) / asked, sum(_cpu(cluster, p) for p in inside) // asked

    offered: list[int] = []
    with_devices = [inside for inside in bundled.members if _devices(cluster, inside)]
    for inside in sorted(with_devices, key=fullness):
        if _devices(cluster, inside) <= have:
            have -= _devices(cluster, inside)
            offered += inside
    return replace(cluster, pods=tuple(cluster.pods[p] for p in sorted(offered)))


def _devices(cluster: Cluster, inside: tuple[int, ...]) -> int:
    request = cluster.shapes[cluster.pods[inside[0]].shape].device
    return request.count if request else 0


def _slots(cluster: Cluster, pod: int) -> int:
    request = cluster.shapes[cluster.pods[pod].shape].device
    return request.slots * request.count if request else 0


def _cpu(cluster: Cluster, pod: int) -> int:
    return cluster.shapes[cluster.pods[pod].shape].requests["cpu"]


def _capacity(cluster: Cluster) -> int:
    return sum(node.devices.slots * node.devices.count for node in cluster.nodes if node.devices)


def measure_one(name: str, cluster: Cluster, everything: Cluster | None = None) -> dict[str, Any]:
    """Pack one cluster and check the result; `everything` is the whole list that it was chosen from."""
    started = time.perf_counter()
    packed = pack(cluster, Options())
    seconds = time.perf_counter() - started
    level = packed.certificate.levels[0]
    findings = check(cluster, packed.placement)
    findings += recheck(cluster, packed.placement, Objective(), packed.certificate).findings
    return {
        "instance": name,
        "pods": len(cluster.pods),
        "placed": int(level.value),
        "bound": level.bound,
        "proof": level.proof.value,
        "gpu_allocation_percent": round(allocation_percent(cluster, packed.placement.nodes), 3),
        "gpu_allocation_bound_percent": round(
            float(100 * allocation_bound(everything or cluster) / _capacity(cluster)), 3
        ),
        "seconds": round(seconds, 1),
        "findings": len(findings),
    }


def main() -> None:
    """Run the chosen list as published, and inflated for some seeds."""
    chosen = arguments(
        __doc__ or "",
        data="../shared/data/packing/openb",
        list={"default": "default", "choices": list(FGD_PERCENT)},
        seeds={"type": int, "default": 1, "help": "inflated lists"},
        plain={"type": int, "default": 1, "help": "0 leaves the published list out"},
    )
    folder: Path = chosen.data
    cluster = load_openb(folder / "openb_node_list_gpu_node.csv", folder / f"openb_pod_list_{chosen.list}.csv")
    rows = [measure_one(chosen.list, cluster)] if chosen.plain else []
    for seed in range(42, 42 + chosen.seeds):
        everything = inflated(cluster, 130, seed)
        rows.append(measure_one(f"{chosen.list} 130 % seed {seed}", best_filling(everything), everything))
    figures = {
        "list": chosen.list,
        "fgd_allocation_percent": FGD_PERCENT[chosen.list],
        "peak_memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }
    table(list(rows[0]), [list(row.values()) for row in rows])
    print(figures)
    finish("openb", figures, rows, chosen.json)


if __name__ == "__main__":
    main()
