"""Body of a plan of kind `deployment`: the model, what is asked of it, the machine, and a kernel for every hot loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from treadle.ir.diagnostics import Finding
from treadle.ir.machine import Machine
from treadle.ir.model import ModelGraph
from treadle.ir.plan import Prediction
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.workload import Deployment, HotLoop, Phase


@dataclass(frozen=True, slots=True)
class DeploymentBody:
    """What `treadle compile` decided. `request` holds no trace; the trace is an input of the plan, by hash."""

    request: Deployment
    model: ModelGraph
    machine: Machine
    hot_loops: tuple[HotLoop, ...]
    kernels: tuple[KernelPlan, ...]
    refused: dict[str, str] = field(default_factory=dict[str, str])
    """Hot loops without a kernel, with the reason."""
    rejected: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """By kernel: programs that were compiled and given up, with the reason (spills)."""

    def kernel(self, name: str) -> KernelPlan:
        """Return the kernel called `name`; raises KeyError."""
        for kernel in self.kernels:
            if kernel.name == name:
                return kernel
        raise KeyError(name)


def is_neutral(key: str, shape: Mapping[str, int]) -> bool:
    """Whether a shape key changes nothing at its extent, so that a program family may do without it."""
    if key == "window":
        return shape[key] == 0 or shape[key] >= shape.get("kv_seq", 0)
    return key == "seq" and shape[key] == 1 and "causal" not in shape


def check(body: DeploymentBody) -> list[Finding]:
    """Return every way in which the kernels do not cover the hot loops (TRD420); an empty list means they do."""
    findings: list[Finding] = []
    kernels = {kernel.name: kernel for kernel in body.kernels}
    expected = [hot.name for hot in body.hot_loops if hot.name not in body.refused]
    found = [kernel.name for kernel in body.kernels]
    if expected != found:
        findings.append(Finding("TRD420", "kernels", "not one per hot loop, in order", str(expected), str(found)))
    for hot in body.hot_loops:
        if hot.name in kernels:
            findings += _check_kernel(hot, kernels[hot.name])
    return findings


def _check_kernel(hot: HotLoop, kernel: KernelPlan) -> list[Finding]:
    program = kernel.program
    if program is None:
        return [Finding("TRD420", hot.name, "a kernel without a tile program")]
    needed = {key: extent for key, extent in hot.shape.items() if not is_neutral(key, hot.shape)}
    pairs: list[tuple[str, object, object]] = [
        ("family", hot.family, program.family),
        ("dtype", hot.dtype, program.options.get("dtype")),
        ("shape", needed, {key: program.shape.get(key) for key in needed}),
        ("calls", hot.calls, kernel.calls),
        ("phase", hot.phase.value, kernel.phase),
    ]
    return [
        Finding("TRD420", hot.name, f"the kernel has another {what}", str(expected), str(found))
        for what, expected, found in pairs
        if expected != found
    ]


def predictions(body: DeploymentBody) -> tuple[Prediction, ...]:
    """Return the figures of the whole deployment, recomputed by `treadle verify`."""
    model = body.model
    by_phase = [
        Prediction(
            f"{phase.value}_kernel_time",
            sum(
                kernel.calls * kernel.prediction("time").value for kernel in body.kernels if kernel.phase == phase.value
            ),
            "us",
        )
        for phase in Phase
    ]
    return (
        Prediction("parameters", model.parameters(), "parameter"),
        Prediction("active_parameters", model.active_parameters(), "parameter"),
        Prediction("weight_bytes", model.stored_bytes(), "B"),
        *by_phase,
    )
