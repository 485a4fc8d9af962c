"""The comment at the top of a generated kernel: where it is from, its schedule as a table, its predicted figures."""

from __future__ import annotations

from treadle.ir.machine import Machine
from treadle.ir.tile.kernel import KernelPlan, ScheduledLoop


def header_lines(kernel: KernelPlan, machine: Machine | None, plan_id: str) -> list[str]:
    """Return the header as comment lines without the leading `# `."""
    target = f"{machine.name} ({machine.architecture})" if machine else "any"
    named = " ".join(f"{key}={value}" for key, value in kernel.program.shape.items()) if kernel.program else ""
    sizes = " ".join(f"{key}={value}" for key, value in kernel.program.tile_sizes.items()) if kernel.program else ""
    lines = [
        f"kernel     {kernel.name}" + (f" of plan {plan_id}" if plan_id else ""),
        f"machine    {target}",
        f"shape      {named}",
        f"tiles      {sizes}",
    ]
    lines += [f"predicted  {figure.name} = {figure.value:g} {figure.unit}" for figure in kernel.predictions]
    main = ScheduledLoop(kernel.loop, kernel.schedule, kernel.certificate)
    for scheduled in (main, *kernel.siblings):
        title = ["", f"loop       {scheduled.loop.name}"] if kernel.siblings else []
        table = (*_certificate_lines(scheduled), "", *_schedule_table(scheduled), *_ring_lines(scheduled))
        lines += [*title, "", *table]
    return lines


def _certificate_lines(kernel: ScheduledLoop) -> list[str]:
    schedule = kernel.schedule
    lines = [
        f"schedule   a new iteration every {schedule.ii_cycles} cycles, {schedule.length_cycles} cycles each, "
        f"{schedule.stages} in flight"
    ]
    for level in kernel.certificate.levels:
        bound = "no bound" if level.bound is None else f"bound {level.bound:g}"
        proof = f"{level.status.value} ({bound}, {level.proof.value})"
        lines.append(f"           {level.name}: {level.value:g} {level.unit}, {proof}")
    return lines


def _schedule_table(kernel: ScheduledLoop) -> list[str]:
    schedule = kernel.schedule
    rows: list[tuple[str, ...]] = [("operation", "unit", "start", "busy", "latency", "stage", "slot")]
    for operation in sorted(kernel.loop.operations, key=lambda op: (schedule.start_cycles[op.name], op.name)):
        figures = (
            schedule.start_cycles[operation.name],
            operation.occupancy_cycles,
            operation.latency_cycles,
            schedule.stage(operation.name),
            schedule.slot(operation.name),
        )
        rows.append((operation.name, operation.unit, *(str(figure) for figure in figures)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(_cell(row, column, widths) for column in range(len(row))).rstrip() for row in rows]


def _cell(row: tuple[str, ...], column: int, widths: list[int]) -> str:
    return row[column].ljust(widths[column]) if column < 2 else row[column].rjust(widths[column])


def _ring_lines(kernel: ScheduledLoop) -> list[str]:
    if not kernel.loop.rings:
        return []
    rings = [
        f"ring       {ring.name}: {kernel.schedule.ring_depths[ring.name]} x {ring.slot_bytes} bytes in {ring.memory}"
        for ring in kernel.loop.rings
    ]
    return ["", *rings]
