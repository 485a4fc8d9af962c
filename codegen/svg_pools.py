"""Engine pools as a picture: one box per pool, one square per GPU, squares of an engine together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.codegen.svg import element, label, text

WIDTH = 860.0
_SQUARE, _GAP, _ENGINE_GAP = 13.0, 3.0, 9.0
_LEFT, _PAD = 250.0, 14.0
_LETTER = 7.7
"""Width of a letter of a pool's name."""
_MOST_GPUS = 512
"""GPUs of a pool that are drawn; larger pools say how many more there are."""


@dataclass(frozen=True, slots=True)
class PoolPicture:
    """A pool: two lines of text, engines with GPUs each, and the number of its colour."""

    name: str
    detail: str
    replicas: int
    gpus_each: int
    colour: int


def pools_svg(pools: Sequence[PoolPicture]) -> str:
    """Return the picture of all pools, one below the other."""
    parts: list[str] = []
    y = 4.0
    left = min(0.6 * WIDTH, max(_LEFT, *(28 + _LETTER * len(pool.name) for pool in pools), 0.0))
    for pool in pools:
        squares, height = _squares(pool, left, y + _PAD)
        height = max(height, 30.0)
        parts.append(
            element("rect", x=1, y=y, width=WIDTH - 2, height=height + 2 * _PAD, rx=6, class_="box")
            + label(14, y + _PAD + 11, pool.name, class_="strong")
            + label(14, y + _PAD + 27, pool.detail, class_="note")
            + squares
        )
        y += height + 2 * _PAD + 8
    said = "; ".join(f"{pool.replicas} engines of {pool.gpus_each} GPUs: {pool.name}, {pool.detail}" for pool in pools)
    return element(
        "svg",
        element("title", text("Engine pools"), id="pools-title"),
        element("desc", text(said), id="pools-desc"),
        *parts,
        class_="pools", view_box=f"0 0 {WIDTH:g} {y:g}", role="img", aria_labelledby="pools-title pools-desc",
        xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def _squares(pool: PoolPicture, left: float, top: float) -> tuple[str, float]:
    drawn: list[str] = []
    x, y, row = left, top, 0.0
    shown = min(pool.replicas, max(1, _MOST_GPUS // pool.gpus_each))
    columns = min(pool.gpus_each, 8)
    rows = -(-pool.gpus_each // columns)
    width = columns * (_SQUARE + _GAP)
    for replica in range(shown):
        if x + width > WIDTH - 12:
            x, y = left, y + row + _ENGINE_GAP
        boxes = [
            element(
                "rect",
                x=x + (gpu % columns) * (_SQUARE + _GAP), y=y + (gpu // columns) * (_SQUARE + _GAP),
                width=_SQUARE, height=_SQUARE, rx=2,
            )
            for gpu in range(pool.gpus_each)
        ]  # fmt: skip
        said = element("title", text(f"{pool.name}, engine {replica + 1} of {pool.replicas}"))
        drawn.append(element("g", said, *boxes, class_=f"s{pool.colour}"))
        row = rows * (_SQUARE + _GAP)
        x += width + _ENGINE_GAP
    if shown < pool.replicas:
        drawn.append(label(x + 4, y + 11, f"+ {pool.replicas - shown} more", class_="note"))
    return "".join(drawn), y + row - top
