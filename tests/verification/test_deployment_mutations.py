"""A compiled deployment with one value changed is rejected, though it is sealed again each time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.verification.mutations import Mutation, mutations
from treadle.driver.compile import compile_deployment
from treadle.driver.kernels import KernelOptions
from treadle.ir.diagnostics import Severity, TreadleError
from treadle.ir.plan import from_data, load, to_data
from treadle.solvers.backend import Limits
from treadle.verification.core import review_plan

EXAMPLE = Path(__file__).parents[2] / "examples" / "llama-3.1-8b-h200" / "deployment.toml"
FREE = re.compile(
    r"(id|seal|format|versions.*|options.*"  # what was asked, and with which versions
    r"|parts|artifacts|inputs.*|body\.machine.*"  # files; the machine is the kernel test's
    r"|body\.request\.(name|goal|service_levels.*|cluster\..*|model_path|workload\.(rate_per_s|source))"  # the request
    r"|body\.request\.workload\.lengths\.(source|licence|date|requests|points.*)"  # what hot loops do not depend on
    r"|body\.(refused|rejected).*|body\.model\.name"
    r"|body\.kernels\[\](\.siblings\[\])?\.certificate\.cost_model"
    r"|.*\.evidence\.(solver|version|seed|workers|raw_status)|.*\.note)"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("plans") / "plan"
    options = KernelOptions(limits=Limits(deterministic_s=0.2), compiled=False)
    compile_deployment(EXAMPLE, target, options, lambda phase, result, seconds: None)
    return target


def rejected(mutation: Mutation, folder: Path) -> bool:
    try:
        plan = from_data(mutation.data, "plan.json")
        return any(finding.severity is Severity.ERROR for finding in review_plan(plan, folder).findings)
    except TreadleError as error:
        return bool(error.code)


def test_the_example_is_covered_and_sound(folder: Path) -> None:
    plan = load(folder)
    review = review_plan(plan, folder)
    assert review.findings == ()
    assert review.rederived > 300
    names = {kernel.name for kernel in plan.body.kernels}
    assert {"prefill_attention", "decode_attention", "prefill_qkv", "prefill_output", "prefill_gate_up"} <= names
    assert plan.body.model.parameters() == 8_030_261_248


def test_every_changed_value_is_rejected(folder: Path) -> None:
    tried = list(mutations(to_data(load(folder)), lambda place: FREE.fullmatch(place) is not None))
    accepted = [(m.kind, ".".join(map(str, m.path))) for m in tried if not rejected(m, folder)]
    assert accepted == []
    assert len(tried) >= 200
