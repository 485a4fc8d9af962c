"""Why each kernel of a plan takes the cycles it takes, and what other choices would give."""

from __future__ import annotations

from collections.abc import Callable

from treadle.costmodels.lower_warps import lower_warps
from treadle.frontends import programs
from treadle.ir.errors import InvalidValue, UnknownName
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.tile.explanation import Explanation
from treadle.ir.tile.kernel import KernelBody, KernelPlan
from treadle.ir.tile.warps import WarpLoop
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.explain import explain
from treadle.solvers.pipeline.explain import explain_groups
from treadle.solvers.serving.explain import ServingExplanation, explain_serving

EXPLAINED = "kernel, parallel, serving, packing, overlap or sections"
"""Kinds of plans that `treadle explain` takes."""


def explain_plan(
    plan: Plan, kernel: str = "", limit_s: float = 1.0, tell: Callable[[str], None] = lambda _: None
) -> dict[str, Explanation]:
    """Return an explanation per kernel, or of one kernel; `tell` hears which change is being priced.

    Raises:
        InvalidValue: the plan has no kernels. UnknownName: no such kernel.
    """
    kernels: tuple[KernelPlan, ...] = getattr(plan.body, "kernels", ())
    if not kernels:
        raise InvalidValue(message=f"nothing is explained of plans of kind `{plan.kind}`; expected {EXPLAINED}")
    names = [item.name for item in kernels]
    if kernel and kernel not in names:
        raise UnknownName(kind="kernel", name=kernel, expected=f"one of {', '.join(names)}")
    limits = Limits(deterministic_s=limit_s)
    body: KernelBody = plan.body
    found: dict[str, Explanation] = {}
    for item in kernels:
        if kernel and item.name != kernel:
            continue
        if item.groups is None:
            found[item.name] = explain(item.loop, item.schedule, item.certificate, limits)
        else:
            others = _other_tilings(item, body.machine)
            found[item.name] = explain_groups(item.groups, limits, others, tell)
    return found


def _other_tilings(kernel: KernelPlan, machine: Machine | None) -> dict[str, WarpLoop]:
    """Return the loop without sub-tiles, where the kernel has some."""
    program = kernel.program
    if program is None or machine is None or program.tile_sizes.get("sub_tiles", 1) < 2:
        return {}
    sizes = {**program.tile_sizes, "sub_tiles": 1}
    whole = programs.build(program.family, program.shape, sizes, program.options)
    return {"no sub-tiling": lower_warps(whole, machine)}


def explain_serving_plan(plan: Plan) -> ServingExplanation:
    """Return what binds a serving plan, and what single changes would do to its goal."""
    return explain_serving(plan.body)
