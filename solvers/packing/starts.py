"""Packing from several seeds, and one certificate of all their bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

from treadle.ir.certificate import Certificate, Level, Status
from treadle.ir.cluster.cluster import Cluster
from treadle.solvers.packing.solve import COST_MODEL, Options, Packed
from treadle.solvers.packing.solve import pack as pack_once
from treadle.solvers.starts import run_starts

_SEARCHING = 0.75
"""What every second start keeps of its budget for neighbourhoods: one proves, the next one searches."""


def pack(
    cluster: Cluster,
    options: Options | None = None,
    progress: Callable[[str], None] | None = None,
    executor: Executor | None = None,
) -> Packed:
    """Return the best placement of `options.starts` searches, with the best bound of each level.

    The searches differ in their seeds (`options.seed` and those after it) and in what they keep for neighbourhoods.
    The result does not depend on where they run, but for windows of wall-clock time.

    Args:
        cluster: what is packed.
        options: of every search.
        progress: called with a line of text now and then.
        executor: runs searches side by side; any `concurrent.futures.Executor`.

    Raises:
        OverfullNode, InconsistentCluster: the current placement is not legal.
    """
    options = options or Options()
    if options.starts <= 1:
        return pack_once(cluster, options, progress)
    jobs = [(cluster, _start(options, number)) for number in range(options.starts)]
    return joined(run_starts(_search, jobs, executor, progress))


def _start(options: Options, number: int) -> Options:
    kept = _SEARCHING if number % 2 else options.for_neighbourhoods
    return replace(options, seed=options.seed + number, starts=1, for_neighbourhoods=kept)


def _search(job: tuple[Cluster, Options]) -> Packed:
    return pack_once(*job)


def joined(found: Sequence[Packed]) -> Packed:
    """Return the best placement; a bound of another search holds where the levels before it have the same values."""
    best = min(found, key=lambda one: [_cost(level) for level in one.certificate.levels])
    levels: list[Level] = []
    values = [level.value for level in best.certificate.levels]
    open_before = False
    for position, level in enumerate(best.certificate.levels):
        alike = [
            one.certificate.levels[position]
            for one in found
            if [other.value for other in one.certificate.levels[:position]] == values[:position]
        ]
        tight = min([level, *alike], key=lambda one: -_bound(one))
        closed = tight.bound == level.value and not open_before
        open_before = open_before or not closed
        status = Status.OPTIMAL if closed else Status.FEASIBLE
        levels.append(replace(level, bound=tight.bound, proof=tight.proof, evidence=tight.evidence, status=status))
    return Packed(best.placement, Certificate("packing", COST_MODEL, tuple(levels)))


def _cost(level: Level) -> float:
    return -level.value if level.maximize else level.value


def _bound(level: Level) -> float:
    """Return a level's bound as a cost; the largest is the best."""
    bound = level.bound if level.bound is not None else float("-inf")
    return -bound if level.maximize else bound
