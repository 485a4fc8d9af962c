"""Why a packing is as it is: what is scarce, why pods are left out, and what one more node would change."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from treadle.costmodels.packing_reasons import Fullness, LeftOut, fullness, left_out
from treadle.ir.certificate import Level
from treadle.ir.cluster.cluster import PENDING
from treadle.ir.cluster.packing import PackingBody
from treadle.ir.plan import Plan
from treadle.solvers.packing.solve import Options, pack


@dataclass(frozen=True, slots=True)
class Change:
    """A changed cluster, and how many pods its plan places beside this one's."""

    change: str
    placed: int
    was: int
    proven: bool


@dataclass(frozen=True, slots=True)
class PackingExplanation:
    """The levels as claimed, how full resources are, the pods left out, and single changes."""

    levels: tuple[Level, ...]
    resources: tuple[Fullness, ...]
    left_out: tuple[LeftOut, ...]
    changes: tuple[Change, ...]


def explain_packing(plan: Plan, limit_s: float = 1.0) -> PackingExplanation:
    """Explain a plan of kind `packing`; `limit_s` are deterministic seconds per changed cluster."""
    body: PackingBody = plan.body
    missing = left_out(body.cluster, body.placement)
    return PackingExplanation(
        plan.certificates[0].levels,
        fullness(body.cluster, body.placement),
        missing,
        _changes(body, limit_s) if missing else (),
    )


def _changes(body: PackingBody, limit_s: float) -> tuple[Change, ...]:
    """Pack again with one more node of each of the three commonest kinds, empty and open to all that its kind is."""
    cluster = body.cluster
    pods = tuple(replace(pod, node=node) for pod, node in zip(cluster.pods, body.placement.nodes, strict=True))
    was = sum(node != PENDING for node in body.placement.nodes)
    kinds = Counter(tuple(sorted(node.capacity.items())) for node in cluster.nodes if not node.unschedulable)
    found: list[Change] = []
    for capacity, _ in kinds.most_common(3):
        model = next(node for node in cluster.nodes if tuple(sorted(node.capacity.items())) == capacity)
        labels = {name: value for name, value in model.labels.items() if name != "kubernetes.io/hostname"}
        more = replace(model, name=f"{model.name}-more", labels=labels)
        larger = replace(cluster, nodes=(*cluster.nodes, more), pods=pods)
        packed = pack(larger, Options(body.objective, deterministic_s=limit_s))
        placed = sum(node != PENDING for node in packed.placement.nodes)
        counted = [level for level in packed.certificate.levels if level.maximize]
        found.append(
            Change(f"one more node like {model.name}", placed, was, all(one.bound == one.value for one in counted))
        )
    return tuple(found)
