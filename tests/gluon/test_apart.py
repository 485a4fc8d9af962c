"""Attention forward whose operations are cut over groups in any way: right, or refused before a compiler sees it."""

from __future__ import annotations

import pytest

from tests.gluon.kernels import serial_kernel
from treadle.codegen.gluon.attention import AttentionFrame
from treadle.codegen.gluon.emit import emit
from treadle.codegen.gluon.errors import NotEmittable
from treadle.codegen.gluon.kernel import WarpKernel
from treadle.codegen.gluon.names import names_of_module, unmade
from treadle.frontends import programs
from treadle.ir.warp.lower import NoRoomForHandoffs

pytest.importorskip("torch")

from treadle.driver.gpu.correct import check_kernel
from treadle.driver.gpu.emulator import emulated_figures

SHAPE = {"heads": 4, "seq": 1024, "qk_head_dim": 64, "causal": 1}
SMALL = {"batch": 1, "heads": 2, "kv_heads": 1, "seq": 70, "kv_seq": 201}
OPERATIONS = ("scores", "tile_max", "row_max", "drop", "alpha", "shifted", "weights", "tile_sum", "row_sum",
              "weights_low", "rescaled", "acc")  # fmt: skip
BEHIND_MAXIMA = ("alpha", "weights", "tile_sum", "row_sum", "weights_low", "rescaled", "acc")
"""What the schedule for head dimension 64 gives a second group: exponentials, sums and the product with values."""


def _kernel(apart: tuple[str, ...], machine_id: str = "h200", *, lse: bool = False) -> WarpKernel:
    rows = 64 if machine_id == "h200" else 128
    tiles = {"block_m": rows, "block_n": 64, "sub_tiles": 1}
    return serial_kernel(programs.build("attention_fwd", SHAPE, tiles, {"lse": lse}), machine_id, apart)


def _is_right(kernel: WarpKernel, source: str) -> bool:
    shape = {**kernel.program.shape, **SMALL}
    options = {"dtype": kernel.dtype, **kernel.program.options}
    found = emulated_figures(source, lambda m: check_kernel(m, "attention_fwd", shape, options, 7, "cpu"), range(1))
    return bool(found["correct"])


@pytest.mark.parametrize("lse", [False, True])
def test_products_of_values_in_a_group_of_their_own(lse: bool) -> None:
    kernel = _kernel(BEHIND_MAXIMA, lse=lse)
    source = emit(kernel)
    first, second = source.partition("def group_1(")[2].split("def group_2(")
    assert "seen = " in first
    assert "acc = " not in first
    assert "seen = " not in second
    assert "acc = ttgl.zeros" in second
    assert _is_right(kernel, source)
    if not lse:
        return
    assert "most.index(0).store(row_max)" in first
    assert not _is_right(kernel, source.replace("most.index(0).store(row_max)", "most.index(0).store(row_max + 1)"))


@pytest.mark.parametrize("apart", [("row_sum",), ("tile_sum", "row_sum"), ("shifted",), ("shifted", "weights")])
@pytest.mark.parametrize("lse", [False, True])
def test_figures_of_rows_in_other_groups(apart: tuple[str, ...], lse: bool) -> None:
    kernel = _kernel(apart, lse=lse)
    assert _is_right(kernel, emit(kernel))


ONE: list[tuple[str, ...]] = [(name,) for name in OPERATIONS]
REST = [OPERATIONS[at:] for at in range(1, len(OPERATIONS) - 1)]


@pytest.mark.parametrize(
    ("apart", "machine_id"), [(cut, "h200") for cut in ONE + REST] + [(cut, "b200") for cut in ONE]
)
def test_any_cut_is_right_or_refused(apart: tuple[str, ...], machine_id: str) -> None:
    try:
        kernel = _kernel(apart, machine_id)
        source = emit(kernel)
    except (NotEmittable, NoRoomForHandoffs):
        return
    assert _is_right(kernel, source)


def test_refuses_names_that_nothing_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that forgets first values costs a coded error, not a complaint of the compiler."""

    def nothing(*_: object) -> list[str]:
        return []

    kernel = _kernel(())
    monkeypatch.setattr(AttentionFrame, "first_figures", nothing)
    with pytest.raises(NotEmittable, match=r"group `group_1` reads `row_max`, `row_sum`, `seen`, which"):
        emit(kernel)


def test_names_are_made_where_they_are_read() -> None:
    lines = [
        "if first:",
        "    a, c = one(), 1",
        "else:",
        "    a = 2",
        "for step in range(a):",
        "    b = step + d",
        "total = b + c",
        "for slot in ttgl.static_range(2):",
        "    e = slot",
        "total += e",
        "count += 1",
    ]
    known = names_of_module("import triton.language as ttgl\ndef one(): ...\nfirst = 1\n")
    assert unmade(lines, known) == ("d", "b", "c", "count")
