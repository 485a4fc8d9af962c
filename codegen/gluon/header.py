"""The comment at the top of a Gluon kernel: origin, proof, the schedule as a table, and what every group runs."""

from __future__ import annotations

from treadle.codegen.gluon.kernel import Budgets, WarpKernel, identifier


def header_lines(kernel: WarpKernel, registers: Budgets, plan_id: str) -> list[str]:
    """Return the header as comment lines without the leading `# `."""
    named = " ".join(f"{key}={value}" for key, value in kernel.program.shape.items())
    sizes = " ".join(f"{key}={value}" for key, value in kernel.program.tile_sizes.items())
    lines = [
        f"kernel     {kernel.name}" + (f" of plan {plan_id}" if plan_id else ""),
        f"machine    {kernel.machine.name} ({kernel.machine.architecture})",
        f"shape      {named}",
        f"tiles      {sizes}",
    ]
    lines += [f"predicted  {figure.name} = {figure.value:g} {figure.unit}" for figure in kernel.predictions]
    return [
        *lines,
        "",
        *_proof_lines(kernel),
        "",
        *_group_lines(kernel, registers),
        "",
        *_table(kernel),
        *_memory(kernel),
    ]


def _proof_lines(kernel: WarpKernel) -> list[str]:
    schedule = kernel.made.schedule
    lines = [
        f"schedule   a new iteration every {schedule.ii_cycles} cycles, {schedule.length_cycles} cycles each, "
        f"{schedule.stages} in flight"
    ]
    for level in kernel.certificate.levels:
        bound = "no bound" if level.bound is None else f"bound {level.bound:g}"
        proof = f"{level.status.value} ({bound}, {level.proof.value})"
        lines.append(f"           {level.name}: {level.value:g} {level.unit}, {proof}")
    return lines


def _group_lines(kernel: WarpKernel, registers: Budgets) -> list[str]:
    return [
        f"group      {identifier(group.name)}: {group.warps} warps, {planned} registers planned, {granted} granted, "
        f"{group.stages} iterations in flight"
        for group, planned, granted in zip(kernel.warp_program.groups, kernel.registers, registers.groups, strict=False)
    ]


def _table(kernel: WarpKernel) -> list[str]:
    schedule = kernel.made.schedule
    names = {at: identifier(group.name) for at, group in enumerate(kernel.warp_program.groups)}
    rows: list[tuple[str, ...]] = [("operation", "unit", "group", "start", "busy", "latency", "stage", "slot")]
    operations = kernel.warps.loop.operations
    for operation in sorted(operations, key=lambda op: (schedule.start_cycles[op.name], op.name)):
        group = kernel.made.groups.get(operation.name)
        figures = (
            schedule.start_cycles[operation.name],
            operation.occupancy_cycles,
            operation.latency_cycles,
            schedule.stage(operation.name),
            schedule.slot(operation.name),
        )
        home = "" if group is None else names[group]
        rows.append((operation.name, operation.unit, home, *(str(figure) for figure in figures)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(_cell(row, column, widths) for column in range(len(row))).rstrip() for row in rows]


def _cell(row: tuple[str, ...], column: int, widths: list[int]) -> str:
    return row[column].ljust(widths[column]) if column < 3 else row[column].rjust(widths[column])


def _memory(kernel: WarpKernel) -> list[str]:
    program = kernel.warp_program
    lines = [
        f"buffer     {identifier(buffer.name)}: {buffer.slots} x {buffer.slot_bytes} bytes in {buffer.memory.value}"
        for buffer in program.buffers
    ]
    for turn in program.turns:
        order = " -> ".join(identifier(program.groups[holder].name) for holder in turn.holders)
        lines.append(f"turn       {identifier(turn.name)}: {order} (then again)")
    return ["", *lines]
