"""A small plan with everything a report shows, and a name that must be escaped."""

from __future__ import annotations

from treadle.codegen.report import ReviewFigures
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.diagnostics import Finding
from treadle.ir.machine import Basis, Figure, Machine
from treadle.ir.plan import Artifact, Input, Plan, Prediction
from treadle.ir.tile.kernel import Compiled, KernelBody, KernelPlan
from treadle.ir.tile.loop import Capacity, Dependence, Loop, Operation, Reader, Ring, Unit
from treadle.ir.tile.schedule import Schedule

HOSTILE = "<script>alert('x')</script>&"

LOOP = Loop(
    "flash",
    (Unit("tensor_core", 1), Unit("mufu", 2), Unit("dma", None)),
    (
        Operation("load", "dma", 200, 800),
        Operation("scores", "tensor_core", 256, 300),
        Operation("weights", "mufu", 700, 720),
        Operation(HOSTILE, "tensor_core", 256, 300),
        Operation("signal", "dma", 0, 0),
    ),
    (
        Dependence("load", "scores", 800),
        Dependence("scores", "weights", 300),
        Dependence("weights", HOSTILE, 720),
        Dependence(HOSTILE, HOSTILE, 300, 1),
        Dependence("scores", "signal", 300),
    ),
    (Ring("keys", "shared", 32768, "load", (Reader("scores", 300), Reader(HOSTILE, 300)), 8),),
    (Capacity("shared", 232448, 1024),),
)
SCHEDULE = Schedule(
    "flash", 512, {"load": 0, "scores": 800, "weights": 1100, HOSTILE: 2080, "signal": 1100}, 2380, {"keys": 5}
)
PATH = {"path": [{"dependence": 0}, {"dependence": 1}]}
LEVELS = (
    Level("ii", "cycles", 512, 512, Status.OPTIMAL, ProofKind.RESOURCE,
          {"unit": "tensor_core", "occupied_cycles": 512, "instances": 1}),
    Level("length", "cycles", 2380, 2120, Status.FEASIBLE, ProofKind.SOLVER,
          {"solver": "CP-SAT", "version": "9.15", "seed": 0, "workers": 1,
           "basis": {"value": 2120, "proof": "recurrence", "evidence": PATH}}),
)  # fmt: skip
KERNEL = KernelPlan(
    "flash",
    LOOP,
    SCHEDULE,
    Certificate("modulo/flash", "cycles of a test", LEVELS),
    None,
    (
        Prediction("time", 12.5, "us"),
        Prediction("throughput", 480.0, "TFLOP/s"),
        Prediction("bandwidth", 1.5e12, "B/s"),
        Prediction("roofline_share", 0.61, "1"),
    ),
    "kernels/flash.py",
    (Compiled("sm_90", "triton 3.9.0", "kernels/flash.cubin", 168, 0, 98304),),
    32,
    "prefill",
)
MACHINE = Machine(
    "demo",
    "Demonstration GPU",
    "nobody",
    "sm_90",
    (
        Figure("peak_flops_bfloat16", 9.9e14, "FLOP/s", "a test", "2026-11-21", Basis.ASSUMED),
        Figure("memory_bandwidth_bytes_per_s", 4.8e12, "B/s", "a test", "2026-11-21", Basis.ASSUMED),
    ),
)
PLAN = Plan(
    "kernel",
    (Input("machine", "demo", "ab" * 32),),
    {"seed": 0},
    {"treadle": "0.1.0"},
    KernelBody(MACHINE, (KERNEL,)),
    artifacts=(Artifact("kernels/flash.py", "cd" * 32),),
).sealed()
CLEAN = ReviewFigures(41, 2, ())
OBJECTED = ReviewFigures(41, 2, (Finding("TRD403", "flash: load -> scores", "too early", ">= 800", "799"),))
