"""A kernel plan with one value changed is rejected with a code - though it is sealed again each time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.verification.mutations import Mutation, mutations, sealed_again
from treadle.codegen.folder import write_plan
from treadle.driver.kernel import KernelRequest, plan_kernel
from treadle.driver.kernels import KernelOptions
from treadle.ir.diagnostics import Severity, TreadleError
from treadle.ir.plan import Plan, from_data, load, to_data
from treadle.verification.core import review_plan, verify

FREE = re.compile(
    r"(id|seal|format|versions.*|options.*"  # what was asked, and with which versions
    r"|parts|artifacts|inputs.*role"  # lists of files, not figures
    r"|body\.kernels\[\]\.(name|phase|calls)"  # labels of a single kernel
    r"|body\.kernels\[\](\.siblings\[\])?\.certificate\.cost_model"
    r"|.*\.evidence\.(solver|version|seed|workers|raw_status)"  # who answered
    r"|.*\.note)"
)
"""Places that carry no claim which a reader could check against anything else in the plan."""

SHAPES = {
    "gemm": {"m": 512, "n": 1024, "k": 256},
    "attention_fwd": {"batch": 2, "heads": 8, "kv_heads": 2, "seq": 512, "qk_head_dim": 128, "v_head_dim": 128},
}


def planned(family: str, machine: str) -> Plan:
    request = KernelRequest(family, machine, SHAPES[family])
    plan, _ = plan_kernel(request, KernelOptions(compiled=False), lambda _: None)
    return plan.sealed()


def written(family: str, machine: str, folder: Path) -> Plan:
    request = KernelRequest(family, machine, SHAPES[family])
    return write_plan(folder, *plan_kernel(request, KernelOptions(compiled=True), lambda _: None))


def rejected(mutation: Mutation, folder: Path) -> bool:
    try:
        plan = from_data(mutation.data, "plan.json")
        return any(finding.severity is Severity.ERROR for finding in review_plan(plan, folder).findings)
    except TreadleError as error:
        return bool(error.code)


@pytest.mark.parametrize(("family", "machine"), [("gemm", "h200"), ("attention_fwd", "b200")])
def test_every_changed_value_is_rejected(family: str, machine: str, tmp_path: Path) -> None:
    plan = written(family, machine, tmp_path / "plan")
    assert review_plan(plan, tmp_path / "plan").findings == ()
    tried = list(mutations(to_data(plan), lambda place: FREE.fullmatch(place) is not None))
    accepted = [(m.kind, ".".join(map(str, m.path))) for m in tried if not rejected(m, tmp_path / "plan")]
    assert accepted == []
    assert len(tried) >= 100


def test_sealing_again_is_what_the_plan_does(tmp_path: Path) -> None:
    data = to_data(planned("gemm", "h200"))
    assert sealed_again(dict(data)) == data


def test_without_sealing_again_the_seal_tells() -> None:
    data: dict[str, Any] = to_data(planned("gemm", "h200"))
    data["options"] = {**data["options"], "top": 2}
    codes = {finding.code for finding in review_plan(from_data(data, "plan.json"), None).findings}
    assert {"TRD490", "TRD491"} <= codes


def test_files_are_compared(tmp_path: Path) -> None:
    request = KernelRequest("gemm", "h200", SHAPES["gemm"])
    plan, files = plan_kernel(request, KernelOptions(compiled=False), lambda _: None)
    whole = write_plan(tmp_path / "plan", plan, {**files, "notes.txt": b"as planned"})
    assert verify(tmp_path / "plan").findings == ()
    assert load(tmp_path / "plan") == whole
    (tmp_path / "plan" / "notes.txt").write_bytes(b"changed")
    assert {finding.code for finding in verify(tmp_path / "plan").findings} == {"TRD492"}
    (tmp_path / "plan" / "notes.txt").unlink()
    assert {finding.code for finding in verify(tmp_path / "plan").findings} == {"TRD492"}
