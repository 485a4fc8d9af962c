"""Buffers with known lifetimes and their offsets in one memory, and what makes offsets legal.

A buffer is live in the half-open interval [lower, upper) and needs `size_bytes` contiguous bytes while it lives.
"""

from __future__ import annotations

from dataclasses import dataclass

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue
from treadle.ir.layout.magnitudes import MOST_BYTES, MOST_CLOCK


@dataclass(frozen=True, slots=True)
class Buffer:
    """One buffer: live from `lower` until before `upper` (any integer clock)."""

    id: str
    lower: int
    upper: int
    size_bytes: int

    def __post_init__(self) -> None:
        if self.upper <= self.lower:
            raise InvalidValue(message=f"buffer `{self.id}` ends at {self.upper}, not after its start {self.lower}")
        if not 1 <= self.size_bytes <= MOST_BYTES:
            raise InvalidValue(message=f"buffer `{self.id}` has the size {self.size_bytes}")
        if max(-self.lower, self.upper) > MOST_CLOCK:
            raise InvalidValue(message=f"buffer `{self.id}` lives from {self.lower} to {self.upper}")


@dataclass(frozen=True, slots=True)
class BuffersProblem:
    """Buffers of one memory; `capacity_bytes` of None asks for the least height only."""

    buffers: tuple[Buffer, ...]
    capacity_bytes: int | None = None

    def __post_init__(self) -> None:
        if len({buffer.id for buffer in self.buffers}) != len(self.buffers):
            raise InvalidValue(message="two buffers have the same id")
        if not self.buffers:
            raise InvalidValue(message="there are no buffers")
        if sum(buffer.size_bytes for buffer in self.buffers) > MOST_BYTES:
            raise InvalidValue(message=f"all buffers together have more than {MOST_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class BuffersPlan:
    """The problem, and one offset in bytes per buffer in the problem's order."""

    problem: BuffersProblem
    offsets_bytes: tuple[int, ...]

    @property
    def height_bytes(self) -> int:
        """Bytes from 0 to the end of the highest buffer."""
        return max(
            offset + buffer.size_bytes for offset, buffer in zip(self.offsets_bytes, self.problem.buffers, strict=True)
        )


def peak_live(problem: BuffersProblem) -> tuple[int, int]:
    """Return the largest sum of live sizes in bytes, and the first clock value at which it is reached."""
    steps: dict[int, int] = {}
    for buffer in problem.buffers:
        steps[buffer.lower] = steps.get(buffer.lower, 0) + buffer.size_bytes
        steps[buffer.upper] = steps.get(buffer.upper, 0) - buffer.size_bytes
    level, peak, at = 0, 0, 0
    for clock in sorted(steps):
        level += steps[clock]
        if level > peak:
            peak, at = level, clock
    return peak, at


def check(plan: BuffersPlan) -> list[Finding]:
    """Return every reason why the offsets are illegal.

    Codes: TRD440 one offset per buffer, TRD441 overlap, TRD442 outside the memory.
    """
    problem = plan.problem
    if len(plan.offsets_bytes) != len(problem.buffers):
        return [
            Finding(
                "TRD440", "offsets", "one offset per buffer", str(len(problem.buffers)), str(len(plan.offsets_bytes))
            )
        ]
    return [*_check_range(plan), *_check_overlap(plan)]


def _check_range(plan: BuffersPlan) -> list[Finding]:
    limit = plan.problem.capacity_bytes
    findings: list[Finding] = []
    for offset, buffer in zip(plan.offsets_bytes, plan.problem.buffers, strict=True):
        end = offset + buffer.size_bytes
        if offset < 0 or (limit is not None and end > limit):
            findings.append(
                Finding("TRD442", f"buffer {buffer.id}", "outside the memory", f"0 to {limit}", f"{offset} to {end}")
            )
    return findings


def _check_overlap(plan: BuffersPlan) -> list[Finding]:
    """Sweep over time; live buffers are few at any moment compared with all pairs."""
    placed = list(zip(plan.problem.buffers, plan.offsets_bytes, strict=True))
    placed.sort(key=lambda pair: pair[0].lower)
    live: list[tuple[Buffer, int]] = []
    findings: list[Finding] = []
    for buffer, offset in placed:
        live = [pair for pair in live if pair[0].upper > buffer.lower]
        for other, below in live:
            if offset < below + other.size_bytes and below < offset + buffer.size_bytes:
                findings.append(
                    Finding(
                        "TRD441",
                        f"buffers {other.id} and {buffer.id}",
                        f"both live at {buffer.lower}, and their bytes overlap",
                    )
                )
        live.append((buffer, offset))
    return findings
