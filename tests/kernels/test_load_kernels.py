"""Kernels of a plan folder as torch operators, run by Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.kernels import references
from tests.kernels.plans import HOPPER, tiny
from tests.kernels.tensors import assert_close, random
from tests.kernels.test_compile import SHAPES
from treadle import load_kernels
from treadle.codegen.folder import write_plan
from treadle.driver.artifacts import emit_kernels
from treadle.driver.load_kernels import Kernel, NoSource, UnsupportedTensors
from treadle.driver.operators import operator_of
from treadle.frontends import programs
from treadle.ir.errors import UnknownName
from treadle.ir.plan import Plan
from treadle.ir.tile.kernel import KernelBody

Planned = Callable[..., Kernel]
SMALL = {"block_m": 16, "block_n": 32, "block_k": 16}
SQUARE = {"m": 64, "n": 64, "k": 64}


@pytest.fixture
def planned(tmp_path: Path, interpreter: None) -> Planned:
    def build(family: str, shape: dict[str, int], tiles: dict[str, int], **options: Any) -> Kernel:
        return load_kernels(written(tmp_path / family, family, shape, tiles, **options))[family]

    return build


def written(folder: Path, family: str, shape: dict[str, int], tiles: dict[str, int], **options: Any) -> Path:
    kernels, files = emit_kernels((tiny(family, shape, tiles, options),), HOPPER, "")
    write_plan(folder, Plan("kernel", (), {}, {}, KernelBody(None, kernels)), files)
    return folder


def test_a_kernel_is_an_operator(planned: Planned) -> None:
    gemm = planned("gemm", SQUARE, SMALL)
    a, b = random(1, "bfloat16", 35, 24), random(2, "bfloat16", 50, 24)
    assert_close(gemm(a, b), references.gemm(a, b), "bfloat16")
    assert_close(gemm(a, b=b), references.gemm(a, b), "bfloat16")
    assert "(Tensor a, Tensor b) -> Tensor" in repr(gemm)


def test_torch_compile_traces_through_it(planned: Planned) -> None:
    norm = planned("rms_norm", {"rows": 8, "columns": 32}, {"block_rows": 1, "rows_per_instance": 4}, residual=True)
    calls: list[int] = []

    def block(x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        out, total = norm(x * 2, residual, weight, epsilon=1e-5)
        return torch.as_tensor(out.float() + total)

    x, residual, weight = random(1, "bfloat16", 5, 32), random(2, "bfloat16", 5, 32), random(3, "bfloat16", 32)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, residual, weight), block(x, residual, weight))


def test_torchs_own_check_of_operators_passes(planned: Planned) -> None:
    attention = planned(
        "attention_fwd", {"heads": 2, "kv_heads": 1, "seq": 32, "qk_head_dim": 16},
        {"block_m": 16, "block_n": 16, "sub_tiles": 1}, lse=True,
    )  # fmt: skip
    q, k = random(1, "bfloat16", 1, 2, 20, 16), random(2, "bfloat16", 1, 1, 24, 16)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    operator: Any = attention.call
    torch.library.opcheck(operator, (q, k, k), test_utils=checks)


@pytest.mark.parametrize("family", sorted(SHAPES))
def test_every_family_has_an_operator_with_a_schema_torch_reads(family: str) -> None:
    options: list[dict[str, Any]] = [{}]
    for key, values in programs.family(family).options.items():
        options += [{key: value} for value in values]
    for position, chosen in enumerate(options):
        shape, tiles = SHAPES[family]
        if chosen.get("scales") == "block":
            tiles = {**tiles, "block_k": 128}
        operator = operator_of(programs.build(family, shape, tiles, chosen))
        assert operator is not None
        make: Any = torch.library.Library
        library = make(f"treadle_schemas_{family}_{position}", "DEF")
        library.define(f"it{operator.schema}")


def test_results_of_fake_tensors_are_those_of_real_ones(planned: Planned) -> None:
    kmeans = planned("kmeans_assign", {"points": 16, "centroids": 16, "dimension": 16}, {"block_m": 16, "block_n": 16})
    x = random(1, "bfloat16", 5, 16)
    found = kmeans(x, x)
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        faked = kmeans(mode.from_tensor(x), mode.from_tensor(x))
    assert [(t.shape, t.dtype) for t in faked] == [(t.shape, t.dtype) for t in found]


BAD: list[tuple[str, Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]]] = [
    ("dtype float32", lambda a, b: (a.float(), b)),
    (r"expected \(8, 16\)", lambda a, b: (a, b[:, :8].contiguous())),
    ("not contiguous", lambda a, b: (a, b.repeat(1, 2)[:, ::2])),
    ("multiple of 16 bytes", lambda a, b: (a, torch.cat([b.flatten(), b.flatten()])[1:129].reshape(8, 16))),
]


@pytest.mark.parametrize(("reason", "spoil"), BAD)
def test_tensors_it_does_not_take_are_refused_with_a_code(planned: Planned, reason: str, spoil: Any) -> None:
    gemm = planned("gemm", SQUARE, SMALL)
    a, b = spoil(random(1, "bfloat16", 8, 16), random(2, "bfloat16", 8, 16))
    with pytest.raises(UnsupportedTensors, match=reason) as caught:
        gemm(a, b)
    assert caught.value.code == "TRD540"


def test_several_devices_and_wrong_ranks_are_refused_without_data_too(planned: Planned) -> None:
    """Where one tensor has no data, torch asks the fake kernel alone."""
    attention = planned(
        "attention_fwd", {"heads": 2, "kv_heads": 1, "seq": 32, "qk_head_dim": 16},
        {"block_m": 16, "block_n": 16, "sub_tiles": 1},
    )  # fmt: skip
    q = random(1, "bfloat16", 1, 2, 20, 16)
    with pytest.raises(UnsupportedTensors, match="they are on cpu and meta; expected one device"):
        attention(q, q.to("meta"), q)
    with pytest.raises(UnsupportedTensors, match=r"their shapes are \(1, 2, 20, 16\), \(1, 2, 20, 16\), \(\)"):
        attention(q.to("meta"), q.to("meta"), q.sum().to("meta"))


def test_without_the_interpreter_cpu_tensors_are_refused(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    gemm = planned("gemm", SQUARE, {**SMALL, "block_m": 64})  # a source, and so an operator, of its own
    monkeypatch.setattr(gemm.module, "INTERPRETED", False)
    with pytest.raises(UnsupportedTensors, match="the kernel runs on a GPU"):
        gemm(random(1, "bfloat16", 8, 16), random(2, "bfloat16", 8, 16))


def test_older_gpus_are_refused(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = planned("gemm_fp8", SQUARE, {**SMALL, "block_k": 32})
    monkeypatch.setattr(kernel.module, "INTERPRETED", False)

    class Target:
        backend, arch = "cuda", 80

    class Driver:
        class active:  # noqa: N801 - triton's name
            @staticmethod
            def get_current_target() -> type[Target]:
                return Target

    monkeypatch.setattr(kernel.module.triton.runtime, "driver", Driver)
    with pytest.raises(ValueError, match="this GPU is sm_80; the kernel needs sm_89"):
        kernel.module._check_device(torch.device("cuda"))


def test_a_changed_source_is_not_run(tmp_path: Path, interpreter: None) -> None:
    folder = written(tmp_path / "plan", "gemm", SQUARE, SMALL)
    source = folder / "kernels" / "gemm.py"
    source.write_text(source.read_text() + "\nraise SystemExit\n")
    with pytest.raises(NoSource, match="is not the file that was written"):
        load_kernels(folder)


def test_a_plan_without_kernels(tmp_path: Path, interpreter: None) -> None:
    bare = replace(tiny("gemm", SQUARE, SMALL), source="")
    write_plan(tmp_path / "plan", Plan("kernel", (), {}, {}, KernelBody(None, (bare,))), {})
    with pytest.raises(NoSource, match="no emitted kernels"):
        load_kernels(tmp_path / "plan")


def test_a_misspelt_kernel_is_guessed(tmp_path: Path, interpreter: None) -> None:
    kernels = load_kernels(written(tmp_path / "plan", "gemm", SQUARE, SMALL))
    assert list(kernels) == ["gemm"]
    assert kernels.gemm is kernels["gemm"]
    with pytest.raises(UnknownName, match="gem`"):
        kernels["gem"]
    with pytest.raises(AttributeError):
        _ = kernels.gem
