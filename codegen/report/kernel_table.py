"""All kernels in one table, the time they take first."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.codegen.report.sections import Context, Section, filled
from treadle.codegen.report.words import predicted
from treadle.ir.tile.kernel import KernelPlan


@dataclass(frozen=True, slots=True)
class Row:
    """One kernel's figures; times in microseconds, None where nothing is predicted or compiled."""

    kernel: KernelPlan
    status: str
    proof: str
    bound: float | None
    time_us: float | None
    tflops: float | None
    share: float | None
    registers: int | None
    spill_bytes: int | None
    smem_bytes: int | None


def section(context: Context) -> Section | None:
    """Return the table of kernels, or nothing for a plan without kernels."""
    if not context.kernels:
        return None
    rows = [_row(kernel) for kernel in context.kernels]
    refused: dict[str, str] = getattr(context.plan.body, "refused", {})
    html = filled("kernel_table.html.j2", rows=rows, refused=refused, phases=any(r.kernel.phase for r in rows))
    return Section("kernels", "Kernels", html)


def _row(kernel: KernelPlan) -> Row:
    first = kernel.certificate.levels[0] if kernel.certificate.levels else None
    compiled = kernel.compiled
    return Row(
        kernel,
        kernel.certificate.status.value if first else "–",
        first.proof.value if first else "–",
        first.bound if first else None,
        predicted(kernel, "time"),
        predicted(kernel, "throughput"),
        predicted(kernel, "roofline_share"),
        max((c.registers for c in compiled), default=None),
        max((c.spill_bytes for c in compiled), default=None),
        max((c.smem_bytes for c in compiled), default=None),
    )
