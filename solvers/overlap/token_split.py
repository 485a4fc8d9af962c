"""The most even split of a batch that costs no extra wave (TokenWeave's wave-aware split), exactly.

Waves of a split are at least those of the whole, since both tiles and waves are rounded up. Of equal row tiles the
counts nearest to one half win, so it is enough to look at each number of row tiles of the first part: for n tokens
that is n / rows steps, every one exact.
"""

from __future__ import annotations

from treadle.ir.errors import InvalidValue
from treadle.ir.operator.waves import Tiling, TokenSplit


def token_split(tiling: Tiling, tokens: int) -> TokenSplit:
    """Return the split with the fewest waves, of those the most even; the first part is not the larger one.

    Raises:
        InvalidValue: fewer than one token.
    """
    if tokens < 1:
        raise InvalidValue(message=f"a batch of {tokens} tokens cannot be split")
    whole, half = tiling.row_tiles(tokens), tokens // 2
    allowed = tiling.waves(tokens)
    by_tiles = [tiling.waves(tiles * tiling.tile_rows) for tiles in range(whole + 1)]
    for first_tiles in range(tiling.row_tiles(half), 0, -1):
        most = min(half, first_tiles * tiling.tile_rows)
        least = (first_tiles - 1) * tiling.tile_rows + 1
        second_tiles = tiling.row_tiles(tokens - most)
        if by_tiles[first_tiles] + by_tiles[second_tiles] <= allowed and least <= most:
            return TokenSplit(tokens, most, allowed)
    return TokenSplit(tokens, 0, allowed)


def brute_force_split(tiling: Tiling, tokens: int) -> TokenSplit:
    """Return the same by trying every split: the reference for tests and benchmarks."""
    waves, first = min((tiling.waves(n) + tiling.waves(tokens - n), -n) for n in range(tokens // 2 + 1))
    return TokenSplit(tokens, -first, waves)
