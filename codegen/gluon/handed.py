"""Figures of rows that one warp group hands to another once a tile, by way of a buffer with two barriers."""

from __future__ import annotations

from treadle.codegen.gluon.writer import Lines


def given(buffer: str, value: str) -> Lines:
    """Return how a group hands over figures of rows: into the buffer, once the tile before has been read."""
    return [
        f"mbarrier.wait({buffer}_empty.index(0), _parity(tiles_done, 1) ^ 1)",
        f"{buffer}.index(0).store({value})",
        f"mbarrier.arrive({buffer}_full.index(0), count=1)",
    ]


def taken(buffer: str, value: str, layout: str) -> Lines:
    """Return how a group takes figures of rows from another one."""
    return [
        f"mbarrier.wait({buffer}_full.index(0), _parity(tiles_done, 1))",
        f"{value} = {buffer}.index(0).load({layout})",
        f"mbarrier.arrive({buffer}_empty.index(0), count=1)",
    ]
