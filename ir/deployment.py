"""Body of a plan of kind `deployment`: the model, what is asked of it, the machine, and a kernel for every hot loop."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.diagnostics import Finding
from treadle.ir.machine import Machine
from treadle.ir.model import ModelGraph
from treadle.ir.tile.kernel import KernelPlan
from treadle.ir.workload import Deployment, HotLoop


@dataclass(frozen=True, slots=True)
class DeploymentBody:
    """What `treadle compile` decided. `request` holds no trace; the trace is an input of the plan, by hash."""

    request: Deployment
    model: ModelGraph
    machine: Machine
    hot_loops: tuple[HotLoop, ...]
    kernels: tuple[KernelPlan, ...]

    def kernel(self, name: str) -> KernelPlan:
        """Return the kernel called `name`; raises KeyError."""
        for kernel in self.kernels:
            if kernel.name == name:
                return kernel
        raise KeyError(name)


def check(body: DeploymentBody) -> list[Finding]:
    """Return every way in which the kernels do not cover the hot loops (TRD420); an empty list means they do."""
    findings: list[Finding] = []
    kernels = {kernel.name: kernel for kernel in body.kernels}
    names = [kernel.name for kernel in body.kernels]
    for name in sorted({name for name in names if names.count(name) > 1}):
        findings.append(Finding("TRD420", name, "two kernels of the same name"))
    for extra in sorted(set(kernels) - {hot.name for hot in body.hot_loops}):
        findings.append(Finding("TRD420", extra, "a kernel that no hot loop asks for"))
    for hot in body.hot_loops:
        if hot.name not in kernels:
            findings.append(Finding("TRD420", hot.name, "a hot loop without a kernel"))
            continue
        findings += _check_kernel(hot, kernels[hot.name])
    return findings


def _check_kernel(hot: HotLoop, kernel: KernelPlan) -> list[Finding]:
    program = kernel.program
    if program is None:
        return [Finding("TRD420", hot.name, "a kernel without a tile program")]
    pairs: list[tuple[str, object, object]] = [
        ("family", hot.family, program.family),
        ("shape", hot.shape, {key: program.shape.get(key) for key in hot.shape}),
        ("calls", hot.calls, kernel.calls),
        ("phase", hot.phase.value, kernel.phase),
    ]
    return [
        Finding("TRD420", hot.name, f"the kernel has another {what}", str(expected), str(found))
        for what, expected, found in pairs
        if expected != found
    ]
