"""Kernels whose binaries spill go back to the candidates, refused when none is left: with a scripted compiler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from treadle.codegen.triton.compile import KernelBinary
from treadle.costmodels.machines import load_machine
from treadle.driver import artifacts, spills
from treadle.driver.kernel import KernelRequest, plan_kernel
from treadle.driver.kernels import KernelOptions, draft_hot_loop, draft_programs
from treadle.driver.spills import ROUNDS, EverythingSpills, settle, without_spills
from treadle.frontends import programs
from treadle.ir.tile.kernel import Compiled, KernelPlan
from treadle.ir.workload import HotLoop, Phase
from treadle.solvers.backend import Limits

H200 = load_machine("h200")
QUICK = KernelOptions(Limits(deterministic_s=0.02))
SHAPE = {"m": 1024, "n": 1024, "k": 512}


class Compiler:
    """Spills by block sizes as they are printed; counts what it compiles."""

    def __init__(self, spilling: Mapping[str, int], default: int = 0) -> None:
        self.spilling, self.default = spilling, default
        self.compiled: list[tuple[str, str]] = []

    def __call__(self, sources: Mapping[str, str], target: str, python: str = "", **_: Any) -> dict[str, Any]:
        return {name: (self.binary(name, text, target, python),) for name, text in sources.items()}

    def binary(self, name: str, text: str, target: str, python: str) -> KernelBinary:
        sizes = "x".join(re.findall(r"^BLOCK_[MNK] = (\d+)$", text, re.MULTILINE))
        self.compiled.append((sizes, python))
        spill = self.spilling.get(sizes, self.default)
        return KernelBinary(f"{name}_kernel", target, "triton 0", b"", "cubin", 255, spill, 0, {})


def use(monkeypatch: pytest.MonkeyPatch, compiler: Compiler) -> Compiler:
    monkeypatch.setattr(spills, "compile_sources", compiler)
    monkeypatch.setattr(artifacts, "compile_sources", compiler)
    return compiler


def drafts() -> list[KernelPlan]:
    return draft_programs(programs.candidates("gemm", SHAPE), H200, QUICK)


def sizes(kernel: KernelPlan) -> str:
    assert kernel.program is not None
    return "x".join(str(size) for size in kernel.program.tile_sizes.values())


def test_the_first_candidate_that_spills_nothing_is_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = drafts()
    compiler = use(monkeypatch, Compiler({sizes(ranked[0]): 8, sizes(ranked[1]): 400}))
    told: list[str] = []
    (settled,) = settle(ranked, H200, QUICK, told.append, pythons=("one", "two"))
    assert sizes(settled.kernel) == sizes(ranked[2])
    assert [text.rpartition(" spills ")[2] for text in settled.kernel.attempts] == [
        "8 bytes a thread",
        "400 bytes a thread",
    ]
    assert len(told) == 2
    # A second compiler is not asked about what spills with the first.
    assert compiler.compiled == [
        (sizes(ranked[0]), "one"), (sizes(ranked[1]), "one"), (sizes(ranked[2]), "one"), (sizes(ranked[2]), "two")
    ]  # fmt: skip


def test_as_many_as_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = drafts()
    use(monkeypatch, Compiler({sizes(ranked[1]): 8}))
    found = settle(ranked, H200, replace(QUICK, top=2), lambda _: None)
    assert [sizes(settled.kernel) for settled in found] == [sizes(ranked[0]), sizes(ranked[2])]
    assert [len(settled.kernel.attempts) for settled in found] == [0, 1]


def test_where_every_candidate_spills_the_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = drafts() * 3
    compiler = use(monkeypatch, Compiler({}, default=16))
    with pytest.raises(EverythingSpills, match="spills 16 bytes a thread") as caught:
        settle(ranked, H200, QUICK, lambda _: None)
    assert (caught.value.code, int(caught.value.exit_code)) == ("TRD675", 1)
    assert len(compiler.compiled) == min(len(ranked), 1 + ROUNDS)


def test_a_request_goes_on_and_given_tiles_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ranked = drafts()
    use(monkeypatch, Compiler({sizes(ranked[0]): 8}))
    plan, _ = plan_kernel(KernelRequest("gemm", "h200", SHAPE), QUICK, lambda _: None)
    (kernel,) = plan.body.kernels
    assert sizes(kernel) == sizes(ranked[1])
    assert kernel.attempts
    assert ranked[0].program is not None
    fixed = KernelRequest("gemm", "h200", SHAPE, ranked[0].program.tile_sizes)
    with pytest.raises(EverythingSpills):
        plan_kernel(fixed, QUICK, lambda _: None)
    bare, files = plan_kernel(fixed, replace(QUICK, compiled=False), lambda _: None)
    assert bare.body.kernels[0].source in files


def test_a_deployment_keeps_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    hot = HotLoop("up", "gemm", SHAPE, "bfloat16", Phase.PREFILL, 3)
    ranked = draft_hot_loop(hot, H200, QUICK)
    record = Compiled("sm_90", "triton 0", "kernels/up.up_kernel.sm_90.cubin", 255, 8, 0)
    first = replace(ranked[0], source="kernels/up.py", compiled=(record,))
    files = {"kernels/up.py": b"old", record.binary: b"old", "kernels/other.py": b"kept"}
    use(monkeypatch, Compiler({sizes(first): 8}))
    (better,), written, refused = without_spills((first,), files, (hot,), H200, QUICK, "")
    assert (better.name, better.calls, sizes(better)) == ("up", 3, sizes(ranked[1]))
    assert written["kernels/other.py"] == b"kept"
    assert b"old" not in written.values()
    assert better.compiled[0].spill_bytes == 0
    assert not refused
    use(monkeypatch, Compiler({}, default=8))
    none, written, refused = without_spills((first,), files, (hot,), H200, QUICK, "")
    assert (none, list(written)) == ((), ["kernels/other.py"])
    assert refused["up"].startswith("TRD675")
