"""The bound over all 1F1B layouts that knows the tails of every rank: what `best_contiguous` leaves out.

After rank i's last backward, rank i - 1 still has one to do, and then its own tail:

    after(0) = tail(0),  after(i) = max(tail(i), hop + b(i - 1) + after(i - 1)),  T >= last backward of i + after(i)

`after` depends on how the ranks before were cut, so the dynamic program keeps, per rank and layers used, the pairs
(after, largest right-hand side so far) that no other pair dominates. Exact for this system of inequalities.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from treadle.costmodels.training_bounds import Bound, Matrix, Tables
from treadle.costmodels.training_mixed import Blocks, MixedTables, best_mixed_with_tails, boundary_of
from treadle.costmodels.training_step import LayerTimer, Setting
from treadle.ir.training.plan import Degrees, StageLayout


@dataclass(frozen=True, slots=True)
class _Label:
    """A partial cut: what comes after its last rank's last backward, largest right-hand side, that backward, cuts."""

    after_us: float
    worst_us: float
    backward_us: float
    cuts: tuple[int, ...]


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
    tables = Tables(setting, degrees, timer)
    value = _value(tables, first)
    if value < cutoff_us:
        found = _below(tables, value)
        return found if found.layout else Bound(value, first)
    return _below(tables, cutoff_us)


def _below(tables: Tables, cutoff_us: float) -> Bound:
    """Return the best cut below the cutoff, or the cutoff without a layout."""
    found = _search(tables, cutoff_us)
    return Bound(found.worst_us, _layout(found)) if found else Bound(cutoff_us)


def _layout(label: _Label) -> StageLayout:
    return StageLayout(tuple(end - start for start, end in zip((0, *label.cuts), label.cuts, strict=False)))


def _value(tables: Tables, layout: StageLayout) -> float:
    label = _Label(0.0, 0.0, 0.0, ())
    for rank, (start, end) in enumerate(layout.cuts()):
        parts = _parts(tables, rank)
        label = _extended(label, tables.hop, rank, end, *(float(part[start, end]) for part in parts))
    return label.worst_us


def _parts(tables: Tables, rank: int) -> tuple[Matrix, Matrix, Matrix]:
    return tables.until_last_backward(rank), tables.tail(rank)[0], tables.times(rank)[1]


def _extended(label: _Label, hop: float, rank: int, end: int, until: float, tail: float, backward: float) -> _Label:
    after = max(tail, hop + label.backward_us + label.after_us) if rank else tail
    return _Label(after, max(label.worst_us, until + after), backward, (*label.cuts, end))


def _search(tables: Tables, cutoff_us: float) -> _Label | None:
    """Return the best complete cut whose value is below the cutoff."""
    ranks, layers = tables.degrees.pipeline, tables.setting.model.layers
    labels: dict[int, list[_Label]] = {0: [_Label(0.0, 0.0, 0.0, ())]}
    for rank in range(ranks):
        until, tail, backward = _parts(tables, rank)
        allowed = tables.allowed(rank)
        useful = allowed & (until + tail < cutoff_us)
        following: dict[int, list[_Label]] = {}
        for start, open_labels in labels.items():
            ends = useful[start].nonzero()[0] if rank < ranks - 1 else [layers] * bool(useful[start, layers])
            for end in ends:
                figures = float(until[start, end]), float(tail[start, end]), float(backward[start, end])
                for label in open_labels:
                    longer = _extended(label, tables.hop, rank, int(end), *figures)
                    if longer.worst_us < cutoff_us:
                        following.setdefault(int(end), []).append(longer)
        labels = {end: _undominated(group) for end, group in following.items()}
    return min(labels.get(layers, ()), key=lambda label: label.worst_us, default=None)


def _undominated(labels: list[_Label]) -> list[_Label]:
    """Return the labels that no other beats in what comes after and in the largest right-hand side."""
    kept: list[_Label] = []
    least = math.inf
    for label in sorted(labels, key=lambda item: (item.after_us + item.backward_us, item.worst_us, item.cuts)):
        if label.worst_us < least:
            kept.append(label)
            least = label.worst_us
    return kept
