"""The bound over all 1F1B layouts that knows the tails of every rank: what `best_contiguous` leaves out.

After rank i's last backward, rank i - 1 still has one to do, and then its own tail:

    after(0) = tail(0),  after(i) = max(tail(i), hop + b(i - 1) + after(i - 1)),  T >= last backward of i + after(i)

`after` depends on how the ranks before were cut, so the dynamic program keeps, per rank and layers used, the pairs
(after, largest right-hand side so far) that no other pair dominates. Exact for this system of inequalities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels.training_bounds import Bound, layout_of
from treadle.costmodels.training_layer import LayerTimer
from treadle.costmodels.training_mixed import Blocks, MixedTables, best_mixed_with_tails, boundary_of
from treadle.costmodels.training_setting import Setting
from treadle.costmodels.training_tables import Matrix, Tables
from treadle.ir.training.plan import Degrees, StageLayout


@dataclass(frozen=True, slots=True)
class _Labels:
    """Partial cuts after one rank, as columns: where they end, what they are worth, and which one each continues."""

    ends: NDArray[np.int64]
    after_us: NDArray[np.float64]
    """What comes after the last rank's last backward."""
    worst_us: NDArray[np.float64]
    """Largest right-hand side so far."""
    backward_us: NDArray[np.float64]
    before: NDArray[np.int64]


def best_with_tails(
    setting: Setting, degrees: Degrees, timer: LayerTimer, first: StageLayout, cutoff_us: float
) -> Bound:
    """Return the least value of the system over all 1F1B layouts, and such a layout.

    Args:
        setting: the problem.
        degrees: the choices; one virtual stage per rank.
        timer: of this problem.
        first: a layout to begin with (of `best_contiguous`).
        cutoff_us: values from here on do not matter: the bound is then the cutoff, without a layout.
    """
    if degrees.placement:
        blocks = Blocks(setting, degrees, timer)
        value = _value(MixedTables(setting, degrees, blocks, boundary_of(blocks, first)), first)
        known = Bound(value, first) if value < cutoff_us else Bound(cutoff_us)
        return best_mixed_with_tails(setting, degrees, blocks, known, _below)
    tables = Tables(setting, degrees, timer, cutoff_us)
    value = _value(tables, first)
    if value < cutoff_us:
        found = _below(tables, value)
        return found if found.layout else Bound(value, first)
    return _below(tables, cutoff_us)


def _below(tables: Tables, cutoff_us: float) -> Bound:
    """Return the best cut below the cutoff, or the cutoff without a layout."""
    return _search(tables, cutoff_us) or Bound(cutoff_us)


def _value(tables: Tables, layout: StageLayout) -> float:
    after = worst = before = 0.0
    for rank, (start, end) in enumerate(layout.cuts()):
        view, rows, columns = tables.window(rank)
        if start not in range(rows.start, rows.stop) or end not in range(columns.start, columns.stop):
            return math.inf
        here = start - rows.start, end - columns.start
        until, tail, backward = (float(part[here]) for part in _parts(view, rank))
        after = max(tail, tables.hop + before + after) if rank else tail
        worst, before = max(worst, until + after), backward
    return worst


def _parts(tables: Tables, rank: int) -> tuple[Matrix, Matrix, Matrix]:
    return tables.until_last_backward(rank), tables.tail(rank)[0], tables.times(rank)[1]


def _search(tables: Tables, cutoff_us: float) -> Bound | None:
    """Return the best complete cut whose value is below the cutoff."""
    ranks, zero = tables.degrees.pipeline, np.zeros(1)
    labels = _Labels(np.zeros(1, dtype=np.int64), zero, zero, zero, np.zeros(1, dtype=np.int64))
    levels: list[_Labels] = []
    for rank in range(ranks):
        labels = _extended(tables, labels, rank, cutoff_us)
        if not labels.ends.size:
            return None
        levels.append(labels)
    at = int(labels.worst_us.argmin())
    value, cuts = float(labels.worst_us[at]), list[int]()
    for level in reversed(levels):
        cuts.append(int(level.ends[at]))
        at = int(level.before[at])
    cuts.append(0)
    return Bound(value, layout_of(tables, tuple(end - start for end, start in pairwise(cuts))[::-1]))


def _extended(tables: Tables, labels: _Labels, rank: int, cutoff_us: float) -> _Labels:
    """Return the labels one rank on: every range it may hold after every label, without those that another beats."""
    view, rows, columns = tables.window(rank)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        none = np.zeros(0)
        return _Labels(np.zeros(0, dtype=np.int64), none, none, none, np.zeros(0, dtype=np.int64))
    until, tail, backward = _parts(view, rank)
    useful = view.allowed(rank) & (until + tail < cutoff_us)
    if rank == tables.degrees.pipeline - 1:
        useful[:, : tables.setting.model.layers - columns.start] = False
    inside = ((labels.ends >= rows.start) & (labels.ends < rows.stop)).nonzero()[0]
    places = labels.ends[inside] - rows.start
    number, to = useful[places].nonzero()
    start, before = places[number], inside[number]
    after = tail[start, to]
    if rank:
        after = np.maximum(after, tables.hop + labels.backward_us[before] + labels.after_us[before])
    worst = np.maximum(labels.worst_us[before], until[start, to] + after)
    own = backward[start, to]
    ends = to + columns.start
    order = np.lexsort((worst, after + own, ends))
    order = order[worst[order] < cutoff_us]
    kept = order[_undominated(ends[order], worst[order])]
    return _Labels(ends[kept], after[kept], worst[kept], own[kept], before[kept])


def _undominated(ends: NDArray[np.int64], worst: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which labels no earlier one of the same end beats in the largest right-hand side.

    Labels of an end come in the order of what follows them (their backward and what comes after).
    """
    kept = np.ones(len(ends), dtype=np.bool_)
    edges = np.flatnonzero(np.diff(ends, prepend=-1, append=-1))
    for first, last in pairwise(edges.tolist()):
        least = np.minimum.accumulate(worst[first:last])
        kept[first + 1 : last] = worst[first + 1 : last] < least[:-1]
    return kept
