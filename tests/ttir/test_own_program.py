"""What is read of users' kernels, what is refused with name and line, and a plan of one, verified."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.frontends.own_program import is_own, read_own
from treadle.frontends.ttir.errors import (
    MissingArgument,
    NoHotLoop,
    NotAProgram,
    UncompiledKernel,
    UnknownTrips,
    UnreadableIr,
    UnsupportedIr,
)
from treadle.frontends.ttir.operations import SUPPORTED
from treadle.ir.diagnostics import ExitCode, TreadleError
from treadle.ir.errors import InvalidValue, UnreadableFile
from treadle.ir.tile.loop import ZeroDistanceCycle
from treadle.ir.tile.program import Memory, TileOperation, TileProgram

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="extra `kernels`")

KERNELS = str(Path(__file__).with_name("kernels.py"))
MATMUL = {
    **dict.fromkeys(("a_ptr", "b_ptr", "c_ptr"), "*fp16"),
    **dict.fromkeys(("M", "N", "K", "stride"), "i32"),
    "BM": "128",
    "BN": "128",
    "BK": "64",
}
ATTENTION = {
    "q_desc": "tensordesc<fp16[128,128]>", "k_desc": "tensordesc<fp16[64,128]>", "v_desc": "tensordesc<fp16[64,128]>",
    "o_ptr": "*fp16", "seq": "i32", "scale": "fp32", "BM": "128", "BN": "64", "D": "128",
}  # fmt: skip
POINTERS = {"x_ptr": "*fp16", "y_ptr": "*fp16"}


def read(kernel: str, arguments: dict[str, str], **shape: int) -> TileProgram:
    return read_own(f"{KERNELS}:{kernel}", shape, arguments).program


def told(operation: TileOperation) -> str:
    """Return one line about an operation, without the numbers of its names."""
    operands = " ".join(f"{o.value}{f'@{o.distance}' if o.distance else ''}" for o in operation.operands)
    shape = "x".join(map(str, operation.result.shape))
    return f"{operation.kind.value}({operands}) {shape} {operation.result.dtype} {operation.depth}/{operation.work:g}"


def test_matmul_is_two_loads_and_a_product() -> None:
    program = read("matmul", MATMUL, K=8192, grid=4096, warps=8)
    a, b, acc = (operation.name for operation in program.operations)
    assert [told(operation) for operation in program.operations] == [
        "load() 128x64 float16 0/1",
        "load() 64x128 float16 0/1",
        f"mma({a} {b} {acc}@1) 128x128 float32 64/1",
    ]
    assert (program.trips, program.instances, program.warps) == (128, 4096, 8)
    assert program.operations[0].note.startswith("line ")


def test_attention_carries_maximum_sum_and_accumulator() -> None:
    program = read("attention", ATTENTION, seq=8192)
    kinds = [operation.kind.value for operation in program.operations]
    assert (kinds.count("load"), kinds.count("mma"), kinds.count("reduce"), kinds.count("exp2")) == (2, 2, 2, 2)
    assert program.trips == 128
    shared = {i.tile.shape for i in program.invariants if i.tile.memory is Memory.SHARED}
    assert shared == {(128, 128)}  # the queries; row numbers for the mask are in registers
    carried = {o.value for operation in program.operations for o in operation.operands if o.distance}
    assert len(carried) == 3
    masked = [o for o in program.operations if o.kind.value == "elementwise" and o.result.shape == (128, 64)]
    assert max(operation.work for operation in masked) >= 2  # compare and select, once per score


def test_chains_divisions_and_conversions() -> None:
    program = read("normalized", {**POINTERS, "columns": "i32", "BLOCK": "1024"}, columns=8192)
    kinds = [operation.kind.value for operation in program.operations]
    # x to float32; -x and 1 + e; exponential and reciprocal; x * r * 2 + 1 as one chain; back; store
    assert kinds == ["load", "convert", "elementwise", "exp2", "elementwise", "exp2", "elementwise", "convert", "store"]
    assert program.operations[6].work == 2  # two products, the second fused with the sum


def test_addresses_from_loaded_values_are_waited_for() -> None:
    program = read("gathered", {"index_ptr": "*i32", **POINTERS, "count": "i32", "BLOCK": "1024"}, count=64)
    index, tile = (operation for operation in program.operations if operation.kind.value == "load")
    assert index.result.shape == (1,)
    (address,) = (program.operation(operand.value) for operand in tile.operands)
    assert (address.kind.value, [operand.value for operand in address.operands]) == ("elementwise", [index.name])


@pytest.mark.parametrize(("finish", "exponentials"), [("exponential", 1), ("'exponential'", 1), ("none", 0), ("''", 0)])
def test_constants_of_text_defaults_and_several_loops(finish: str, exponentials: int) -> None:
    arguments = {**POINTERS, "columns": "i32", "BLOCK": "1024", "FINISH": finish}
    own = read_own(f"{KERNELS}:centred", {"columns": 8192}, arguments)
    kinds = [operation.kind.value for operation in own.program.operations]
    assert (kinds.count("load"), kinds.count("exp2")) == (2, exponentials)
    assert re.search(r"kernels\.py:\d+:\d+, one of 2 innermost loops", own.loop)


REFUSED_LATER = """
from tests.ttir import kernels
from treadle.frontends.ttir import source
compiled = source._compiled
def refused(*arguments):
    compiled(*arguments)
    raise RuntimeError("PassManager::run failed")
