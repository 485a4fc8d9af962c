"""One block per kernel: timeline, what is busy, memory, proof, operations, source."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from treadle.codegen.report import kernel_groups
from treadle.codegen.report.sections import Context, Section, filled
from treadle.codegen.report.words import CHECKED, evidence_in_words, predicted
from treadle.codegen.svg_timeline import STAGE_COLOURS, timeline_svg
from treadle.ir.tile.kernel import KernelPlan


@dataclass(frozen=True, slots=True)
class UnitShare:
    """How much of one interval a unit works; share 0 to 1, None without a limit on instances."""

    name: str
    busy_cycles: int
    available_cycles: int | None
    share: float | None


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """A piece of a memory: what holds it and its bytes and share of the whole."""

    name: str
    size_bytes: int
    share: float


def section(context: Context) -> Section | None:
    """Return the blocks of all kernels, the one that takes most time open; nothing for a plan without kernels."""
    if not context.kernels:
        return None
    weights = [kernel.calls * (predicted(kernel, "time") or 0.0) for kernel in context.kernels]
    heaviest = weights.index(max(weights))
    blocks = [
        _block(context, kernel, position, is_open=position == heaviest)
        for position, kernel in enumerate(context.kernels)
    ]
    return Section("schedules", "Schedules", "\n".join(blocks))


def _block(context: Context, kernel: KernelPlan, position: int, is_open: bool) -> str:
    schedule = kernel.schedule
    return filled(
        "kernel.html.j2",
        kernel=kernel,
        is_open=is_open,
        timeline=Markup(timeline_svg(kernel, f"t{position}-")),
        stages=[(stage, stage % STAGE_COLOURS) for stage in range(min(schedule.stages, STAGE_COLOURS))],
        units=unit_shares(kernel),
        memories=[(capacity, memory_parts(kernel, capacity.memory)) for capacity in kernel.loop.capacities],
        levels=[
            (level, evidence_in_words(level, kernel.loop), CHECKED[level.proof]) for level in kernel.certificate.levels
        ],
        groups=kernel_groups.block(kernel, f"t{position}-"),
        operations=sorted(kernel.loop.operations, key=lambda op: (schedule.start_cycles[op.name], op.name)),
        source=context.sources.get(kernel.name, ""),
    )


def unit_shares(kernel: KernelPlan) -> list[UnitShare]:
    """Return the use of every unit over one interval, busiest first."""
    shares: list[UnitShare] = []
    for unit in kernel.loop.units:
        busy = sum(op.occupancy_cycles for op in kernel.loop.operations if op.unit == unit.name)
        available = None if unit.count is None else unit.count * kernel.schedule.ii_cycles
        shares.append(UnitShare(unit.name, busy, available, None if available is None else busy / available))
    return sorted(shares, key=lambda share: (-(share.share or 0), share.name))


def memory_parts(kernel: KernelPlan, memory: str) -> list[MemoryPart]:
    """Return what takes a memory: fixed tiles, each ring at its depth, and what is free."""
    capacity = next(c for c in kernel.loop.capacities if c.memory == memory)
    parts = [("tiles of the whole loop", capacity.fixed_bytes)] if capacity.fixed_bytes else []
    for ring in kernel.loop.rings:
        if ring.memory == memory:
            depth = kernel.schedule.ring_depths[ring.name]
            parts.append((f"{ring.name} × {depth}", ring.slot_bytes * depth))
    free = capacity.capacity_bytes - sum(size for _, size in parts)
    whole = max(capacity.capacity_bytes, 1)
    return [MemoryPart(name, size, size / whole) for name, size in [*parts, ("free", max(free, 0))]]
