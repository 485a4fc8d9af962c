"""Kernels at their own shapes: rows of results are compared, and what small shapes do not show is found."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.kernels.test_compile import SHAPES
from treadle.frontends import programs

torch = pytest.importorskip("torch")

from treadle.driver.gpu.correct import output_names, ragged_shape  # noqa: E402 - torch is an extra
from treadle.driver.gpu.families import FAMILIES, Source  # noqa: E402
from treadle.driver.gpu.sampled import check_sample  # noqa: E402

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "attention_fwd": [{"lse": True}],
    "attention_varlen": [{"lse": True}],
    "dual_gemm": [{"combine": "both"}, {"combine": "sum"}],
    "gemm_fp8": [{"scales": "row"}, {"scales": "block"}],
    "rms_norm": [{}, {"residual": True}],
}
CASES = [(family, options) for family in sorted(FAMILIES) for options in OPTIONS.get(family, [{}])]


def _as_launched(family: str, result: Any, source: Source, name: str) -> Any:
    return result.to(torch.float32 if name in ("lse", "distances") else source.dtype)


def _right(family: str, shape: dict[str, int], options: dict[str, Any], spoil: Callable[[str, Any], None]) -> Any:
    """A module whose `launch` computes what is right, then spoils its results."""
    source = Source(1, "cpu", str(options["dtype"]))

    def launch(*inputs: Any, **given: Any) -> Any:
        found = FAMILIES[family].reference(inputs, shape, options)
        if family == "kmeans_assign":
            found = (found[0].argmin(1).int(), found[0].min(1).values.float())
        names = output_names(FAMILIES[family], options, len(found))
        results = []
        for name, result in zip(names, found, strict=True):
            made = result if name == "assigned" else _as_launched(family, result, source, name)
            own = given[name].copy_(made) if name in given else made
            spoil(name, own)
            results.append(own)
        return results[0] if len(results) == 1 else tuple(results)

    return SimpleNamespace(launch=launch)


def _problem(family: str, chosen: dict[str, Any]) -> tuple[dict[str, int], dict[str, Any]]:
    extents, tiles = SHAPES[family]
    if chosen.get("scales") == "block":
        tiles = {**tiles, "block_k": 128}
    program = programs.build(family, extents, tiles, chosen)
    small = {key: min(extent, 96) for key, extent in ragged_shape(family, program.shape).items()}
    return {**small, "experts": program.shape.get("experts", 1)}, {"dtype": "bfloat16", **program.options}


def _untouched(_name: str, _result: Any) -> None:
    pass


@pytest.mark.parametrize(("family", "chosen"), CASES, ids=lambda value: str(value))
def test_what_is_right_passes_and_one_wrong_row_does_not(family: str, chosen: dict[str, Any]) -> None:
    shape, options = _problem(family, chosen)
    good = check_sample(_right(family, shape, options, _untouched), family, shape, options, 5, "cpu")
    assert good["correct"], good
    assert good["rows"] > 1

    def last_row_doubled(name: str, result: Any) -> None:
        if family == "attention_bwd":
            result[-1, -1] *= 2
        elif name == "assigned":
            result[-1] = (result[-1] + 1) % shape["centroids"]
        else:
            result[-1] *= 2

    bad = check_sample(_right(family, shape, options, last_row_doubled), family, shape, options, 5, "cpu")
    assert bad["correct"] is False, bad
    assert bad["reason"]


def test_one_value_that_is_not_written_is_seen() -> None:
    shape, options = _problem("gemm", {})

    def hole(_name: str, result: Any) -> None:
        result[17, 3] = float("nan")

    found = check_sample(_right("gemm", shape, options, hole), "gemm", shape, options, 5, "cpu")
    assert found["reason"] == "result 0 has values that were not written"


def test_without_memory_nothing_is_said_of_the_kernel() -> None:
    shape, options = _problem("gemm", {})

    def launch(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    found = check_sample(SimpleNamespace(launch=launch), "gemm", shape, options, 5, "cpu")  # type: ignore[arg-type]  # a module's stand-in
    assert found["correct"] is None
    assert "out of memory" in found["reason"]
