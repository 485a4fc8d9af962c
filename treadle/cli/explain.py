"""`treadle explain PLAN [KERNEL]`: what binds each loop, and what would lower its interval, by how much."""

from __future__ import annotations

from typing import Annotated

import typer

from treadle.cli.explain_operators import show_operators
from treadle.cli.explain_packing import show_packing
from treadle.cli.explain_parallel import show_parallel
from treadle.cli.options import JsonFlag, PlanPath
from treadle.cli.output import console, number, print_json, say
from treadle.costmodels.latency import latency_words
from treadle.driver.explain import explain_plan, explain_serving_plan
from treadle.driver.explain_operators import explain_operators
from treadle.driver.explain_packing import explain_packing
from treadle.driver.explain_parallel import explain_parallel
from treadle.ir.codec import encode
from treadle.ir.plan import load
from treadle.ir.tile.explanation import Alternative, Explanation
from treadle.solvers.serving.explain import Change, ServingExplanation


def command(
    plan: PlanPath,
    kernel: Annotated[str, typer.Argument(help="One kernel of the plan; all unless given.", metavar="KERNEL")] = "",
    limit: Annotated[float, typer.Option(min=0.001, help="Deterministic seconds per changed loop.")] = 1.0,
    json: JsonFlag = False,
) -> None:
    """Say what binds each loop of a plan, or the pools of a serving plan, and what single changes would do."""
    found = load(plan)
    if found.kind == "serving":
        _serving(explain_serving_plan(found), json)
        return
    if found.kind == "packing":
        show_packing(explain_packing(found, limit), json)
        return
    if found.kind in ("overlap", "sections"):
        show_operators(explain_operators(found), json)
        return
    if found.kind == "parallel":
        show_parallel(explain_parallel(found, say), json)
        return
    explanations = explain_plan(found, kernel, limit, say)
    if json:
        print_json({name: encode(explanation) for name, explanation in explanations.items()})
        return
    for name, explanation in explanations.items():
        _print(name, explanation)
    if found.body.machine is not None:
        console().print(f"loads take {latency_words(found.body.machine)}", markup=False)


def _print(name: str, explanation: Explanation) -> None:
    out = console()
    out.print(f"{name}: one iteration every {number(explanation.ii_cycles)} cycles", markup=False)
    for binding in explanation.bindings:
        out.print(f"  binds: {binding.sentence}", markup=False)
    uses = ", ".join(f"{use.unit} {use.share:.0%}" for use in explanation.units)
    out.print(f"  busy: {uses}", markup=False)
    if explanation.recurrence:
        path = " -> ".join(explanation.recurrence)
        out.print(f"  slowest recurrence: {number(explanation.recurrence_ii_cycles)} cycles ({path})", markup=False)
    for memory in explanation.memories:
        rings = ", ".join(f"{ring} x{depth}" for ring, depth, _ in memory.rings)
        share = f"{number(memory.used_bytes)} of {number(memory.capacity_bytes)} B"
        out.print(f"  {memory.memory} memory: {share} ({rings})", markup=False)
    width = max((len(alternative.change) for alternative in explanation.alternatives), default=0)
    for alternative in explanation.alternatives:
        out.print(f"    {alternative.change:<{width}}  {priced_effect(alternative)}", markup=False)
    out.print("")


def _serving(explanation: ServingExplanation, json: bool) -> None:
    if json:
        print_json(encode(explanation))
        return
    out = console()
    out.print(f"{explanation.name}: {number(explanation.value)} {explanation.unit}", markup=False)
    for one in explanation.bindings:
        mark = "binds" if one.share > 0.97 else "     "
        out.print(f"  {mark} {one.share:>5.0%}  {one.engine}: {one.limit}, {one.used}", markup=False)
    width = max((len(change.change) for change in explanation.changes), default=0)
    for change in explanation.changes:
        out.print(f"    {change.change:<{width}}  {_serving_effect(explanation, change)}", markup=False)


def _serving_effect(explanation: ServingExplanation, change: Change) -> str:
    if change.value is None:
        return "not possible on these GPUs"
    gain = change.value / explanation.value - 1
    effect = "no change" if abs(gain) < 1e-6 else f"{gain:+.1%}"
    proven = "" if change.proven else ", not proven best"
    return f"{number(change.value):>8} {explanation.unit}  {effect}{proven}"


def priced_effect(alternative: Alternative) -> str:
    """Return what one change gives, with the bound where it is not proven to be the least."""
    detail = f"  ({alternative.detail})" if alternative.detail else ""
    if alternative.ii_cycles is None:
        return f"{'infeasible' if alternative.proven else 'none found'}{detail}"
    proven = "" if alternative.proven else f", not proven least{_at_least(alternative)}"
    change = alternative.ii_cycles - alternative.was_ii_cycles
    effect = "no change" if change == 0 else f"{-alternative.gain:+.1%}"
    return f"{number(alternative.ii_cycles):>8} cycles  {effect}{proven}{detail}"


def _at_least(alternative: Alternative) -> str:
    return "" if alternative.bound_cycles is None else f": at least {number(alternative.bound_cycles)}"
