"""Weights and KV blocks on memory tiers: one option and one tier per item, least time per step.

An option is a size the item may take (a KV budget of a layer, a cache quota) and the loss that goes with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from treadle.ir.diagnostics import Finding
from treadle.ir.errors import InvalidValue
from treadle.ir.layout.magnitudes import LARGEST, MOST_BYTES, SMALLEST
from treadle.ir.serving.program import Program, Row, Variable


@dataclass(frozen=True, slots=True)
class Option:
    """One size of an item, in bytes, and the loss it costs (any unit, summed over items)."""

    size_bytes: int
    loss: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.size_bytes <= MOST_BYTES or not 0 <= self.loss <= LARGEST:
            raise InvalidValue(message=f"an option has the size {self.size_bytes} and the loss {self.loss}")


@dataclass(frozen=True, slots=True)
class Item:
    """Something to keep: its options, how often all of it is read per step, and the tiers it may be on (empty: any)."""

    name: str
    options: tuple[Option, ...]
    reads_per_step: float
    tiers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.options or not 0 <= self.reads_per_step <= LARGEST:
            raise InvalidValue(message=f"item `{self.name}` has no options, or {self.reads_per_step} reads per step")


@dataclass(frozen=True, slots=True)
class Tier:
    """One memory: capacity, bandwidth at which the GPU reads it, and latency per read."""

    name: str
    capacity_bytes: int
    bandwidth_bytes_per_s: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.capacity_bytes <= MOST_BYTES:
            raise InvalidValue(message=f"tier `{self.name}` has {self.capacity_bytes} bytes")
        if not SMALLEST <= self.bandwidth_bytes_per_s <= 1e3 * LARGEST or not 0 <= self.latency_s <= LARGEST:
            what = f"{self.bandwidth_bytes_per_s} bytes/s after {self.latency_s} s"
            raise InvalidValue(message=f"tier `{self.name}` is read at {what}")


@dataclass(frozen=True, slots=True)
class TiersProblem:
    """Items, tiers, and the most loss allowed in total."""

    items: tuple[Item, ...]
    tiers: tuple[Tier, ...]
    loss_budget: float = 0.0

    def __post_init__(self) -> None:
        if not self.items or not self.tiers:
            raise InvalidValue(message="there are no items, or no tiers")
        if not 0 <= self.loss_budget <= LARGEST:
            raise InvalidValue(message=f"the loss budget is {self.loss_budget}")
        names = {tier.name for tier in self.tiers}
        for item in self.items:
            if unknown := set(item.tiers) - names:
                raise InvalidValue(message=f"item `{item.name}` names the unknown tier `{min(unknown)}`")
        if len(names) != len(self.tiers) or len({item.name for item in self.items}) != len(self.items):
            raise InvalidValue(message="two tiers or two items have the same name")

    def choices(self) -> tuple[tuple[int, int, int], ...]:
        """Return every allowed (item, option, tier), in order."""
        return tuple(
            (position, option, tier)
            for position, item in enumerate(self.items)
            for option in range(len(item.options))
            for tier, place in enumerate(self.tiers)
            if not item.tiers or place.name in item.tiers
        )

    def time_s(self, choice: tuple[int, int, int]) -> Fraction:
        """Return the seconds per step that a choice costs."""
        item, tier = self.items[choice[0]], self.tiers[choice[2]]
        size = item.options[choice[1]].size_bytes
        once = Fraction(size) / Fraction(tier.bandwidth_bytes_per_s) + Fraction(tier.latency_s)
        return Fraction(item.reads_per_step) * once


@dataclass(frozen=True, slots=True)
class TiersPlan:
    """The problem, and per item its option and its tier."""

    problem: TiersProblem
    options: tuple[int, ...]
    tiers: tuple[int, ...]

    @property
    def step_time_s(self) -> Fraction:
        """Seconds per step spent reading."""
        chosen = enumerate(zip(self.options, self.tiers, strict=True))
        return sum((self.problem.time_s((item, *pair)) for item, pair in chosen), Fraction(0))


def program_of(problem: TiersProblem) -> Program:
    """State the problem as a program: one binary per choice, maximise minus the time in microseconds."""
    choices = problem.choices()
    variables = tuple(
        Variable(
            f"{problem.items[i].name}/{o}/{problem.tiers[t].name}", Fraction(0), Fraction(1), True, _cost(problem, c)
        )
        for c in choices
        for i, o, t in (c,)
    )
    one = [
        Row(
            f"one {item.name}",
            tuple((index, Fraction(1)) for index, choice in enumerate(choices) if choice[0] == position),
            Fraction(1),
            equal=True,
        )
        for position, item in enumerate(problem.items)
    ]
    room = [
        Row(
            f"room {tier.name}",
            tuple(
                (index, _parts(problem.items[i].options[o].size_bytes, tier))
                for index, (i, o, t) in enumerate(choices)
                if t == position
            ),
            _parts(tier.capacity_bytes, tier),
        )
        for position, tier in enumerate(problem.tiers)
    ]
    loss = Row(
        "loss",
        tuple((index, Fraction(problem.items[i].options[o].loss)) for index, (i, o, _) in enumerate(choices)),
        Fraction(problem.loss_budget),
    )
    return Program(variables, (*one, *room, loss))


def _parts(size_bytes: int, tier: Tier) -> Fraction:
    """Return bytes in millionths of the tier: one scale for all rows, so that solver tolerances are negligible."""
    return Fraction(1_000_000 * size_bytes, max(1, tier.capacity_bytes))


def _cost(problem: TiersProblem, choice: tuple[int, int, int]) -> Fraction:
    return -problem.time_s(choice) * 1_000_000


def check(plan: TiersPlan) -> list[Finding]:
    """Return every reason why the placement is illegal. Codes: TRD448 choices, TRD449 capacity or loss."""
    problem = plan.problem
    allowed = set(problem.choices())
    chosen = list(zip(range(len(problem.items)), plan.options, plan.tiers, strict=False))
    if len(plan.options) != len(problem.items) or len(plan.tiers) != len(problem.items) or set(chosen) - allowed:
        return [Finding("TRD448", "choices", "every item takes one of its options on one of its tiers")]
    findings: list[Finding] = []
    for position, tier in enumerate(problem.tiers):
        held = sum(problem.items[item].options[option].size_bytes for item, option, home in chosen if home == position)
        if held > tier.capacity_bytes:
            findings.append(
                Finding("TRD449", f"tier {tier.name}", "too full", f"<= {tier.capacity_bytes} bytes", str(held))
            )
    loss = sum((Fraction(problem.items[item].options[option].loss) for item, option, _ in chosen), Fraction(0))
    if loss > Fraction(problem.loss_budget):
        findings.append(Finding("TRD449", "loss", "over the budget", f"<= {problem.loss_budget}", str(float(loss))))
    return findings
