"""Kernels on the machine's roofline."""

from __future__ import annotations

from treadle.codegen.report.sections import Context, Section, filled
from treadle.codegen.report.words import predicted
from treadle.codegen.svg_roofline import Point, Roof, roofline_svg
from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan


def section(context: Context) -> Section | None:
    """Return the plot for the kernels with matrix products, or nothing when there are none."""
    from markupsafe import Markup

    roof = _roof(context.machine) if context.machine else None
    points = [point for kernel in context.kernels if (point := _point(kernel)) is not None]
    if roof is None or not points or context.machine is None:
        return None
    left_out = [kernel.name for kernel in context.kernels if _point(kernel) is None]
    html = filled(
        "roofline.html.j2", plot=Markup(roofline_svg(roof, points)), left_out=left_out, machine=context.machine
    )
    return Section("roofline", "Roofline", html)


def _roof(machine: Machine) -> Roof | None:
    figures = {figure.name: figure.value for figure in machine.figures}
    peak, memory = figures.get("peak_flops_bfloat16"), figures.get("memory_bandwidth_bytes_per_s")
    return Roof(machine.name, peak, memory) if peak and memory else None


def _point(kernel: KernelPlan) -> Point | None:
    """Intensity is FLOP per byte of predicted traffic: both rates are over the same time."""
    rate, traffic = predicted(kernel, "throughput"), predicted(kernel, "bandwidth")
    if not rate or not traffic:
        return None
    return Point(kernel.name, rate * 1e12 / traffic, rate * 1e12, kernel.phase)