source._compiled = refused
arguments = {"x_ptr": "*fp16", "y_ptr": "*fp16", "columns": "i32", "BLOCK": "1024"}
print(source.triton_ir(kernels.normalized, "normalized", arguments))
"""


def test_ir_is_read_although_later_passes_refuse_the_kernel() -> None:
    """A kernel for another machine than the one Triton is told to compile for: what was made before counts."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", REFUSED_LATER]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, cwd=root)
    assert "scf.for" in done.stdout


@pytest.mark.parametrize(
    ("kernel", "arguments", "error", "words"),
    [
        ("matmul", MATMUL, UnknownTrips, "argument `K`"),
        ("counted", {**POINTERS, "count": "i32", "BLOCK": "1024"}, UnsupportedIr, "tt.atomic_rmw"),
        ("straight", {**POINTERS, "BLOCK": "1024"}, NoHotLoop, "no loop over tiles"),
        ("straight", POINTERS, MissingArgument, "no type for BLOCK"),
        ("straight", {**POINTERS, "BLOK": "1024"}, MissingArgument, "no argument `BLOK`"),
        ("straight", {**POINTERS, "x_ptr": "*flot", "BLOCK": "1024"}, MissingArgument, "`\\*flot` is no type"),
        ("straight", {**POINTERS, "BLOCK": "1000"}, UncompiledKernel, "power of 2"),
        ("strait", {}, NotAProgram, "not in the file"),
        ("not_one", {}, NotAProgram, "type `int`"),
        ("product", {}, NotAProgram, "fails"),
    ],
)
def test_refusals_say_what_and_where(
    kernel: str, arguments: dict[str, str], error: type[TreadleError], words: str
) -> None:
    with pytest.raises(error, match=words) as refusal:
        read(kernel, arguments)
    assert refusal.value.code != "TRD000"


def test_an_unsupported_operation_is_named_with_its_line() -> None:
    with pytest.raises(UnsupportedIr) as refusal:
        read("counted", {**POINTERS, "count": "i32", "BLOCK": "1024"}, count=64)
    lines = Path(KERNELS).read_text().splitlines()
    assert refusal.value.place is not None
    assert "atomic_add" in lines[refusal.value.place.line - 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", "no `tt.func`"),
        ("tt.func public @f(%x: i32) {", "not closed"),
        ("tt.func public @f(%x: i32) {\n what is this\n}", "no operation"),
    ],
)
def test_other_text_is_no_triton_ir(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "kernel.ttir"
    file.write_text(text)
    with pytest.raises(UnreadableIr, match=reason):
        read_own(str(file), {}, {})


def test_missing_files_and_names(tmp_path: Path) -> None:
    assert is_own("a.py:f")
    assert is_own("a.ttir")
    assert not is_own("gemm")
    with pytest.raises(UnreadableFile):
        read_own(str(tmp_path / "no.ttir"), {}, {})
    with pytest.raises(UnreadableFile):
        read_own(str(tmp_path / "no.py:f"), {}, {})


def test_a_plan_of_a_users_kernel_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(tmp_path / "plan")
    arguments = " ".join(f"{name}={word}" for name, word in MATMUL.items())
    command = ["kernel", f"{KERNELS}:matmul", "--machine", "h100", "--shape", "K=8k grid=4096 warps=8"]
    assert main([*command, "--arguments", arguments, "--json", "-o", plan]) == ExitCode.DONE
    made = json.loads(capsys.readouterr().out)
    assert made["ii_cycles"] == 512  # 128 x 128 x 64 multiply-adds at 2,048 a cycle
    assert main(["verify", plan]) == ExitCode.DONE
    again = str(tmp_path / "again")
    ir = str(tmp_path / "plan" / "inputs" / "kernel.ttir")
    assert main(["kernel", ir, "--machine", "h100", "--shape", "trips=128", "--json", "-o", again]) == ExitCode.DONE


def test_a_plan_of_a_users_tile_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = str(tmp_path / "plan")
    assert main(["kernel", f"{KERNELS}:product", "--shape", "k=4096", "--json", "-o", plan]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["ii_cycles"] == 512
    assert main(["verify", plan]) == ExitCode.DONE


@pytest.mark.parametrize(
    ("text", "line", "error", "words"),
    [
        ("def f(:", 1, NotAProgram, "SyntaxError"),
        ("import math\n1 / 0", 2, NotAProgram, "ZeroDivisionError"),
        ("import sys\nsys.exit(3)", 2, NotAProgram, "SystemExit"),
        ("def f():\n    return 1 / 0", 2, NotAProgram, "ZeroDivisionError"),
        (
            "from treadle.frontends.programs.operations import load\n\n\n"
            "def f():\n    return load('x', (8, 8), 'float17')\n",
            5,
            InvalidValue,
            "unknown dtype `float17`",
        ),
        (
            "from treadle.frontends.programs.operations import compute\n"
            "from treadle.ir.tile.program import OperationKind, TileProgram\n\n\n"
            "def f():\n"
            "    x = compute('x', OperationKind.ELEMENTWISE, ('y',), (8,))\n"
            "    y = compute('y', OperationKind.ELEMENTWISE, ('x',), (8,))\n"
            "    return TileProgram('cyclic', 'cyclic', (x, y), 1, 1, {}, {})\n",
            8,
            ZeroDistanceCycle,
            "`x` -> `y` -> `x` form a cycle of distance 0",
        ),
    ],
)
def test_a_failing_file_is_named_with_its_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    line: int,
    error: type[TreadleError],
    words: str,
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words) as refusal:
        read_own("mine.py:f", {}, {})
    assert refusal.value.place is not None
    assert (refusal.value.place.file, refusal.value.place.line) == ("mine.py", line)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trips": 0}, "`trips` of `normalized` is 0"),
        ({"columns": 0}, "`trips` of `normalized` is 0"),
        ({"trips": 4, "grid": 0}, "`grid`"),
        ({"trips": 4, "warps": 3}, "`warps` of `normalized` is 3"),
        ({"columns": 4096, "gird": 3}, "no shape key `gird`"),
        ({"columns": 4096, "x_ptr": 3}, "no shape key `x_ptr`"),
    ],
)
def test_numbers_for_nothing_and_out_of_range(given: dict[str, int], words: str) -> None:
    with pytest.raises(TreadleError, match=words) as refusal:
        read("normalized", {**POINTERS, "columns": "i32", "BLOCK": "1024"}, **given)
    assert refusal.value.code in ("TRD501", "TRD503")


