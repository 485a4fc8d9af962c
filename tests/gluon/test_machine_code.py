"""Reading loops out of a disassembly."""

from __future__ import annotations

from treadle.codegen.gluon.machine_code import Instruction, count, group_loops


def _code(*lines: str) -> tuple[Instruction, ...]:
    return tuple(Instruction(16 * at, text) for at, text in enumerate(lines))


CODE = _code(
    "USETMAXREG.DEALLOC.CTAPOOL 0x18",
    "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R7",
    "@!P0 BRA 0x130",
    "UTMALDG.2D [UR8], [UR6]",
    "BRA.U !UP1, 0x10",
    "@P0 BRA 0x10",
    "USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0x98",
    "@!P0 BRA 0x60",
    "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24",
    "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2",
    "@!P0 SYNCS.ARRIVE.TRANS64.A1T0 RZ, [UR4], RZ",
    "BAR.SYNC.DEFER_BLOCKING 0x0, 0x80",
    "MUFU.EX2 R99, R99",
    "@P1 BRA 0x80",
    "EXIT",
    "STL [R1], R3",
    "NOP",
    "NOP",
    "NOP",
    "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R7",
    "@!P0 BRA 0x130",
)


def test_counts_classes() -> None:
    counts = count(CODE)
    assert counts["wgmma"] == counts["tma_load"] == counts["barrier"] == counts["exp2"] == counts["local"] == 1
    assert counts["setmaxnreg"] == 2
    assert counts["wait"] == 3
    assert counts["signal"] == 1
    assert counts["instructions"] == len(CODE)


def test_finds_the_innermost_loop_of_every_group() -> None:
    copies, products = group_loops(CODE)
    assert (copies.granted, copies.counts["tma_load"], copies.counts["instructions"]) == (24, 1, 4)
    assert (products.granted, products.counts["wgmma"], products.counts["wait"]) == (152, 1, 1)
    assert products.registers == 100
    assert copies.registers == 8
    assert products.counts["instructions"] == 6
