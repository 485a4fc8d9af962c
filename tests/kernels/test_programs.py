"""The tile program library: shapes, tile sizes, work, and what it refuses."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.frontends import programs
from treadle.frontends.programs.errors import (
    IndivisibleHeads,
    InvalidExtent,
    InvalidOption,
    InvalidTileSize,
    MissingShapeKey,
    UnknownFamily,
    UnknownShapeKey,
    UnsupportedHeadDimension,
)
from treadle.ir.diagnostics import TreadleError
from treadle.ir.tile.program import Memory, OperationKind, TileProgram

SHAPES: dict[str, dict[str, int]] = {
    "attention_fwd": {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128, "causal": 1},
    "attention_decode": {"batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 2048, "qk_head_dim": 128},
    "gemm": {"m": 4096, "n": 6144, "k": 4096},
    "swiglu": {"m": 4096, "n": 14336, "k": 4096},
    "grouped_gemm": {"experts": 8, "tokens": 4096, "top_k": 2, "n": 14336, "k": 4096},
    "rms_norm": {"rows": 4096, "columns": 4096},
    "layer_norm": {"rows": 4096, "columns": 4096},
    "attention_bwd": {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128, "causal": 1},
    "attention_varlen": {"batch": 16, "tokens": 16384, "heads": 32, "kv_heads": 8, "qk_head_dim": 128, "causal": 1},
    "attention_paged": {
        "batch": 64, "heads": 32, "kv_heads": 8, "kv_seq": 2048, "page_size": 16, "qk_head_dim": 128,
    },
    "dual_gemm": {"m": 4096, "n": 4096, "k": 4096},
    "gemm_fp8": {"m": 4096, "n": 6144, "k": 4096},
    "gemm_persistent": {"m": 4096, "n": 6144, "k": 4096},
    "gemm_w4a16": {"m": 32, "n": 6144, "k": 4096, "group": 128},
    "kmeans_assign": {"points": 1 << 20, "centroids": 4096, "dimension": 128},
    "rms_norm_gemm": {"m": 4096, "n": 6144, "k": 4096},
}  # fmt: skip


def names(program: TileProgram) -> list[str]:
    return [operation.name for operation in program.operations]


def test_every_family_has_a_shape_here_and_candidates() -> None:
    assert set(SHAPES) == set(programs.FAMILIES)
    for family, shape in SHAPES.items():
        found = programs.candidates(family, shape)
        assert 2 <= len(found) <= 8
        assert programs.build(family, shape) == found[0]
        assert len({tuple(program.tile_sizes.items()) for program in found}) == len(found)


@pytest.mark.parametrize(("m", "n", "k"), [(4096, 6144, 4096), (1, 128, 64), (33, 100, 70)])
def test_gemm_work_covers_the_product(m: int, n: int, k: int) -> None:
    for program in programs.candidates("gemm", {"m": m, "n": n, "k": k}):
        assert program.flops >= 2 * m * n * k
    aligned = programs.build("gemm", {"m": 4096, "n": 6144, "k": 4096})
    assert aligned.flops == 2 * 4096 * 6144 * 4096


def test_swiglu_is_two_products_of_one_load() -> None:
    program = programs.build("swiglu", SHAPES["swiglu"])
    assert program.flops == 4 * 4096 * 14336 * 4096
    assert sum(operation.kind is OperationKind.LOAD for operation in program.operations) == 3


def test_grouped_gemm_work_is_that_of_the_routed_rows() -> None:
    program = programs.build("grouped_gemm", SHAPES["grouped_gemm"])
    assert program.flops == 2 * 4096 * 2 * 14336 * 4096


def test_attention_work_without_a_mask() -> None:
    program = programs.build("attention_fwd", {**SHAPES["attention_fwd"], "causal": 0})
    assert program.flops == 4 * 32 * 4096 * 4096 * 128


def test_a_causal_mask_halves_the_work_up_to_the_diagonal() -> None:
    full = programs.build("attention_fwd", {**SHAPES["attention_fwd"], "causal": 0})
    half = programs.build("attention_fwd", SHAPES["attention_fwd"])
    assert 0.5 < half.flops / full.flops < 0.55


def test_causal_queries_behind_a_long_prefix_see_nearly_all_keys() -> None:
    shape = {"heads": 1, "seq": 128, "kv_seq": 4096, "qk_head_dim": 64, "causal": 1}
    program = programs.build("attention_fwd", shape, {"block_n": 128})
    (masked,) = program.after
    assert (program.trips, masked.trips) == (31, 1)
    assert {op.name for op in masked.operations} - {op.name for op in program.operations} == {"masked"}


def test_attention_dataflow_in_full() -> None:
    program = programs.build("attention_fwd", SHAPES["attention_fwd"], {"sub_tiles": 1})
    assert names(program) == [
        "load_k", "load_v", "scores", "tile_max", "row_max", "drop", "alpha", "shifted", "weights", "tile_sum",
        "row_sum", "weights_low", "rescaled", "acc",
    ]  # fmt: skip
    carried = {(op.name, operand.value) for op in program.operations for operand in op.operands if operand.distance}
    assert carried == {("row_max", "row_max"), ("drop", "row_max"), ("row_sum", "row_sum"), ("rescaled", "acc")}


def test_query_sub_tiles_share_the_loads() -> None:
    one = programs.build("attention_fwd", SHAPES["attention_fwd"], {"sub_tiles": 1})
    two = programs.build("attention_fwd", SHAPES["attention_fwd"], {"sub_tiles": 2})
    assert len(two.operations) == 2 + 2 * (len(one.operations) - 2)
    assert two.flops == one.flops


def test_latent_prefill_has_a_product_per_part_of_the_head() -> None:
    shape = {"heads": 128, "seq": 4096, "qk_head_dim": 192, "v_head_dim": 128, "causal": 1}
    program = programs.build("attention_fwd", shape, {"sub_tiles": 1})
    depths = [op.depth for op in program.operations if op.kind is OperationKind.MMA]
    assert depths == [128, 64, program.tile_sizes["block_n"]]


def test_latent_decode_reads_the_cache_once() -> None:
    shape = {"batch": 8, "heads": 128, "kv_heads": 1, "kv_seq": 4096, "qk_head_dim": 576, "v_head_dim": 512}
    program = programs.build("attention_decode", shape)
    loads = [op for op in program.operations if op.kind is OperationKind.LOAD]
    assert [op.result.shape[1] for op in loads] == [512, 64]
    assert program.operation("acc").operands[1].value == "load_k_0"
    separate = programs.build("attention_decode", {**shape, "latent": 0})
    assert any(op.name == "load_v" for op in separate.operations)


def test_decode_splits_share_out_the_keys() -> None:
    for program in programs.candidates("attention_decode", SHAPES["attention_decode"]):
        keys = program.trips * program.tile_sizes["splits"] * program.tile_sizes["block_n"]
        assert keys >= 2048


def test_norm_stores_in_the_loop_and_the_residual_too() -> None:
    plain = programs.build("rms_norm", SHAPES["rms_norm"])
    summed = programs.build("rms_norm", SHAPES["rms_norm"], options={"residual": True})
    assert [op.name for op in plain.operations if op.kind is OperationKind.STORE] == ["store_out"]
    stores = [op.name for op in summed.operations if op.kind is OperationKind.STORE]
    assert stores == ["store_residual", "store_out"]
    assert all(op.result.memory is Memory.SHARED for op in summed.operations if op.kind is OperationKind.LOAD)


@settings(max_examples=60, deadline=None)
@given(
    family=st.sampled_from(sorted(SHAPES)),
    extents=st.lists(st.integers(1, 5000), min_size=8, max_size=8),
    causal=st.integers(0, 1),
)
def test_any_shape_gives_programs_or_a_coded_error(family: str, extents: list[int], causal: int) -> None:
    shape = dict(zip(SHAPES[family], extents, strict=False))
    if "causal" in shape:
        shape["causal"] = causal
    found: tuple[TileProgram, ...] = ()
    with suppress(InvalidExtent, IndivisibleHeads, UnsupportedHeadDimension):
        found = programs.candidates(family, shape)
        assert found
    for program in found:
        assert program.trips * program.instances >= 1
        assert program.shape.items() >= {key: value for key, value in shape.items() if value}.items()


BAD: list[tuple[type[TreadleError], str, dict[str, Any], dict[str, Any], str]] = [
    (UnknownFamily, "atention_fwd", {}, {}, "unknown kernel family `atention_fwd`"),
    (UnknownShapeKey, "gemm", {"m": 1, "n": 1, "kk": 1}, {}, "`gemm` has no shape key `kk`"),
    (MissingShapeKey, "gemm", {"m": 1, "n": 1}, {}, "`gemm` needs the shape key `k`"),
    (InvalidExtent, "gemm", {"m": 0, "n": 1, "k": 1}, {}, "the extent `m` of `gemm` is 0"),
    (InvalidExtent, "gemm", {"m": -4, "n": 1, "k": 1}, {}, "is -4"),
    (InvalidExtent, "gemm", {"m": "4", "n": 1, "k": 1}, {}, "is 4"),
    (InvalidExtent, "gemm", {"m": 2**31, "n": 1, "k": 1}, {}, "is 2147483648"),
    (InvalidExtent, "attention_fwd", {"heads": 1, "seq": 9, "kv_seq": 8, "qk_head_dim": 64, "causal": 1}, {}, "is 9"),
    (InvalidExtent, "grouped_gemm", {"experts": 4, "tokens": 1, "top_k": 5, "n": 1, "k": 1}, {}, "is 5"),
    (IndivisibleHeads, "attention_fwd", {"heads": 6, "kv_heads": 4, "seq": 8, "qk_head_dim": 64}, {}, "6 query heads"),
    (UnsupportedHeadDimension, "attention_fwd", {"heads": 1, "seq": 8, "qk_head_dim": 100}, {}, "= 100"),
    (UnsupportedHeadDimension, "attention_fwd", {"heads": 1, "seq": 8, "qk_head_dim": 8}, {}, "= 8"),
    (
        UnsupportedHeadDimension,
        "attention_fwd",
        {"heads": 1, "seq": 8, "qk_head_dim": 64, "v_head_dim": 600},
        {},
        "600",
    ),
    (
        UnsupportedHeadDimension,
        "attention_decode",
        {"batch": 1, "heads": 8, "kv_heads": 1, "kv_seq": 8, "qk_head_dim": 576, "v_head_dim": 256},
        {},
        "= 256",
    ),
    (InvalidTileSize, "gemm", {"m": 1, "n": 1, "k": 1}, {"tile_sizes": {"block_m": 48}}, "`block_m` of `gemm` is 48"),
    (InvalidTileSize, "gemm", {"m": 1, "n": 1, "k": 1}, {"tile_sizes": {"blockm": 64}}, "`blockm`"),
    (
        InvalidTileSize,
        "attention_fwd",
        {"heads": 1, "seq": 8, "qk_head_dim": 64},
        {"tile_sizes": {"block_m": 16, "sub_tiles": 2}},
        "`sub_tiles`",
    ),
    (
        InvalidTileSize,
        "rms_norm",
        {"rows": 8, "columns": 64},
        {"tile_sizes": {"block_rows": 2, "rows_per_instance": 5}},
        "`rows_per_instance`",
    ),
    (InvalidOption, "gemm", {"m": 1, "n": 1, "k": 1}, {"options": {"dtype": "int8"}}, "`dtype` of `gemm` is `int8`"),
    (InvalidOption, "gemm", {"m": 1, "n": 1, "k": 1}, {"options": {"residual": True}}, "`residual`"),
]


@pytest.mark.parametrize(("error", "family", "shape", "more", "message"), BAD)
def test_bad_requests(
    error: type[TreadleError], family: str, shape: dict[str, Any], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(error) as caught:
        programs.build(family, shape, **more)
    assert message in str(caught.value)
    assert caught.value.expected
    assert caught.value.render().startswith(f"error {error.code}")


def test_a_misspelt_family_is_guessed() -> None:
    with pytest.raises(UnknownFamily) as caught:
        programs.build("atention_fwd", {})
    assert "did you mean `attention_fwd`?" in caught.value.render()
