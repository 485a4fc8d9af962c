"""The packer against brute force on tiny clusters: both orders, rules between pods, devices, gangs, last levels.

`python -m benchmarks.packing_exact --clusters 500 --json OUT`. Every placement of every pod is tried by the checker;
the packer must find the same levels, say that they are proven, and its certificate must hold.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from benchmarks.common import arguments, finish, table
from tests.packing.builders import best_by_force, random_cluster
from treadle.costmodels.packing_claims import recheck
from treadle.ir.certificate import Status
from treadle.ir.cluster.objective import Objective, Order, Tail
from treadle.ir.cluster.placement import check
from treadle.solvers.packing.solve import Options, pack

_TAILS = (Tail.NOTHING, Tail.NOTHING, Tail.NODES, Tail.BALANCE)


def compare(seed: int) -> tuple[str, str]:
    """Return the kind of cluster and objective, and what came out."""
    rules, order, tail = bool(seed % 2), list(Order)[seed // 2 % 2], _TAILS[seed // 4 % len(_TAILS)]
    objective = Objective(order, tail)
    cluster = random_cluster(seed, rules=rules)
    packed = pack(cluster, Options(objective, deterministic_s=2.0))
    levels = packed.certificate.levels
    kind = f"{order.value}, then {tail.value}, {'rules' if rules else 'no rules'}"
    findings = [
        *check(cluster, packed.placement),
        *recheck(cluster, packed.placement, objective, packed.certificate).findings,
    ]
    if findings:
        return kind, "illegal"
    if [-x.value if x.maximize else x.value for x in levels] != best_by_force(cluster, objective):
        return kind, "worse"
    return kind, "equal, proven" if packed.certificate.status is Status.OPTIMAL else "equal, not proven"


def main() -> None:
    """Compare so many clusters."""
    chosen = arguments(__doc__ or "", clusters={"type": int, "default": 500, "help": "how many, from seed 0"})
    counts: dict[str, Counter[str]] = {}
    for seed in range(chosen.clusters):
        kind, outcome = compare(seed)
        counts.setdefault(kind, Counter())[outcome] += 1
    outcomes = ("equal, proven", "equal, not proven", "worse", "illegal")
    rows: list[dict[str, Any]] = [
        {"objective": kind, **{outcome: count[outcome] for outcome in outcomes}}
        for kind, count in sorted(counts.items())
    ]
    table(list(rows[0]), [list(row.values()) for row in rows])
    totals = {outcome: sum(row[outcome] for row in rows) for outcome in outcomes}
    print(totals)
    finish("packing_exact", {"clusters": chosen.clusters, **totals}, rows, chosen.json)


if __name__ == "__main__":
    main()
