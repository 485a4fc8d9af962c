"""LoRA adapters and fine-tuned models on serving replicas: one replica each, under slots and memory.

Fine-tuned models share blocks (layers that fine-tuning left as they were, as in BlockLLM, arXiv 2404.18322): a replica
keeps a block once, however many of its models use it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, gcd, lcm

from treadle.ir.certificate import ProofKind
from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue
from treadle.ir.layout.magnitudes import LARGEST, MOST_BYTES, SMALLEST

_ROUNDING = Fraction(1, 10**9)
"""What a peak in decimal digits may be below the exact one."""


@dataclass(frozen=True, slots=True)
class Block:
    """Weights that several models share."""

    name: str
    memory_bytes: int

    def __post_init__(self) -> None:
        if not 0 <= self.memory_bytes <= MOST_BYTES:
            raise InvalidValue(message=f"block `{self.name}` has {self.memory_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Adapter:
    """One adapter or model: its load (any rate), the memory of its own weights (rank-padded), and where it is now.

    `blocks` are the shared blocks it needs beside its own weights.
    """

    name: str
    load: float
    memory_bytes: int = 0
    current: str = ""
    blocks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.load <= LARGEST or not 0 <= self.memory_bytes <= MOST_BYTES:
            raise InvalidValue(message=f"adapter `{self.name}` has the load {self.load}, {self.memory_bytes} bytes")


@dataclass(frozen=True, slots=True)
class Replica:
    """One engine replica: adapter slots, memory for adapters, and its speed relative to the others."""

    name: str
    slots: int
    memory_bytes: int = 1 << 62
    speed: float = 1.0

    def __post_init__(self) -> None:
        if self.slots < 0 or self.memory_bytes < 0 or not SMALLEST <= self.speed <= LARGEST:
            what = f"{self.slots} slots, {self.memory_bytes} bytes, the speed {self.speed}"
            raise InvalidValue(message=f"replica `{self.name}` has {what}")


@dataclass(frozen=True, slots=True)
class AdaptersProblem:
    """Adapters, replicas, and the blocks that adapters share."""

    adapters: tuple[Adapter, ...]
    replicas: tuple[Replica, ...]
    blocks: tuple[Block, ...] = ()

    def __post_init__(self) -> None:
        if not self.adapters or not self.replicas:
            raise InvalidValue(message="there are no adapters, or no replicas")
        known = {block.name for block in self.blocks}
        for adapter in self.adapters:
            if unknown := set(adapter.blocks) - known:
                raise InvalidValue(message=f"adapter `{adapter.name}` names the unknown block `{min(unknown)}`")
        for kind, names in (
            ("adapters", [adapter.name for adapter in self.adapters]),
            ("replicas", [replica.name for replica in self.replicas]),
            ("blocks", [block.name for block in self.blocks]),
        ):
            if len(set(names)) != len(names):
                raise InvalidValue(message=f"two {kind} have the same name")

    def held_bytes(self, held: Iterable[Adapter]) -> int:
        """Return the memory of adapters on one replica: their own weights, and each shared block once."""
        together = tuple(held)
        used = {name for adapter in together for name in adapter.blocks}
        shared = sum(block.memory_bytes for block in self.blocks if block.name in used)
        return sum(adapter.memory_bytes for adapter in together) + shared


@dataclass(frozen=True, slots=True)
class AdaptersPlan:
    """The problem, and the replica position of each adapter."""

    problem: AdaptersProblem
    homes: tuple[int, ...]

    @property
    def shared_bytes(self) -> int:
        """Memory that sharing saves: what every adapter would take with blocks of its own, less what is held."""
        held = [
            [a for a, home in zip(self.problem.adapters, self.homes, strict=True) if home == position]
            for position in range(len(self.problem.replicas))
        ]
        alone = sum(self.problem.held_bytes((adapter,)) for adapter in self.problem.adapters)
        return alone - sum(self.problem.held_bytes(group) for group in held)

    @property
    def moves(self) -> int:
        """Adapters that leave the replica they are on now."""
        names = [self.problem.replicas[home].name for home in self.homes]
        return sum(
            bool(adapter.current) and adapter.current != name
            for adapter, name in zip(self.problem.adapters, names, strict=True)
        )


def relative_loads(plan: AdaptersPlan) -> tuple[Fraction, ...]:
    """Return load over speed of every replica, exactly."""
    totals = [Fraction(0)] * len(plan.problem.replicas)
    for adapter, home in zip(plan.problem.adapters, plan.homes, strict=True):
        totals[home] += Fraction(adapter.load)
    return tuple(total / Fraction(replica.speed) for total, replica in zip(totals, plan.problem.replicas, strict=True))


def load_bound(problem: AdaptersProblem) -> tuple[Fraction, ProofKind, str]:
    """Return a bound on the highest relative load: the mean, the largest adapter, or two that must share a replica."""
    speeds = [Fraction(replica.speed) for replica in problem.replicas]
    loads = sorted((Fraction(adapter.load) for adapter in problem.adapters), reverse=True)
    count = len(speeds)
    choices = [
        (sum(loads, Fraction(0)) / sum(speeds, Fraction(0)), ProofKind.CAPACITY, "total load over total speed"),
        (loads[0] / max(speeds), ProofKind.COUNT, "the largest adapter on the fastest replica"),
    ]
    if len(loads) > count:
        pair = (loads[count - 1] + loads[count]) / max(speeds)
        choices.append((pair, ProofKind.COUNT, f"two of the {count + 1} largest adapters share a replica"))
    bound, proof, argument = max(choices, key=lambda choice: choice[0])
    unit = _unit(loads)
    reached = min(ceil(bound * speed / unit) * unit / speed for speed in set(speeds)) if unit else bound
    return max(bound, reached), proof, argument


def _unit(loads: list[Fraction]) -> Fraction:
    """Return the largest number of which every load is a whole multiple; 0 where all loads are 0."""
    denominator = lcm(*(load.denominator for load in loads))
    return Fraction(gcd(*(int(load * denominator) for load in loads)), denominator)


def least_moves(problem: AdaptersProblem, peak: Fraction | float) -> int:
    """Return a bound on the moves to any placement of at most this peak.

    From every replica enough adapters have to leave for its slots and for the peak; the heaviest take most load along.
    """
    least = 0
    for replica in problem.replicas:
        loads = sorted((Fraction(a.load) for a in problem.adapters if a.current == replica.name), reverse=True)
        room = Fraction(peak) * Fraction(replica.speed) * (1 + _ROUNDING)
        load, leave = sum(loads, Fraction(0)), 0
        while leave < len(loads) and (load > room or len(loads) - leave > replica.slots):
            load -= loads[leave]
            leave += 1
        least += leave
    return least + sum(
        bool(a.current) and a.current not in {r.name for r in problem.replicas} for a in problem.adapters
    )


def check(plan: AdaptersPlan) -> list[Finding]:
    """Return every reason why the placement is illegal. Codes: TRD446 homes, TRD447 slots or memory."""
    problem = plan.problem
    if len(plan.homes) != len(problem.adapters) or any(not 0 <= h < len(problem.replicas) for h in plan.homes):
        return [Finding("TRD446", "homes", "one replica per adapter", str(len(problem.adapters)), str(len(plan.homes)))]
    findings: list[Finding] = []
    for position, replica in enumerate(problem.replicas):
        held = [a for a, home in zip(problem.adapters, plan.homes, strict=True) if home == position]
        for what, limit, found in (
            ("slots", replica.slots, len(held)),
            ("bytes", replica.memory_bytes, problem.held_bytes(held)),
        ):
            if found > limit:
                findings.append(
                    Finding("TRD447", f"replica {replica.name}", f"too many {what}", f"<= {limit}", str(found))
                )
    return findings
