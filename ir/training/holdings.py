"""Which rank holds which bytes of the training state: pieces of the model, shards of them, positions of ranks.

A *cell* is one tensor group: the same pieces, split over its ranks (lanes) alike, so one lane stands for all. Cells of
a stage are its *holders*: index = data rank x context degree + context rank. A piece is the embedding (0), a decoder
layer (1 to L), the output projection (L + 1), or what follows the last layer (L + 2: final norm, predictors). Split
parts are cut evenly by holders: holder j of n has the bytes from floor(j B / n) to floor((j + 1) B / n). Routed experts
stand on every E-th holder, E = expert ranks over tensor ranks (1 when the experts fit into a tensor group).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from treadle.ir.training.model import LayerKind, TrainingModel
from treadle.ir.training.plan import Degrees, StageLayout
from treadle.ir.training.ranks import dense_sizes, stride_of
from treadle.ir.training.spec import TrainingSpec

WEIGHT_BYTES = 2
Cell = tuple[int, int]
"""(stage, holder)."""
Span = tuple[int, int]
"""From byte, to byte."""


class Part(Enum):
    """What of a piece is held."""

    WEIGHTS = "weights"
    OPTIMIZER = "optimizer"
    EXPERT_WEIGHTS = "expert weights"
    EXPERT_OPTIMIZER = "expert optimizer"

    routed: bool
    """Whether the part belongs to routed experts."""

    def __init__(self, words: str) -> None:
        self.routed = words.startswith("expert")


PARTS = tuple(Part)
Sizes = tuple[int, int, int, int]
"""Bytes on one lane by part, in the order of `PARTS`, before the split over holders."""


def holders_of(degrees: Degrees) -> int:
    """Return the cells of a stage."""
    return degrees.data * degrees.context


def expert_classes(degrees: Degrees) -> int:
    """Return E: over how many holders the experts are spread."""
    return max(1, degrees.expert * degrees.expert_tensor // degrees.tensor)


def splits(part: Part, degrees: Degrees) -> bool:
    """Whether holders have slices of the part (ZeRO) rather than copies."""
    return degrees.zero == 3 if part in (Part.WEIGHTS, Part.EXPERT_WEIGHTS) else degrees.zero >= 1


@lru_cache(maxsize=4096)
def _strides(degrees: Degrees) -> tuple[int, int, int]:
    """Return the distances of neighbouring context, data and pipeline ranks."""
    sizes = dense_sizes(degrees)
    context, data, pipeline = (stride_of(degrees.order, sizes, name) for name in ("cp", "dp", "pp"))
    return context, data, pipeline


def cell_of(degrees: Degrees, rank: int) -> Cell:
    """Return the cell of a global rank (tensor ranks are innermost)."""
    context, data, pipeline = _strides(degrees)
    holder = rank // data % degrees.data * degrees.context + rank // context % degrees.context
    return rank // pipeline % degrees.pipeline, holder


def rank_of(degrees: Degrees, cell: Cell) -> int:
    """Return the first global rank of a cell."""
    context, data, pipeline = _strides(degrees)
    first, second = divmod(cell[1], degrees.context)
    return cell[0] * pipeline + first * data + second * context


def span(part: Part, size: int, degrees: Degrees, holder: int) -> Span:
    """Return which bytes of a part a holder of its class has."""
    if not splits(part, degrees):
        return 0, size
    index, count = slice_of(part, degrees, holder)
    return index * size // count, (index + 1) * size // count


def slice_of(part: Part, degrees: Degrees, holder: int) -> tuple[int, int]:
    """Return a holder's place among those that share the part, and how many they are."""
    classes = expert_classes(degrees) if part.routed else 1
    return holder // classes, holders_of(degrees) // classes


def same_class(part: Part, degrees: Degrees, holder: int, other: int) -> bool:
    """Whether two holders (of plans with equal expert degrees) have the same experts; always true for other parts."""
    classes = expert_classes(degrees) if part.routed else 1
    return holder % classes == other % classes


def overlap(first: Span, second: Span) -> int:
    """Return the bytes two spans share."""
    return max(0, min(first[1], second[1]) - max(first[0], second[0]))


def missing(need: Span, have: Span) -> tuple[Span, ...]:
    """Return what is needed and not there."""
    start, end = max(need[0], have[0]), min(need[1], have[1])
    if start >= end:
        return (need,) if need[0] < need[1] else ()
    return tuple(item for item in ((need[0], start), (end, need[1])) if item[0] < item[1])


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces of a model for one tensor and expert split: their sizes, and which stage holds which."""

    sizes: tuple[Sizes, ...]
    stages: tuple[tuple[int, ...], ...]
    """Pieces of every stage, rising."""

    def shared(self, stage: int, other: Pieces, other_stage: int) -> tuple[int, ...]:
        """Return the pieces a stage has in common with a stage of another plan of the same model."""
        return tuple(sorted(set(self.stages[stage]) & set(other.stages[other_stage])))


def pieces_of(model: TrainingModel, spec: TrainingSpec, degrees: Degrees, layout: StageLayout) -> Pieces:
    """Return sizes and places of all pieces."""
    sizes = _sizes(model, spec, degrees)
    head = 0 if model.tied_embeddings else model.layers + 1
    found: list[set[int]] = [set() for _ in range(degrees.pipeline)]
    for slot, (start, end) in enumerate(layout.cuts()):
        found[degrees.rank_of(slot)].update(range(start + 1, end + 1))
    found[0].add(0)
    found[degrees.last_rank].update((head, model.layers + 2))
    return Pieces(sizes, tuple(tuple(sorted(items)) for items in found))


def _sizes(model: TrainingModel, spec: TrainingSpec, degrees: Degrees) -> tuple[Sizes, ...]:
    kinds = {kind.name: _of_layer(kind, spec, degrees) for kind in model.kinds}
    layers = [kinds[name] for name in model.sequence()]
    last = model.kind(model.order[-1][0])
    joined = model.predictors * (2 * model.hidden * model.hidden // degrees.tensor + _dense(last, degrees))
    routed = model.predictors * _routed(last, degrees)
    return (
        _bytes(spec, model.embedding_parameters // degrees.tensor, 0),
        *layers,
        _bytes(spec, model.head_parameters // degrees.tensor, 0),
        _bytes(spec, model.hidden + joined, routed),
    )


def _of_layer(kind: LayerKind, spec: TrainingSpec, degrees: Degrees) -> Sizes:
    return _bytes(spec, _dense(kind, degrees), _routed(kind, degrees))


def _dense(kind: LayerKind, degrees: Degrees) -> int:
    return sum(product.parameters for product in kind.products) // degrees.tensor + kind.replicated_parameters


def _routed(kind: LayerKind, degrees: Degrees) -> int:
    return kind.experts.parameters // (degrees.expert * degrees.expert_tensor) if kind.experts else 0


def _bytes(spec: TrainingSpec, dense: int, routed: int) -> Sizes:
    optimizer = spec.optimizer_bytes
    return WEIGHT_BYTES * dense, optimizer * dense, WEIGHT_BYTES * routed, optimizer * routed
