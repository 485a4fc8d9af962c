"""What `treadle kernel` prints: levels, warp groups, what a run takes, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from treadle.cli.output import console, level_line, number, print_json
from treadle.codegen.group_timeline import group_names
from treadle.costmodels.latency import PERCENTILE, latency_words
from treadle.ir.certificate import Certificate
from treadle.ir.codec import encode
from treadle.ir.machine import Machine
from treadle.ir.plan import Plan
from treadle.ir.tile.kernel import KernelPlan, ScheduledLoop, WarpPlan
from treadle.ir.tile.modes import Modes, verdict
from treadle.ir.tile.schedule import Schedule
from treadle.ir.tile.warp_claims import value_of
from treadle.solvers.pipeline.solve import OBJECTIVE
from treadle.verification.core import Review

MOST_RUNNERS_UP = 5
"""Tile shapes that are named beside the chosen one; `--json` has all of them."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Seconds of the whole command; of schedules over warp groups and of the second encoding, by kernel."""

    seconds: float
    solve_s: Mapping[str, float]
    second_s: Mapping[str, float]

    @property
    def words(self) -> str:
        """What of the time went into warp groups."""
        parts = [("warp groups", self.solve_s), ("second encoding", self.second_s)]
        told = "".join(f", {what} {sum(spent.values()):.2f} s" for what, spent in parts if spent)
        return f"solved in {self.seconds:.2f} s{told}"


def report(plan: Plan, review: Review, spent: Spent, *, as_json: bool) -> None:
    """Print a plan of kernels, what was found in it, and how long it took."""
    if as_json:
        print_json(
            {
                "plan": plan.id or plan.expected_id(),
                "load_latency": latency_words(plan.body.machine) if plan.body.machine else None,
                "kernels": [_kernel_data(kernel) for kernel in plan.body.kernels],
                **_kernel_data(plan.body.kernels[0]),
                "seconds": round(spent.seconds, 4),
                "solve_seconds": {name: round(seconds, 4) for name, seconds in spent.solve_s.items()},
                "second_encoding_seconds": {name: round(seconds, 4) for name, seconds in spent.second_s.items()},
                "findings": encode(review.findings),
            }
        )
        return
    for kernel in plan.body.kernels:
        _print_kernel(kernel, plan.body.machine)
    console().print(f"{spent.words}; {review.rederived} claims re-derived, {review.verdict}")
    for finding in review.findings:
        console().print(str(finding), markup=False)


def _kernel_data(kernel: KernelPlan) -> dict[str, object]:
    """With warp groups the figures are those of the loop over them; those of the loop alone are under `loop`."""
    alone = _schedule_data(kernel.schedule, kernel.certificate)
    groups: dict[str, object] = {}
    if kernel.groups is not None:
        made = kernel.groups.schedule
        groups = {
            **_schedule_data(made.schedule, kernel.groups.certificate),
            "groups": made.groups,
            "group_names": list(group_names(kernel.groups)),
            "registers": list(made.registers),
            "loop": alone,
        }
    return {
        "name": kernel.name,
        **(groups or alone),
        "without_groups_because": kernel.groupless,
        "predictions": encode(kernel.predictions),
        "measured": encode(kernel.measured),
        "prediction_error": kernel.prediction_error,
        "simulated": encode(kernel.simulated),
        "modes": _modes_data(kernel.modes),
        "siblings": [_sibling_data(sibling) for sibling in kernel.siblings],
        "tile_sizes": kernel.program.tile_sizes if kernel.program else None,
    }


def _modes_data(modes: Modes | None) -> object:
    """Every tile shape with its figures and why it is not the chosen one; None where they were not compared."""
    if modes is None:
        return None
    rows = [
        {
            "tile_sizes": mode.tile_sizes,
            "row_parts": mode.row_parts,
            "bound_cycles": mode.bound_cycles,
            "cycles": mode.cycles,
            "loaded_bytes": mode.loaded_bytes,
            "proofs": [bound.proof.value for bound in mode.loops],
            "verdict": verdict(mode, modes.best),
        }
        for mode in modes.modes
    ]
    levels = [{**encode(level), "gap": level.gap} for level in modes.certificate.levels]
    return {"over_groups": modes.over_groups, "levels": levels, "modes": rows}


def _sibling_data(sibling: ScheduledLoop) -> dict[str, object]:
    """A further loop: as for kernels, and which group of the kernel runs each of its groups (`homes`)."""
    alone = _schedule_data(sibling.schedule, sibling.certificate)
    if sibling.groups is None:
        return {"name": sibling.loop.name, **alone}
    made = sibling.groups.schedule
    over = _schedule_data(made.schedule, sibling.groups.certificate)
    grouped = {"groups": made.groups, "registers": list(made.registers), "homes": list(sibling.homes)}
    return {"name": sibling.loop.name, **over, **grouped, "loop": alone}


def _schedule_data(schedule: Schedule, certificate: Certificate) -> dict[str, object]:
    return {
        "ii_cycles": schedule.ii_cycles,
        "length_cycles": schedule.length_cycles,
        "status": certificate.status.value,
        "levels": [{**encode(level), "gap": level.gap} for level in certificate.levels],
        "ring_depths": schedule.ring_depths,
        "start_cycles": schedule.start_cycles,
    }


