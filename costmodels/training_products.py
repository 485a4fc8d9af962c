"""Time of a matrix product from its shape: waves of output tiles over the multiprocessors, each with a start.

A library kernel cuts the output into tiles, one per multiprocessor at a time; the last wave may be nearly empty, a tile
costs its arithmetic plus filling and writing, and thin outputs also split the inner dimension (NVIDIA, Matrix
Multiplication Background User's Guide: tile and wave quantization). The figures of a GPU type (`ProductFigures`) are
measured on single products, not fitted to training runs (`python -m benchmarks.training_products`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

_LARGE = ((256, 128), (128, 256))
_SMALL = ((128, 64), (64, 128), (64, 64))
_SPLITS = (1, 2, 4)
_WHOLE_TILE = 256 * 128
_PARTIAL_BYTES = 8
"""A partial sum in 32 bits is written and read."""


@dataclass(frozen=True, slots=True)
class ProductFigures:
    """How one GPU type runs single products; times in microseconds."""

    large_share: float
    """Share of the peak rate inside a tile of 256 x 128."""
    small_share: float
    """The same for tiles of 128 x 64 and below."""
    start_us: float
    """Launch, first loads."""
    tile_us: float
    """Filling the pipeline and writing the result of one 256 x 128 tile."""


@lru_cache(maxsize=65536)
def product_parts(
    figures: ProductFigures,
    multiprocessors: int,
    peak: float,
    memory: float,
    shape: tuple[float, float, float, float],
) -> tuple[float, float]:
    """Return (arithmetic, other) microseconds of the fastest tiling of a batch of equal products.

    Args:
        figures: of the GPU type.
        multiprocessors: that share the tiles.
        peak: FLOP per microsecond of the whole GPU.
        memory: bytes per microsecond of its memory.
        shape: (batches, rows, inputs, outputs).
    """
    batches, rows, inputs, outputs = shape
    rate = peak / multiprocessors
    best = (float("inf"), 0.0)
    for tiles, share in ((_LARGE, figures.large_share), (_SMALL, figures.small_share)):
        for height, width in tiles:
            count = ceil(rows / height) * ceil(outputs / width) * batches
            for split in _SPLITS if count < multiprocessors else (1,):
                waves = ceil(count * split / multiprocessors)
                busy = waves * 2 * height * width * inputs / split / (rate * share)
                other = waves * figures.tile_us * height * width / _WHOLE_TILE
                if split > 1:
                    other += split * batches * rows * outputs * _PARTIAL_BYTES / memory
                if busy + other < sum(best):
                    best = (busy, other)
    return best[0], best[1] + figures.start_us
