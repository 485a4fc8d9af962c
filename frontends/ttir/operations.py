"""What every operation of Triton IR is as a tile operation: its kind, and how much work one result element takes."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.tile.program import OperationKind

LOADS = {"tt.load", "tt.descriptor_load", "tt.experimental_descriptor_load", "tt.descriptor_gather"}
STORES = {"tt.store", "tt.descriptor_store", "tt.experimental_descriptor_store"}
PRODUCTS = {"tt.dot"}

VIEWS = {
    "tt.trans", "tt.reshape", "tt.expand_dims", "tt.broadcast", "tt.splat", "tt.unsplat", "tt.bitcast", "tt.join",
    "tt.split", "tt.cat", "arith.bitcast", "ttg.convert_layout",
}  # fmt: skip
"""Other names for a value: the compiler moves no data for them, or moves it with the reader."""

CONSTANTS = {"tt.make_range", "arith.constant"}
"""Known before the loop begins."""

CONVERSIONS = {
    "arith.truncf", "arith.extf", "arith.sitofp", "arith.uitofp", "arith.fptosi", "arith.fptoui", "arith.extsi",
    "arith.extui", "arith.trunci", "tt.fp_to_fp",
}  # fmt: skip

SPECIAL = {"math.exp2": 1, "math.exp": 1, "math.log2": 1, "math.log": 1, "math.sqrt": 1, "math.rsqrt": 1,
           "math.sin": 1, "math.cos": 1, "tt.precise_sqrt": 1}  # fmt: skip
"""Operations of the special-function unit; the multiplication that turns e into 2 goes with the arithmetic before."""

ELEMENTWISE = {
    "arith.addf", "arith.subf", "arith.mulf", "arith.negf", "arith.maxnumf", "arith.minnumf", "arith.maximumf",
    "arith.minimumf", "arith.cmpf", "arith.cmpi", "arith.select", "arith.addi", "arith.subi", "arith.muli",
    "arith.andi", "arith.ori", "arith.xori", "arith.shli", "arith.shrsi", "arith.shrui", "arith.maxsi", "arith.minsi",
    "arith.maxui", "arith.minui", "math.fma", "math.absf", "math.absi", "math.floor", "math.ceil", "tt.clampf",
    "tt.addptr",
}  # fmt: skip

DIVISIONS = {"arith.divf", "tt.precise_divf"}
"""A reciprocal on the special-function unit, and a multiplication (CUDA C++ Programming Guide, division)."""

REDUCTIONS = {"tt.reduce"}

WITHOUT_EFFECT = {"scf.yield", "tt.assert", "tt.print", "llvm.intr.assume"}
"""Operations without a result that change no memory."""

FUSED_WITH_MULTIPLICATION = {"arith.addf", "arith.subf"}
"""What a multiplication before it makes one fused multiply-add of."""

SUPPORTED = sorted(
    LOADS | STORES | PRODUCTS | VIEWS | CONSTANTS | CONVERSIONS | set(SPECIAL) | ELEMENTWISE | DIVISIONS | REDUCTIONS
)
"""Every operation that may stand in a hot loop, for the documentation and for messages."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """Kind and work of an operation."""

    kind: OperationKind
    work: float = 1


def meaning(name: str) -> Meaning | None:
    """Return what an operation computes, or None for views and unknown ones."""
    if name in LOADS:
        return Meaning(OperationKind.LOAD)
    if name in STORES:
        return Meaning(OperationKind.STORE)
    if name in PRODUCTS:
        return Meaning(OperationKind.MMA)
    if name in REDUCTIONS:
        return Meaning(OperationKind.REDUCE)
    if name in CONVERSIONS:
        return Meaning(OperationKind.CONVERT)
    if name in SPECIAL:
        return Meaning(OperationKind.EXP2, SPECIAL[name])
    if name in DIVISIONS:
        return Meaning(OperationKind.EXP2)
    if name in ELEMENTWISE:
        return Meaning(OperationKind.ELEMENTWISE)
    return None
