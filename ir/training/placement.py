"""Which GPU type every pipeline stage has, on a cluster of several types.

A placement lists the node groups along the pipeline. A group gives as many stages as its GPUs fill, and stages are
blocks of consecutive ranks (pipeline outermost), so no stage has two types. Without a placement every stage may have
GPUs of all types, and runs like the slowest.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations

from treadle.ir.diagnostics import Finding
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.plan import Degrees
from treadle.ir.training.ranks import dense_sizes, stride_of
from treadle.ir.training.spec import Pipeline

_WHOLE = Pipeline.ONE_F_ONE_B, Pipeline.ZERO_BUBBLE
"""Schedules with one chunk per rank: a rank's share of the layers can be what its type is worth."""


def stage_groups(cluster: ClusterTopology, degrees: Degrees) -> tuple[int, ...]:
    """Return the node group of every pipeline rank; empty without a placement."""
    stage = degrees.gpus // degrees.pipeline
    return tuple(group for group in degrees.placement for _ in range(cluster.groups[group].gpus // stage))


def group_of_rank(cluster: ClusterTopology, degrees: Degrees, rank: int) -> int | None:
    """Return the node group of a global rank, or None without a placement."""
    groups = stage_groups(cluster, degrees)
    return groups[rank * degrees.pipeline // degrees.gpus] if groups else None


def placements(cluster: ClusterTopology, degrees: Degrees) -> Iterator[tuple[int, ...]]:
    """Yield no placement, and every order of the groups whose stages each have one type; orders that look alike once.

    Rank orders are not looked at: those that do not keep stages whole are refused by `check_placement`.
    """
    yield ()
    stage = degrees.gpus // degrees.pipeline
    if not cluster.mixed or degrees.schedule not in _WHOLE or any(group.gpus % stage for group in cluster.groups):
        return
    seen: set[tuple[tuple[str, int], ...]] = set()
    for order in permutations(range(len(cluster.groups))):
        looks = tuple((cluster.groups[group].gpu, cluster.groups[group].gpus) for group in order)
        if looks not in seen:
            seen.add(looks)
            yield order


def check_placement(cluster: ClusterTopology, degrees: Degrees) -> list[Finding]:
    """Every group once, whole stages in each, stages outermost, one chunk per rank (TRD605)."""
    if not degrees.placement:
        return []
    where, named = "degrees.placement", str(list(degrees.placement))
    if not cluster.mixed:
        return [Finding("TRD605", where, "all GPUs are of one type", "no placement", named)]
    if sorted(degrees.placement) != list(range(len(cluster.groups))):
        return [Finding("TRD605", where, "groups are not named once", f"0 to {len(cluster.groups) - 1}", named)]
    findings: list[Finding] = []
    if degrees.gpus != cluster.gpus:
        findings.append(Finding("TRD605", where, "GPUs are left over", str(cluster.gpus), str(degrees.gpus)))
    stage = degrees.data * degrees.tensor * degrees.context
    for group in cluster.groups:
        if group.gpus % stage:
            expected = f"a divisor of {group.gpus}"
            findings.append(Finding("TRD605", where, f"a stage has {group.gpu} and others", expected, str(stage)))
    if stride_of(degrees.order, dense_sizes(degrees), "pp") != stage:
        findings.append(Finding("TRD605", where, "stages are not blocks of ranks", "pp last", degrees.order.value))
    if degrees.schedule not in _WHOLE:
        expected = "1f1b or zb-h1"
        findings.append(Finding("TRD605", where, "chunks on several types", expected, degrees.schedule.value))
    return findings
