"""Kernel plans of any program without cost models or solvers: one cycle per operation, started as soon as possible."""

from __future__ import annotations

from collections.abc import Mapping

from treadle.frontends import programs
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.machine import Machine
from treadle.ir.plan import Prediction
from treadle.ir.tile.cycles import longest_paths
from treadle.ir.tile.kernel import KernelPlan, ScheduledLoop
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.program import Memory, OperationKind, TileProgram
from treadle.ir.tile.schedule import Schedule, length_of

UNITS = {OperationKind.LOAD: "tma", OperationKind.STORE: "tma", OperationKind.MMA: "tensor", OperationKind.EXP2: "mufu"}

HOPPER = Machine("test-hopper", "Test Hopper", "nvidia", "sm_90", (), ("async_mma", "tma"))
AMPERE = Machine("test-ampere", "Test Ampere", "nvidia", "sm_80", (), ("async_copy",))


def plan_of(program: TileProgram, depth: int = 2) -> KernelPlan:
    """Return a plan whose rings have `depth` slots; the schedules are legal but nothing to be proud of."""
    main = scheduled(program, depth)
    siblings = tuple(scheduled(loop, depth) for loop in program.siblings)
    predictions = (Prediction("time", 1.5, "us"),)
    return KernelPlan(program.name, main.loop, main.schedule, main.certificate, program, predictions, siblings=siblings)


def scheduled(program: TileProgram, depth: int) -> ScheduledLoop:
    """Return one loop of a program, one cycle per operation, each as soon as possible."""
    operations = tuple(Operation(op.name, UNITS.get(op.kind, "alu"), 1, 1) for op in program.operations)
    known = {operation.name for operation in operations}
    dependences = tuple(
        Dependence(operand.value, op.name, 1, operand.distance)
        for op in program.operations
        for operand in op.operands
        if operand.value in known
    )
    rings = tuple(
        Ring(
            op.name,
            "shared",
            op.result.bytes,
            op.name,
            tuple(Reader(r.name, 1) for r in program.operations if any(o.value == op.name for o in r.operands)),
            8,
        )
        for op in program.operations
        if op.kind is OperationKind.LOAD and op.result.memory is Memory.SHARED
    )
    units = tuple(Unit(name, None) for name in ("alu", "mufu", "tensor", "tma"))
    loop = Loop(program.name, units, operations, dependences, rings, (Capacity("shared", 1 << 30),))
    index = loop.index
    edges = [(index[d.source], index[d.target], d.delay_cycles - 64 * d.distance) for d in dependences]
    paths = longest_paths(len(operations), edges)
    assert paths is not None
    starts = {operation.name: paths[0][index[operation.name]] for operation in operations}
    schedule = Schedule(program.name, 64, starts, length_of(loop, starts), {ring.name: depth for ring in rings})
    level = Level("initiation interval", "cycles", 64, None, Status.FEASIBLE, ProofKind.NONE)
    certificate = Certificate("modulo", "one cycle per operation", (level,))
    return ScheduledLoop(loop, schedule, certificate)


def tiny(
    family: str,
    shape: Mapping[str, int],
    tile_sizes: Mapping[str, int],
    options: Mapping[str, str | int | bool] | None = None,
) -> KernelPlan:
    """Return the plan of a family at a shape with given tile sizes."""
    return plan_of(programs.build(family, shape, tile_sizes, options))
