"""Emitted kernels compile to binaries without a GPU and without torch, and binaries tell their resources."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.plans import AMPERE, HOPPER, tiny
from treadle.codegen.triton import compile as compiling
from treadle.codegen.triton.compile import KernelBinary, compile_source, compile_sources
from treadle.codegen.triton.emit import emit
from treadle.codegen.triton.errors import CompilationFailed, UnsupportedTarget
from treadle.costmodels.cubin import MalformedBinary, read_resources
from treadle.ir.errors import MissingExtra
from treadle.ir.machine import Machine

SHAPES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "attention_decode": (
        {"batch": 4, "heads": 8, "kv_heads": 2, "kv_seq": 512, "qk_head_dim": 64},
        {"block_m": 16, "block_n": 32, "splits": 2},
    ),
    "attention_fwd": (
        {"heads": 4, "kv_heads": 2, "seq": 512, "qk_head_dim": 64, "causal": 1},
        {"block_m": 64, "block_n": 32, "sub_tiles": 1},
    ),
    "gemm": ({"m": 512, "n": 512, "k": 512}, {"block_m": 64, "block_n": 64, "block_k": 64}),
    "grouped_gemm": (
        {"experts": 8, "tokens": 64, "n": 256, "k": 128},
        {"block_m": 16, "block_n": 64, "block_k": 64},
    ),
    "rms_norm": ({"rows": 64, "columns": 1024}, {"block_rows": 1, "rows_per_instance": 4}),
    "swiglu": ({"m": 512, "n": 512, "k": 512}, {"block_m": 64, "block_n": 64, "block_k": 32}),
    "attention_bwd": (
        {"heads": 4, "kv_heads": 2, "seq": 512, "qk_head_dim": 64, "causal": 1},
        {"block_m": 32, "block_n": 64, "sub_tiles": 1},
    ),
    "attention_paged": (
        {"batch": 4, "heads": 8, "kv_heads": 2, "kv_seq": 512, "page_size": 16, "qk_head_dim": 64},
        {"block_m": 16, "block_n": 32, "splits": 2},
    ),
    "attention_varlen": (
        {"batch": 4, "tokens": 2048, "heads": 4, "kv_heads": 2, "qk_head_dim": 64},
        {"block_m": 64, "block_n": 32, "sub_tiles": 1},
    ),
    "dual_gemm": ({"m": 512, "n": 512, "k": 512}, {"block_m": 64, "block_n": 64, "block_k": 32}),
    "gemm_fp8": ({"m": 512, "n": 512, "k": 512}, {"block_m": 64, "block_n": 64, "block_k": 64}),
    "gemm_persistent": ({"m": 512, "n": 512, "k": 512}, {"block_m": 64, "block_n": 64, "block_k": 64, "repeats": 2}),
    "gemm_w4a16": ({"m": 16, "n": 512, "k": 512}, {"block_m": 16, "block_n": 64, "block_k": 128}),
    "kmeans_assign": ({"points": 4096, "centroids": 512, "dimension": 64}, {"block_m": 64, "block_n": 64}),
    "layer_norm": ({"rows": 64, "columns": 1024}, {"block_rows": 1, "rows_per_instance": 4}),
    "rms_norm_gemm": ({"m": 512, "n": 512, "k": 512}, {"block_m": 64, "block_n": 64, "block_k": 64}),
}

MACHINES: dict[str, Machine] = {"sm_80": AMPERE, "sm_90": HOPPER, "sm_100": HOPPER, "gfx942": AMPERE}


ELSEWHERE: dict[str, tuple[str, ...]] = {
    "sm_80": ("attention_bwd", "attention_decode", "gemm_w4a16", "rms_norm_gemm"),
    "sm_90": tuple(SHAPES),
    "sm_100": ("attention_bwd", "attention_fwd", "gemm_fp8", "gemm_persistent", "gemm_w4a16"),
    "gfx942": ("attention_fwd", "gemm_fp8", "gemm_w4a16", "layer_norm"),
}
"""Families compiled here, by architecture; `benchmarks.kernel_static` compiles all of them for every machine."""


def sources(machine: Machine, families: tuple[str, ...] = tuple(SHAPES)) -> dict[str, str]:
    return {family: emit(tiny(family, *SHAPES[family]), machine) for family in families}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def hopper(cache: Path) -> dict[str, tuple[KernelBinary, ...]]:
    return compile_sources(sources(HOPPER), "sm_90", cache_folder=cache)


@pytest.mark.parametrize("architecture", MACHINES)
def test_families_compile(architecture: str, cache: Path) -> None:
    families = ELSEWHERE[architecture]
    found = compile_sources(sources(MACHINES[architecture], families), architecture, cache_folder=cache)
    assert set(found) == set(families)
    for binaries in found.values():
        for binary in binaries:
            assert binary.target == architecture
            assert 8 <= binary.registers <= (512 if architecture.startswith("gfx") else 255)
            assert binary.spill_bytes <= 8  # Triton 3.7 spills two registers of W4A16 for sm_100, 3.9 none
            assert binary.suffix == ("hsaco" if architecture.startswith("gfx") else "cubin")


def test_a_module_may_have_several_kernels(hopper: dict[str, tuple[KernelBinary, ...]]) -> None:
    assert [binary.kernel for binary in hopper["attention_decode"]] == ["attention_decode_kernel", "merge_kernel"]
    names = ["delta_kernel", "attention_bwd_kernel", "round_kernel"]
    assert [binary.kernel for binary in hopper["attention_bwd"]] == names


def test_pipelined_loads_take_shared_memory_as_planned(hopper: dict[str, tuple[KernelBinary, ...]]) -> None:
    """Two slots of a (64, 64) tile of A and of B in bfloat16."""
    assert hopper["gemm"][0].smem_bytes == 2 * 2 * 64 * 64 * 2


def test_compiling_twice_gives_the_same_bytes(hopper: dict[str, tuple[KernelBinary, ...]], tmp_path: Path) -> None:
    again = compile_source(sources(HOPPER)["gemm"], "sm_90")
    assert again[0].data == hopper["gemm"][0].data
    elsewhere = compile_sources({"gemm": sources(HOPPER)["gemm"]}, "sm_90", cache_folder=tmp_path)
    assert elsewhere["gemm"][0].data == hopper["gemm"][0].data


def test_results_come_from_the_cache(
    hopper: dict[str, tuple[KernelBinary, ...]], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("compiled again")

    monkeypatch.setattr(compiling, "_run_worker", refuse)
    assert compile_sources(sources(HOPPER), "sm_90", cache_folder=cache) == hopper


def test_the_sidecar_tells_a_launcher_what_it_needs(hopper: dict[str, tuple[KernelBinary, ...]]) -> None:
    facts = json.loads(hopper["gemm"][0].sidecar())
    assert facts["arguments"] == {"a": "*bf16", "b": "*bf16", "out": "*bf16", "m": "i32", "n": "i32", "k": "i32"}
    assert facts["warps"] == 4
    assert facts["constants"]["BLOCK_M"] == 64
    assert facts["symbol"] == "gemm_kernel"
    record = hopper["gemm"][0].record("kernels/gemm.sm_90.cubin")
    assert (record.target, record.registers) == ("sm_90", facts["registers"])
    assert record.compiler.startswith("triton ")


def test_compiling_needs_no_torch(tmp_path: Path) -> None:
    source = tmp_path / "gemm.py"
    source.write_text(sources(HOPPER)["gemm"])
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps({"target": ["cuda", 90, 32], "sources": [str(source)], "folder": str(tmp_path)}))
    program = (
        "import runpy, sys\n"
        "sys.modules['torch'] = None\n"
        f"sys.argv = ['worker.py', {str(jobs)!r}]\n"
        f"runpy.run_path({str(compiling.WORKER)!r}, run_name='__main__')\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "error" not in json.loads(run.stdout), run.stdout


def test_a_kernel_the_compiler_refuses(tmp_path: Path) -> None:
    broken = sources(HOPPER)["gemm"].replace("tl.arange(0, BLOCK_M)", "tl.arange(0, 48)")
    with pytest.raises(CompilationFailed, match=r"cannot compile `odd` for sm_90: .*power of 2"):
        compile_sources({"odd": broken}, "sm_90", cache_folder=tmp_path)


def test_a_compiler_that_dies(tmp_path: Path) -> None:
    dying = sources(HOPPER)["gemm"] + "\nimport os\n\nos.abort()\n"
    with pytest.raises(CompilationFailed, match="the compiler ended with -6"):
        compile_sources({"dying": dying}, "sm_90", cache_folder=tmp_path)


def test_unknown_architecture() -> None:
    with pytest.raises(UnsupportedTarget, match="`sm_70`") as caught:
        compile_source("", "sm_70")
    assert "sm_90" in caught.value.expected


def test_a_python_without_triton(tmp_path: Path) -> None:
    with pytest.raises(MissingExtra, match="`triton` is not installed"):
        compile_sources({"gemm": ""}, "sm_90", python=str(tmp_path / "python"))


# --- the binary readers -------------------------------------------------------------------------------------------


def cuobjdump() -> Path:
    specification = find_spec("triton")
    assert specification is not None
    assert specification.origin is not None
    return Path(specification.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def test_registers_and_frames_agree_with_the_vendors_tool(
    hopper: dict[str, tuple[KernelBinary, ...]], tmp_path: Path
) -> None:
    tool = cuobjdump()
    if not shutil.which(str(tool)):
        pytest.skip("this Triton wheel has no cuobjdump")
    path = tmp_path / "kernel.cubin"
    for binaries in hopper.values():
        for binary in binaries:
            path.write_bytes(binary.data)
            text = subprocess.run(
                [str(tool), "-res-usage", str(path)], capture_output=True, text=True, check=True
            ).stdout
            (resources,) = read_resources(binary.data)
            assert f"REG:{resources.registers} STACK:{resources.local_bytes} " in text
            assert f"SHARED:{resources.static_shared_bytes} " in text


def test_spills_are_seen(tmp_path: Path) -> None:
    """A (256, 256) float32 accumulator over 4 warps needs 512 registers a thread; 255 is the most there are."""
    plan = tiny("gemm", {"m": 256, "n": 256, "k": 64}, {"block_m": 256, "block_n": 256, "block_k": 16})
    source = emit(plan, HOPPER).replace("NUM_WARPS = 8", "NUM_WARPS = 4")
    (binary,) = compile_sources({"gemm": source}, "sm_80", cache_folder=tmp_path)["gemm"]
    assert binary.registers == 255
    assert binary.spill_bytes > 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "does not begin like an ELF file"),
        (b"MZ" + bytes(100), "does not begin like an ELF file"),
        (b"\x7fELF\x01\x01" + bytes(100), "no 64-bit little-endian ELF file"),
        (b"\x7fELF\x02\x01" + bytes(100), "for the machine 0"),
        (b"\x7fELF\x02\x01" + bytes(12) + b"\xbe\x00", "buffer"),
    ],
)
def test_files_that_are_no_kernels(data: bytes, reason: str) -> None:
    with pytest.raises(MalformedBinary, match=reason):
        read_resources(data, "x.cubin")


@settings(max_examples=200, deadline=None)
@given(
    cut=st.integers(0, 1 << 20), changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=8)
)
def test_damaged_binaries_give_resources_or_a_coded_error(
    hopper: dict[str, tuple[KernelBinary, ...]], cut: int, changes: list[tuple[int, int]]
) -> None:
    damaged = bytearray(hopper["rms_norm"][0].data)
    for position, value in changes:
        damaged[position % len(damaged)] = value
    del damaged[cut % (2 * len(damaged)) :]
    with suppress(MalformedBinary):
        assert read_resources(bytes(damaged))
