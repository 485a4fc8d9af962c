"""Loops of a warp-specialized kernel in its disassembly: instructions, waits and signals an iteration, registers.

The disassembler is the one in Triton's wheel (`cuobjdump -sass`). A group's code begins behind the `USETMAXREG` that
sets its registers; its loop over iterations is the innermost loop with products, copies or waits. Spins of waits lie
behind the last `EXIT` and do not count. Most loops are closed by a conditional jump back, some by a plain one.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

CLASSES = {
    "wgmma": r"HGMMA|QGMMA|IGMMA",
    "tcgen05": r"UTC[A-Z]*MMA",
    "mma_sync": r"HMMA|IMMA|DMMA",
    "tma_load": r"UTMALDG",
    "tma_store": r"UTMASTG",
    "async_copy": r"LDGSTS",
    "setmaxnreg": r"USETMAXREG",
    "exp2": r"MUFU\.EX2",
    "wait": r"SYNCS\.PHASECHK",
    "signal": r"SYNCS\.ARRIVE|UTCBAR|UTCARRIVE",
    "barrier": r"BAR\.",
    "local": r"STL|LDL",
}
"""Instruction classes by opcode, after an optional predicate."""

WORK = ("wgmma", "tcgen05", "mma_sync", "tma_load", "wait")
"""Classes of which a loop over iterations has some."""

_LINE = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;")
_OPCODE = re.compile(r"^(?:@!?U?P\w+\s+)?(\S+)(.*)$")
_REGISTER = re.compile(r"\bR(\d+)\b")
_TARGET = re.compile(r"BRA\S*\s+(?:!?U?P\w+,\s*)?0x([0-9a-f]+)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One machine instruction."""

    address: int
    text: str

    @property
    def kind(self) -> str:
        """Its class in `CLASSES`, or nothing."""
        match = _OPCODE.match(self.text)
        opcode = match[1] if match else ""
        return next((name for name, pattern in CLASSES.items() if re.match(pattern, opcode)), "")


@dataclass(frozen=True, slots=True)
class GroupLoop:
    """One innermost loop with products, copies or waits, and the group's code around it."""

    region: int
    """Address of the `USETMAXREG` before it: loops of one group share it."""
    counts: dict[str, int]
    """Instructions of one iteration by class, and `instructions` in all."""
    granted: int
    """Registers per thread that the group asks for."""
    registers: int
    """Registers per thread that the group's code names."""
    local: int = 0
    """Accesses of the group's code to local memory."""


def disassembler() -> Path | None:
    """Return the `cuobjdump` of the installed Triton, if it has one."""
    specification = find_spec("triton")
    if specification is None or specification.origin is None:
        return None
    path = Path(specification.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return path if path.is_file() else None


def disassemble(cubin: bytes) -> tuple[Instruction, ...]:
    """Return the instructions of a cubin; empty without a disassembler."""
    tool = disassembler()
    if tool is None:
        return ()
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        run = subprocess.run([str(tool), "-sass", file.name], capture_output=True, text=True, timeout=120, check=False)
    matches = (_LINE.match(line) for line in run.stdout.splitlines())
    return tuple(Instruction(int(match[1], 16), match[2]) for match in matches if match is not None)


def count(code: tuple[Instruction, ...]) -> dict[str, int]:
    """Return how many instructions of each class there are, and how many in all."""
    found: Counter[str] = Counter(dict.fromkeys(CLASSES, 0))
    for instruction in code:
        found["instructions"] += 1
        if instruction.kind:
            found[instruction.kind] += 1
    return dict(found)


def group_loops(code: tuple[Instruction, ...]) -> tuple[GroupLoop, ...]:
    """Return the innermost loops with products, copies or waits, in the order of the code."""
    last_exit = max((i.address for i in code if "EXIT" in i.text), default=0)
    jumps = [(i, int(target[1], 16)) for i in code if (target := _TARGET.search(i.text)) and i.address <= last_exit]
    ranges = [(to, i.address) for i, to in jumps if to < i.address and _closes_loop(i, to, jumps)]
    found: list[GroupLoop] = []
    for begin, end in ranges:
        counts = count(tuple(i for i in code if begin <= i.address <= end))
        inner = any(begin <= b and e <= end and (b, e) != (begin, end) and _works(code, b, e) for b, e in ranges)
        if not inner and not counts["setmaxnreg"] and _works(code, begin, end):
            found.append(_loop(code, begin, counts))
    return tuple(found)


def _closes_loop(jump: Instruction, to: int, jumps: list[tuple[Instruction, int]]) -> bool:
    """Whether a jump back closes a loop: an unconditional one also leads from code set aside into a loop's middle."""
    if jump.text.startswith(("@", "BRA.U")):
        return True
    return not any(to <= i.address < jump.address and target < to for i, target in jumps)


def _works(code: tuple[Instruction, ...], begin: int, end: int) -> bool:
    return any(i.kind in WORK for i in code if begin <= i.address <= end)


def _loop(code: tuple[Instruction, ...], at: int, counts: dict[str, int]) -> GroupLoop:
    """Read what the `USETMAXREG` before an address grants, and the registers named between it and the next one."""
    marks = [i for i in code if i.kind == "setmaxnreg"]
    before = [mark for mark in marks if mark.address < at]
    if not before:
        return GroupLoop(0, counts, 0, 0)
    begin = before[-1]
    end = next((mark.address for mark in marks if mark.address > at), code[-1].address)
    granted = int(begin.text.rpartition(" ")[2], 16)
    named = [int(n) for i in code if begin.address < i.address < end for n in _REGISTER.findall(_widened(i.text))]
    local = sum(i.kind == "local" for i in code if begin.address < i.address < end)
    return GroupLoop(begin.address, counts, granted, 1 + max(named, default=-1), local)


def _widened(text: str) -> str:
    """Name the last register of a 64-column accumulator too: `HGMMA.64x128x16.F32 R88` writes 64 of them."""
    match = re.search(r"GMMA\.64x(\d+)x\d+\.F32\S* R(\d+)", text)
    return text if match is None else f"{text} R{int(match[2]) + int(match[1]) // 2 - 1}"
