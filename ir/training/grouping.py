"""Sequence grouping: a batch of sequences of mixed lengths on context groups of different sizes, round after round.

In every round the ranks fall into groups; a group shares its sequences, each split over all its ranks (context
parallelism); a round ends with its slowest group (FlexSP, arXiv 2412.01523; ByteScale, arXiv 2502.21231).
Codes: TRD642 sequences, TRD643 groups, TRD644 memory.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from treadle.ir.diagnostics import Finding, TreadleError
from treadle.ir.errors import InvalidValue, Unmet


class NotLengths(TreadleError):
    """A file that holds no sequence lengths."""

    code = "TRD640"
    template = "no sequence lengths: {reason}"
    hint = "give one length in tokens a line, or a TOML with [lengths]"


class SequenceTooLong(Unmet):
    """A sequence that does not fit all ranks together."""

    code = "TRD641"
    template = "a sequence of {tokens:,} tokens does not fit {ranks} ranks of {room:,} tokens"
    hint = "the longest that fits has {most:,} tokens; use more ranks, or more recomputation"


@dataclass(frozen=True, slots=True)
class GroupCosts:
    """Time of a group: `fixed + (linear tokens + quadratic tokens^2) / size + ring time that attention does not hide`.

    A ring of g ranks takes (g - 1) steps of `step_us` and the group's tokens over g times `near_us` (inside a domain)
    or `far_us` per token.
    """

    fixed_us: float
    linear_us: float
    quadratic_us: float
    step_us: float = 0.0
    near_us: float = 0.0
    far_us: float = 0.0

    def __post_init__(self) -> None:
        values = self.fixed_us, self.linear_us, self.quadratic_us, self.step_us, self.near_us, self.far_us
        if min(values) < 0 or self.linear_us + self.quadratic_us <= 0:
            raise InvalidValue(message="costs of sequence groups are not negative, and a token costs something")


@dataclass(frozen=True, slots=True)
class GroupingProblem:
    """Sequences, ranks and costs. `sizes` are the group sizes the trainer has communicators for, rising."""

    lengths: tuple[int, ...]
    ranks: int
    tokens_per_rank: int
    """Tokens a rank may hold in a round."""
    sizes: tuple[int, ...]
    domain: int
    """Ranks that share the fast links."""
    costs: GroupCosts

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1:
            raise InvalidValue(message="a batch has at least one sequence, and every sequence a token")
        if min(self.ranks, self.tokens_per_rank, self.domain) < 1:
            raise InvalidValue(message="ranks, tokens per rank and domain are at least 1")
        rising = all(low < high for low, high in zip(self.sizes, self.sizes[1:], strict=False))
        if not self.sizes or not rising or self.sizes[0] < 1 or self.sizes[-1] > self.ranks:
            raise InvalidValue(message=f"group sizes {list(self.sizes)}; expected rising, 1 to {self.ranks}")
        room = self.sizes[-1] * self.tokens_per_rank
        if max(self.lengths) > room:
            raise SequenceTooLong(tokens=max(self.lengths), ranks=self.sizes[-1], room=self.tokens_per_rank, most=room)


@dataclass(frozen=True, slots=True)
class Group:
    """Ranks `first` to before `first + size`, and the numbers of the sequences they share."""

    first: int
    size: int
    sequences: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class GroupingBody:
    """The decisions of a plan of kind `sequence-groups`: groups of every round; ranks of no group idle."""

    problem: GroupingProblem
    rounds: tuple[tuple[Group, ...], ...]


def check_grouping(body: GroupingBody) -> list[Finding]:
    """Return every reason why a grouping is not legal; an empty list means legal."""
    problem = body.problem
    counted = Counter(number for groups in body.rounds for group in groups for number in group.sequences)
    findings = [
        Finding("TRD642", f"sequence {number}", "is grouped", "once", f"{counted.get(number, 0)} times")
        for number in sorted({*range(len(problem.lengths)), *counted})
        if counted.get(number, 0) != 1 or not 0 <= number < len(problem.lengths)
    ]
    if findings:
        return findings
    for place, groups in enumerate(body.rounds):
        findings += _check_round(problem, f"round {place}", groups)
    return findings


def _check_round(problem: GroupingProblem, where: str, groups: tuple[Group, ...]) -> list[Finding]:
    findings: list[Finding] = []
    after = 0
    for group in sorted(groups, key=lambda item: item.first):
        end = group.first + group.size
        if group.first < after or end > problem.ranks:
            findings.append(
                Finding("TRD643", where, "ranks are taken twice or not there", "", f"{group.first} to {end}")
            )
        if group.size not in problem.sizes:
            sizes = ", ".join(map(str, problem.sizes))
            findings.append(Finding("TRD643", where, "no communicator of this size", sizes, str(group.size)))
        tokens, room = sum(problem.lengths[number] for number in group.sequences), group.size * problem.tokens_per_rank
        if tokens > room:
            findings.append(Finding("TRD644", where, "tokens of a group", f"<= {room}", str(tokens)))
        after = max(after, end)
    return findings
