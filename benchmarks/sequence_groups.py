"""Grouping of mixed sequence lengths: 512 sequences onto 64 ranks, four distributions, against groups of one size.

Distributions as FlexSP and ByteScale describe them (arXiv 2412.01523, 2502.21231): long tails where most sequences are
below 8 K tokens and few reach the longest; and an even one.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from typing import Any

from benchmarks.common import arguments, finish, table
from benchmarks.parallel_speed import llama
from treadle.costmodels.training_group_costs import group_costs
from treadle.costmodels.training_grouping import one_size_us, rounds_us
from treadle.costmodels.training_setting import setting_of
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.grouping import GroupingBody, GroupingProblem, check_grouping
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import TrainingSpec
from treadle.solvers.sequence_groups.solve import certificate, quick, solve

COUNT, RANKS, ROOM, LONGEST = 512, 64, 8192, 192 * 1024
TARGETS = {"quick_ms": 50.0, "solve_s": 5.0}


def distributions(seed: int) -> dict[str, tuple[int, ...]]:
    """Return the lengths of one batch of every distribution."""
    chance = random.Random(seed)

    def cut(length: float) -> int:
        return min(LONGEST, max(32, round(length)))

    return {
        "web text (lognormal, median 1.2 K)": tuple(
            cut(chance.lognormvariate(math.log(1200), 1.1)) for _ in range(COUNT)
        ),
        "code (lognormal, median 3 K)": tuple(cut(chance.lognormvariate(math.log(3000), 1.5)) for _ in range(COUNT)),
        "long tail (Pareto 1.1)": tuple(cut(512 * chance.paretovariate(1.1)) for _ in range(COUNT)),
        "two kinds (95 % 2 K, 5 % 64 K)": tuple(
            cut(chance.gauss(2048, 400) if chance.random() < 0.95 else chance.gauss(65536, 8000)) for _ in range(COUNT)
        ),
        "even (256 to 8 K)": tuple(chance.randint(256, 8192) for _ in range(COUNT)),
    }


def problem(lengths: tuple[int, ...]) -> GroupingProblem:
    """Return the problem of an 8B model's data ranks: 64 H100 in nodes of 8."""
    cluster = ClusterTopology((NodeGroup("h100", RANKS // 8, 8),))
    setting = setting_of(llama(4096, 14336, 32, 32), cluster, TrainingSpec(COUNT, ROOM))
    costs = group_costs(setting, Degrees(RANKS, 1, 1, 1, 1, zero=1), 32.0)
    return GroupingProblem(lengths, RANKS, ROOM, tuple(1 << power for power in range(7)), 8, costs)


def _gap(body: GroupingBody) -> float:
    return certificate(body).levels[0].gap or 0.0


def measure(name: str, lengths: tuple[int, ...], repeats: int) -> dict[str, Any]:
    """Group one batch both ways and return the figures; times are medians."""
    grouping = problem(lengths)
    longest = next(size for size in grouping.sizes if max(lengths) <= size * ROOM)
    times: dict[str, list[float]] = {"quick": [], "solve": []}
    fast = quick(grouping)
    for _ in range(repeats):
        start = time.process_time()
        quick(grouping)
        times["quick"].append(time.process_time() - start)
    start = time.process_time()
    best = solve(grouping)
    times["solve"].append(time.process_time() - start)
    return {
        "batch": name,
        "tokens": sum(lengths),
        "longest": max(lengths),
        "quick_ms": round(1e3 * statistics.median(times["quick"]), 1),
        "quick_gap": round(_gap(fast), 5),
        "solve_s": round(times["solve"][0], 3),
        "solve_gap": round(_gap(best), 5),
        "batch_s": sum(rounds_us(best)) / 1e6,
        "one_size": longest,
        "one_size_s": one_size_us(grouping, longest) / 1e6,
        "rounds": len(best.rounds),
        "findings": len(check_grouping(fast)) + len(check_grouping(best)),
    }


def main() -> int:
    """Print and write the table."""
    chosen = arguments("grouping of mixed sequence lengths", repeats={"type": int, "default": 5})
    rows = [
        measure(f"{name}, batch {seed}", lengths, chosen.repeats)
        for seed in range(3)
        for name, lengths in distributions(seed).items()
    ]
    header = (
        "batch",
        "tokens",
        "longest",
        "quick_ms",
        "quick_gap",
        "solve_s",
        "solve_gap",
        "batch_s",
        "one_size_s",
        "rounds",
    )
    table(header, [[row[name] for name in header] for row in rows])
    figures: dict[str, Any] = {
        "largest_quick_ms": max(row["quick_ms"] for row in rows),
        "largest_quick_gap": max(row["quick_gap"] for row in rows),
        "largest_solve_s": max(row["solve_s"] for row in rows),
        "largest_solve_gap": max(row["solve_gap"] for row in rows),
        "mean_speedup_over_one_size": round(statistics.mean(row["one_size_s"] / row["batch_s"] for row in rows), 3),
        "targets": TARGETS,
        "findings": sum(row["findings"] for row in rows),
    }
    print(figures)
    finish("sequence_groups", figures, rows, chosen.json)
    return int(any(row["findings"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
