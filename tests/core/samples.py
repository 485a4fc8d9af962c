"""Small objects that several tests share."""

from __future__ import annotations

from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.plan import Plan
from treadle.ir.tile.kernel import KernelBody, KernelPlan
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.schedule import Schedule


def small_loop() -> Loop:
    """Load, multiply-accumulate and store on three units, with a recurrence and a ring."""
    return Loop(
        name="axpy",
        units=(Unit("memory", 1), Unit("tensor", 1)),
        operations=(
            Operation("load", "memory", 2, 9),
            Operation("mma", "tensor", 4, 6),
            Operation("store", "memory", 2, 2),
        ),
        dependences=(
            Dependence("load", "mma", 9),
            Dependence("mma", "store", 6),
            Dependence("mma", "mma", 4, 1),
        ),
        rings=(Ring("tile", "shared", 64, "load", (Reader("mma", 6),), 8),),
        capacities=(Capacity("shared", 1024, 128),),
    )


def small_schedule() -> Schedule:
    """The best schedule of `small_loop`: interval 4, length 17, four slots."""
    return Schedule("axpy", 4, {"load": 0, "mma": 9, "store": 18}, 20, {"tile": 4})


def kernel_plan() -> Plan:
    """An unsealed plan of kind `kernel` with a hand-made certificate."""
    certificate = Certificate(
        "modulo",
        "given cycles",
        (
            Level("ii", "cycles", 4, 4, Status.OPTIMAL, ProofKind.RESOURCE, {"unit": "tensor"}),
            Level("length", "cycles", 20, 17, Status.FEASIBLE, ProofKind.SOLVER),
        ),
    )
    kernel = KernelPlan("axpy", small_loop(), small_schedule(), certificate)
    return Plan("kernel", (), {"seed": 0}, {"treadle": "0.1.0"}, KernelBody(None, (kernel,)))
