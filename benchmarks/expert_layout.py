"""Expert placement: the published EPLB case proven, and seeded loads of DeepSeek-V3's size against the EPLB greedy."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks import common
from treadle.ir.layout.experts import ExpertsProblem, Policy, check
from treadle.solvers.experts.balance import greedy, peak
from treadle.solvers.experts.solve import solve_experts

README = (
    (90.0, 132.0, 40.0, 61.0, 104.0, 165.0, 39.0, 4.0, 73.0, 56.0, 183.0, 86.0),
    (20.0, 107.0, 104.0, 64.0, 19.0, 197.0, 187.0, 157.0, 172.0, 86.0, 16.0, 27.0),
)
"""Loads of the example in the README of deepseek-ai/EPLB."""


FAMILIES = ("pareto", "lognormal", "uniform", "zipf", "exponential", "geometric", "few")
"""Kinds of loads."""


def main() -> None:
    """Run the published case under both policies, then 256 experts, 288 slots, 32 GPUs on seven kinds of loads."""
    chosen = common.arguments(__doc__ or "", seeds={"type": int, "default": 5})
    rows = [run("readme", README, 16, 8, 2, 4, policy) for policy in Policy]
    for name in FAMILIES:
        for seed in range(chosen.seeds):
            for policy in Policy:
                rows.append(run(f"{name}-{seed}", (tuple(loads(name, seed).tolist()),), 288, 32, 4, 8, policy))
    common.table(list(rows[0]), [list(row.values()) for row in rows])
    large = [row for row in rows if not row["case"].startswith("readme")]
    figures = {
        "readme_peaks": {row["policy"]: row["peaks"] for row in rows[:2]},
        "readme_seconds_max": max(row["seconds"] for row in rows[:2]),
        "largest_gap": max(row["gap"] for row in large),
        "largest_gap_by_policy": {
            p.value: max(row["gap"] for row in large if row["policy"] == p.value) for p in Policy
        },
        "never_worse_than_eplb": all(row["against_eplb"] <= 1e-12 for row in rows),
        "mean_against_eplb": sum(row["against_eplb"] for row in large) / len(large),
        "seconds_max": max(row["seconds"] for row in large),
    }
    common.finish("expert_layout", figures, rows, chosen.json)


def loads(name: str, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return 256 seeded loads of a family."""
    random = np.random.default_rng(seed)
    if name == "pareto":
        return random.pareto(1.2, 256) + 0.1
    if name == "lognormal":
        return random.lognormal(0.0, 1.0, 256)
    if name == "uniform":
        return random.random(256) + 1e-3
    if name == "geometric":
        return random.permutation(0.9 ** np.arange(256))
    if name == "few":
        return np.where(random.random(256) < 0.03, 0.3 + 3 * random.random(256), 0.02 * random.random(256))
    if name == "zipf":
        return random.permutation(1.0 / np.arange(1, 257))
    return random.exponential(1.0, 256)


def run(
    case: str, layers: tuple[tuple[float, ...], ...], slots: int, gpus: int, nodes: int, groups: int, policy: Policy
) -> dict[str, Any]:
    """Solve one case."""
    problem = ExpertsProblem(layers, slots, gpus, nodes, groups, policy)
    started = time.perf_counter()
    plan, certificate = solve_experts(problem)
    seconds = time.perf_counter() - started
    eplb = max(eplb_peak(problem, layer) for layer in layers)
    value = max(level.value for level in certificate.levels)
    return {
        "case": case,
        "policy": policy.value,
        "peaks": [level.value for level in certificate.levels],
        "gap": max(level.gap or 0.0 for level in certificate.levels),
        "status": certificate.status.value,
        "against_eplb": value / eplb - 1,
        "findings": len(check(plan)),
        "seconds": round(seconds, 3),
    }


def eplb_peak(problem: ExpertsProblem, loads: tuple[float, ...]) -> float:
    """Return the peak of EPLB's rule (deepseek-ai/EPLB at d52c72d5), restated.

    Hierarchical: groups in falling order onto the least loaded node with room, then every node as a pool of its own.
    """
    if problem.policy is Policy.GLOBAL:
        return peak(np.array(loads), greedy(np.array(loads), problem.slots, problem.gpus))
    groups = np.array(loads).reshape(problem.groups, problem.group_size)
    totals = groups.sum(axis=1)
    nodes: list[list[int]] = [[] for _ in range(problem.nodes)]
    for group in np.argsort(-totals, kind="stable").tolist():
        free = [node for node in nodes if len(node) < problem.groups // problem.nodes]
        min(free, key=lambda node: totals[node].sum()).append(group)
    pools = [groups[node].ravel() for node in nodes]
    slots, gpus = problem.slots // problem.nodes, problem.gpus // problem.nodes
    return max(peak(pool, greedy(pool, slots, gpus)) for pool in pools)


if __name__ == "__main__":
    main()
