"""Rows over warp groups: the split program computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from treadle.costmodels.machines import load_machine
from treadle.driver.gluon import for_groups
from treadle.frontends import programs
from treadle.frontends.programs.errors import InvalidOption
from treadle.frontends.programs.rows import row_values, split_rows, splits_rows
from treadle.ir.tile.program import OperationKind

TILES = {"block_m": 128, "block_n": 256, "block_k": 64}
SHAPE = {"m": 512, "n": 512, "k": 512}


@pytest.mark.parametrize("family", ["gemm", "swiglu", "dual_gemm"])
def test_split_keeps_the_products(family: str) -> None:
    tiles = TILES if family == "gemm" else {**TILES, "block_n": 128}
    program = programs.build(family, SHAPE, tiles)
    split = split_rows(program, 2)
    assert split.flops == program.flops
    before = sum(o.result.bytes for o in program.operations if o.kind is OperationKind.LOAD)
    assert sum(o.result.bytes for o in split.operations if o.kind is OperationKind.LOAD) == before
    assert all(f"{name}_1" in {o.name for o in split.operations} for name in row_values(program))
    assert programs.build(family, SHAPE, tiles, split.options) == split


def test_split_computes_the_same() -> None:
    program = split_rows(programs.build("gemm", SHAPE, TILES), 2)
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((128, 64)), rng.standard_normal((256, 64))
    parts = [a[64 * part : 64 * (part + 1)] @ b.T for part in range(2)]
    assert np.allclose(np.concatenate(parts), a @ b.T)
    shapes = [o.result.shape for o in program.operations if o.kind is OperationKind.MMA]
    assert shapes == [part.shape for part in parts]


def test_refuses_rows_that_cannot_be_split() -> None:
    attention = programs.build("attention_fwd", {"heads": 2, "seq": 256, "qk_head_dim": 64})
    assert not splits_rows(attention, 2)
    with pytest.raises(InvalidOption, match="row_parts"):
        split_rows(attention, 2)


def test_cut_for_groups_only_where_needed() -> None:
    h200, b200 = load_machine("h200"), load_machine("b200")
    wide = programs.build("gemm", SHAPE, TILES)
    assert for_groups(wide, h200).options["row_parts"] == 2
    assert for_groups(wide, b200) == wide
    narrow = programs.build("gemm", SHAPE, {**TILES, "block_n": 128})
    assert for_groups(narrow, h200) == narrow
    tall = programs.build(
        "attention_fwd", {"heads": 2, "seq": 256, "qk_head_dim": 128}, {"block_m": 128, "sub_tiles": 1}
    )
    assert for_groups(tall, h200).tile_sizes["sub_tiles"] == 2
