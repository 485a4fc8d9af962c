"""A family of tile programs as data: its shape keys, tile sizes and options, and how requests are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from treadle.frontends.programs.errors import (
    IndivisibleHeads,
    InvalidExtent,
    InvalidOption,
    InvalidTileSize,
    MissingShapeKey,
    UnknownShapeKey,
    UnsupportedHeadDimension,
)
from treadle.ir.diagnostics import closest
from treadle.ir.tile.program import TileProgram

DTYPES = ("bfloat16", "float16")
"""Element types that the kernels of the library read and write; sums are float32 throughout."""

LARGEST_EXTENT = 2**31 - 1
"""Indices in generated kernels are 32-bit before they meet a stride."""

Shape = dict[str, int]
TileSizes = dict[str, int]
Options = dict[str, str | int | bool]


@dataclass(frozen=True, slots=True)
class Extent:
    """One shape key: what it counts, its default if it has one, and its range."""

    meaning: str
    default: int | None = None
    least: int = 1
    most: int = LARGEST_EXTENT


@dataclass(frozen=True, slots=True)
class Size:
    """One tile size: what it cuts, its range, and whether only powers of two will do."""

    meaning: str
    least: int = 16
    most: int = 512
    power_of_two: bool = True


@dataclass(frozen=True, slots=True)
class Family:
    """A family of tile programs.

    `complete` fills and cross-checks a shape; `tiles` lists tile sizes for a shape, the usual choice first; `assemble`
    makes the program from checked parts.
    """

    name: str
    summary: str
    shape: dict[str, Extent]
    sizes: dict[str, Size]
    tiles: Callable[[Shape, Options], tuple[TileSizes, ...]]
    assemble: Callable[[Shape, TileSizes, Options], TileProgram]
    complete: Callable[[Shape], Shape] = lambda shape: shape
    options: dict[str, tuple[str | int | bool, ...]] = field(default_factory=dict[str, tuple[str | int | bool, ...]])
    """Values each option may take, the default first; `dtype` is there for every family."""

    def build(
        self,
        shape: Mapping[str, int],
        tile_sizes: Mapping[str, int] | None = None,
        options: Mapping[str, str | int | bool] | None = None,
    ) -> TileProgram:
        """Return the program at a shape; see `treadle.frontends.programs.build`."""
        checked = self.check_shape(shape)
        chosen = self.check_options(options or {})
        sizes = self.check_sizes({**self.tiles(checked, chosen)[0], **(tile_sizes or {})})
        return self.assemble(checked, sizes, chosen)

    def candidates(
        self, shape: Mapping[str, int], options: Mapping[str, str | int | bool] | None = None
    ) -> tuple[TileProgram, ...]:
        """Return programs of a few tile sizes at a shape, the usual choice first."""
        checked = self.check_shape(shape)
        chosen = self.check_options(options or {})
        return tuple(self.assemble(checked, self.check_sizes(sizes), chosen) for sizes in self.tiles(checked, chosen))

    def check_shape(self, shape: Mapping[str, int]) -> Shape:
        """Return the shape with defaults filled in, keys in the family's order."""
        for key in shape:
            if key not in self.shape:
                known = list(self.shape)
                raise UnknownShapeKey(
                    family=self.name, key=key, expected=f"keys among {', '.join(known)}", hint=closest(key, known)
                )
        filled: Shape = {}
        for key, extent in self.shape.items():
            value = shape.get(key, extent.default)
            if value is None:
                raise MissingShapeKey(family=self.name, key=key, expected=extent.meaning)
            if isinstance(value, bool):
                value = int(value)
            if not isinstance(value, int) or not extent.least <= value <= extent.most:  # pyright: ignore[reportUnnecessaryIsInstance] - callers pass parsed text
                raise InvalidExtent(
                    family=self.name,
                    key=key,
                    found=value,
                    expected=f"{extent.meaning}: {extent.least} to {extent.most}",
                )
            filled[key] = value
        return self.complete(filled)

    def check_sizes(self, sizes: Mapping[str, int]) -> TileSizes:
        """Return the tile sizes in the family's order."""
        for key, value in sizes.items():
            if key not in self.sizes:
                known = list(self.sizes)
                raise InvalidTileSize(
                    family=self.name,
                    key=key,
                    found=value,
                    expected=f"keys {', '.join(known)}",
                    hint=closest(key, known),
                )
            size = self.sizes[key]
            if not size.least <= value <= size.most or (size.power_of_two and value & (value - 1)):
                what = "a power of two" if size.power_of_two else "a whole number"
                raise InvalidTileSize(
                    family=self.name,
                    key=key,
                    found=value,
                    expected=f"{size.meaning}: {what} from {size.least} to {size.most}",
                )
        return {key: sizes[key] for key in self.sizes}

    def check_options(self, options: Mapping[str, str | int | bool]) -> Options:
        """Return the options with defaults filled in."""
        allowed: dict[str, tuple[str | int | bool, ...]] = {"dtype": DTYPES, **self.options}
        for key, value in options.items():
            if key not in allowed:
                raise InvalidOption(
                    family=self.name,
                    key=key,
                    found=value,
                    expected=f"options {', '.join(allowed)}",
                    hint=closest(key, list(allowed)),
                )
            if value not in allowed[key]:
                choices = ", ".join(str(choice) for choice in allowed[key])
                raise InvalidOption(family=self.name, key=key, found=value, expected=f"one of {choices}")
        return {key: options.get(key, values[0]) for key, values in allowed.items()}


def ceil_div(value: int, divisor: int) -> int:
    """Return value / divisor, rounded up."""
    return -(-value // divisor)


def next_power_of_two(value: int) -> int:
    """Return the smallest power of two that is at least `value`."""
    return 1 << (value - 1).bit_length()


def check_heads(shape: Shape) -> None:
    """Refuse query heads that the key-value heads do not divide; raises IndivisibleHeads."""
    if shape["heads"] % shape["kv_heads"]:
        raise IndivisibleHeads(
            heads=shape["heads"], kv_heads=shape["kv_heads"], expected="a multiple of the key-value heads"
        )


def head_parts(value: int, key: str) -> tuple[int, ...]:
    """Return the one or two powers of two (16 to 512) that add up to a head dimension, largest first.

    128 is (128,), 192 is (128, 64), 576 is (512, 64). Raises UnsupportedHeadDimension.
    """
    parts = [1 << bit for bit in range(value.bit_length() - 1, -1, -1) if value >> bit & 1]
    if len(parts) > 2 or max(parts) > 512 or min(parts) < 16:
        raise UnsupportedHeadDimension(
            key=key, found=value, expected="one power of two from 16 to 512, or the sum of two (64, 96, 128, 192, 576)"
        )
    return tuple(parts)


def value_columns(value: int) -> int:
    """Return the tile columns that hold a value head: the next power of two, 16 to 512.

    Raises UnsupportedHeadDimension.
    """
    columns = next_power_of_two(value)
    if not 16 <= columns <= 512:
        raise UnsupportedHeadDimension(key="v_head_dim", found=value, expected="9 to 512")
    return columns
