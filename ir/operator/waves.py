"""Waves of tiles: how often the SMs of a GPU are filled by the products of a layer, as a function of the tokens.

A product of n tokens has ceil(n / rows) x columns tiles and runs in ceil(tiles / SMs) waves (TokenWeave, arXiv
2505.11329, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Tiling:
    """The products of a layer on a GPU: rows of a tile, SMs, and column tiles of every product."""

    tile_rows: int
    sm_count: int
    column_tiles: tuple[int, ...]

    def __post_init__(self) -> None:
        if min(self.tile_rows, self.sm_count) < 1 or not self.column_tiles or min(self.column_tiles) < 1:
            raise InvalidValue(message="a tiling has at least one row, one SM, and products of at least one tile")

    def row_tiles(self, tokens: int) -> int:
        """Return the tiles that the tokens fill, the last one perhaps in part."""
        return -(-tokens // self.tile_rows)

    def waves(self, tokens: int) -> int:
        """Return the waves of all products for that many tokens; 0 for none."""
        rows = self.row_tiles(tokens)
        return sum(-(-rows * columns // self.sm_count) for columns in self.column_tiles)


@dataclass(frozen=True, slots=True)
class TokenSplit:
    """The first `first` of `tokens` tokens run apart from the others; 0 is no split. `waves` is over both."""

    tokens: int
    first: int
    waves: int