def _print_kernel(kernel: KernelPlan, machine: Machine | None) -> None:
    out = console()
    sizes = " ".join(f"{key}={value}" for key, value in kernel.program.tile_sizes.items()) if kernel.program else ""
    out.print(f"{kernel.name}{f' on {machine.name}' if machine else ''}{f'  ({sizes})' if sizes else ''}", markup=False)
    if machine is not None and any(figure.name == PERCENTILE for figure in machine.figures):
        out.print(f"  loads take {latency_words(machine)}", markup=False)
    if kernel.modes is not None:
        _print_modes(kernel.modes)
    for level in kernel.certificate.levels:
        out.print("  " + level_line(level), markup=False)
    if kernel.groups is not None:
        _print_groups(kernel.groups)
        for sibling in kernel.siblings:
            _print_sibling(kernel.groups, sibling)
    elif kernel.groupless:
        out.print(f"  no warp groups: {kernel.groupless}", markup=False)
    if kernel.predictions:
        time_us, rate = kernel.prediction("time").value, kernel.prediction("throughput").value
        share = kernel.prediction("roofline_share").value
        work = f", {number(rate)} TFLOP/s" if rate else ""
        out.print(f"  predicted {number(time_us)} us{work}, {share:.0%} of the roofline", markup=False)
        out.print(f"  {measured_line(kernel)}", markup=False)
    if kernel.simulated:
        _print_run(kernel)
    for binary in kernel.compiled:
        out.print(
            f"  {binary.binary}: {binary.registers} registers, {binary.spill_bytes} B spilled, "
            f"{number(binary.smem_bytes)} B shared",
            markup=False,
        )


def measured_line(kernel: KernelPlan) -> str:
    """Return whether a kernel was measured, where, and how far its prediction was off."""
    found, error = kernel.measured, kernel.prediction_error
    if found is None or error is None:
        return "not measured: its times are predictions"
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    return (
        f"measured {number(found.time_us)} us on {found.gpu} ({found.date}, driver {found.driver}, {versions}), "
        f"predicted {error:+.0%}, best of {1 + len(found.runners_up)}"
    )


def _print_modes(modes: Modes) -> None:
    """Print the choice among tile shapes: its levels, the runners-up, and how many others lose for what."""
    out, best = console(), modes.best
    able = [mode for mode in modes.modes if mode.bound_cycles is not None and mode is not best]
    refused = len(modes.modes) - len(able) - 1
    over = "over warp groups" if modes.over_groups else "the loops alone"
    out.print(f"  best of {len(modes.modes)} tile shapes, {over} ({refused} cannot run)", markup=False)
    for level in modes.certificate.levels:
        out.print("  " + level_line(level), markup=False)
    nearest = sorted(able, key=lambda mode: (mode.bound_cycles or 0, mode.loaded_bytes))[:MOST_RUNNERS_UP]
    for mode in nearest:
        out.print(f"    {mode.words}: {verdict(mode, best)}", markup=False)


def _print_groups(plan: WarpPlan) -> None:
    out = console()
    out.print("  over warp groups", markup=False)
    for level in plan.certificate.levels:
        twice = ", a second encoding agrees" if level.evidence.get("second", {}).get("agrees") else ""
        out.print("  " + level_line(level) + twice, markup=False)
    certified = {level.name for level in plan.certificate.levels}
    for name in (name for name in OBJECTIVE if name not in certified):
        out.print(f"  {name:<22}{number(value_of(plan.warps, plan.schedule, name)):>12}", markup=False)
    for group, name in enumerate(group_names(plan)):
        inside = [operation for operation, home in plan.schedule.groups.items() if home == group]
        out.print(f"    {name} ({plan.schedule.registers[group]} registers): {', '.join(inside)}", markup=False)


def _print_sibling(main: WarpPlan, sibling: ScheduledLoop) -> None:
    """Print a further loop in three lines; its groups by the names they have in the main loop."""
    if sibling.groups is None:
        return
    out, made = console(), sibling.groups.schedule
    levels = [f"{level.name} {number(level.value)} {level.status.value}" for level in sibling.groups.certificate.levels]
    out.print(f"  loop {sibling.loop.name} over the same groups: {', '.join(levels)}", markup=False)
    names = dict(enumerate(group_names(main)))
    for group, home in enumerate(sibling.homes):
        inside = [operation for operation, own in made.groups.items() if own == group]
        name = names.get(home, f"group {home}")
        out.print(f"    {name} ({made.registers[group]} registers): {', '.join(inside)}", markup=False)


def _print_run(kernel: KernelPlan) -> None:
    """Print what the warp programs take in the simulator: an iteration, an instance, the grid."""
    figure = {prediction.name: prediction.value for prediction in kernel.simulated}
    out = console()
    out.print(
        f"  simulated {number(figure['steady_cycles'])} cycles an iteration, "
        f"{number(figure['fill_and_drain_cycles'])} more to fill and drain; one iteration alone takes "
        f"{number(figure['one_iteration_cycles'])}, two {number(figure['two_iterations_cycles'])}",
        markup=False,
    )
    out.print(
        f"    an instance {number(figure['loops_cycles'])} cycles in its loops, {figure['steady_share']:.0%} of them "
        f"steady; {number(figure['waves'])} wave{'s' * (figure['waves'] != 1)}, the last "
        f"{figure['last_wave_share']:.0%} full: "
        f"{number(figure['grid_cycles'])} cycles",
        markup=False,
    )