def test_a_while_loop_is_named_and_does_not_hide_what_comes_after() -> None:
    arguments = {**POINTERS, "columns": "i32", "BLOCK": "1024"}
    with pytest.raises(NoHotLoop) as refusal:
        read("counted_while", arguments)
    lines = Path(KERNELS).read_text().splitlines()
    assert refusal.value.place is not None
    assert "while" in lines[refusal.value.place.line - 1]
    kinds = [operation.kind.value for operation in read("after_while", arguments, columns=8192).operations]
    assert kinds == ["load", "convert", "elementwise"]


def test_results_without_a_name_are_called_by_their_operation() -> None:
    names = [o.name for o in read("normalized", {**POINTERS, "columns": "i32", "BLOCK": "1024"}, columns=64).operations]
    assert not [name for name in names if name.isdigit()]


PROGRAM = """
from treadle.frontends import programs
from treadle.frontends.programs.operations import load, mma
from treadle.ir.tile.program import TileProgram

def product(rows=64, family="mine"):
    tiles = load("a", (128, 64), "float16"), load("b", (rows, 128), "float16")
    product = mma("acc", ("a", "b", "acc@1"), (128, 128), 64)
    return TileProgram("product", family, (*tiles, product), 8, 1, {}, {})

def of_library():
    return programs.build("gemm", {"m": 4096, "n": 4096, "k": 4096})

REAL = product(family="gemm")
"""


def test_a_tile_program_is_checked_before_it_is_scheduled(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PROGRAM)
    assert read_own(f"{file}:product", {}, {}).program.trips == 8
    assert read_own(f"{file}:of_library", {}, {}).program.family == "gemm"
    for name, shape, words in (
        ("product", {"rows": 32}, "reads 128 x 64 numbers of `b`, which has 32 x 128"),
        ("REAL", {}, "is not what the library's family `gemm` gives"),
    ):
        with pytest.raises(InvalidValue, match=words):
            read_own(f"{file}:{name}", shape, {})
    with pytest.raises(NotAProgram, match="takes no --arguments"):
        read_own(f"{file}:product", {}, {"a": "*fp16"})


def test_the_documentation_lists_every_operation_that_is_read() -> None:
    text = (Path(__file__).parents[2] / "docs" / "verbs" / "kernel.md").read_text()
    listed = [name for line in text.splitlines() if line.startswith("| ") for name in re.findall(r"`(\w+\.\w+)`", line)]
    assert sorted(listed) == SUPPORTED
