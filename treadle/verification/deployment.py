"""Reviews a deployment: the model lowered again, its hot loops, the kernel of each, and the figures of the whole."""

from __future__ import annotations

from pathlib import Path

from treadle.frontends.hf import load_model
from treadle.frontends.hot_loops import hot_loops
from treadle.ir.deployment import DeploymentBody, check, predictions
from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.plan import Plan
from treadle.verification.bundle import review_parts
from treadle.verification.core import Review, compare_predictions
from treadle.verification.kernel import review_kernel
from treadle.verification.machine import review_machine


def review(plan: Plan, folder: Path | None) -> Review:
    """Review a plan of kind `deployment`."""
    body: DeploymentBody = plan.body
    total = review_machine(plan, body.machine) + Review(1, 0, tuple(check(body)))
    if folder is not None:
        total += _review_model(body, folder) + review_parts(plan, folder)
    if total.findings:
        return total  # what follows would be measured against a wrong model
    total += _review_hot_loops(body)
    for kernel in body.kernels:
        total += review_kernel(kernel, body.machine, plan.id, folder)
    return total if total.findings else total + _review_predictions(plan, body)


def _review_model(body: DeploymentBody, folder: Path) -> Review:
    """Lower the copied configuration again."""
    request = body.request
    try:
        model = load_model(
            folder / "inputs" / "config.json",
            name=body.model.name,
            weight_dtype=request.weight_dtype,
            kv_dtype=request.kv_dtype,
        )
    except TreadleError as error:
        return Review(1, 0, (Finding("TRD421", "inputs/config.json", str(error)),))
    if model != body.model:
        return Review(1, 0, (Finding("TRD421", "model", "the graph is not the one the configuration gives"),))
    return Review(1, 0, ())


def _review_hot_loops(body: DeploymentBody) -> Review:
    expected = {loop.name: loop for loop in hot_loops(body.model, body.request)}
    found = {loop.name: loop for loop in body.hot_loops}
    findings = [
        Finding("TRD422", name, "the hot loop is not the one model and workload give")
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]
    return Review(len(expected), 0, tuple(findings))


def _review_predictions(plan: Plan, body: DeploymentBody) -> Review:
    expected = predictions(body)
    return Review(len(expected), 0, tuple(compare_predictions("deployment", expected, plan.predictions)))
