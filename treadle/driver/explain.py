"""Why each kernel of a plan takes the cycles it takes, and what other choices would give."""

from __future__ import annotations

from treadle.ir.errors import InvalidValue, UnknownName
from treadle.ir.plan import Plan
from treadle.ir.tile.explanation import Explanation
from treadle.ir.tile.kernel import KernelPlan
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.explain import explain


def explain_plan(plan: Plan, kernel: str = "", limit_s: float = 1.0) -> dict[str, Explanation]:
    """Return an explanation per kernel, or of one kernel.

    Raises:
        InvalidValue: the plan has no kernels. UnknownName: no such kernel.
    """
    kernels: tuple[KernelPlan, ...] = getattr(plan.body, "kernels", ())
    if not kernels:
        raise InvalidValue(message=f"a plan of kind `{plan.kind}` has no kernels to explain")
    names = [item.name for item in kernels]
    if kernel and kernel not in names:
        raise UnknownName(kind="kernel", name=kernel, expected=f"one of {', '.join(names)}")
    limits = Limits(deterministic_s=limit_s)
    return {
        item.name: explain(item.loop, item.schedule, item.certificate, limits)
        for item in kernels
        if not kernel or item.name == kernel
    }
