"""One limit over all the questions that a solve asks."""

from __future__ import annotations

from dataclasses import dataclass, replace

from treadle.solvers.backend import Limits, Outcome

QUESTION_S = 0.02
"""Least charge: building and simplifying a model takes time that the solver's own clock does not count."""


NODES_PER_S = 2500
"""Nodes of a search over turns that stand for a deterministic second."""
MOST_NODES = 60_000
"""Nodes of a whole solve, whatever the limit is."""
QUESTIONS = 20
"""A solve takes at most so many times the deterministic limit, which is meant for one question."""


@dataclass(slots=True)
class Budget:
    """What is left of the limits: every answer is charged, and no question may take more than what is left."""

    limits: Limits
    spent_s: float = 0.0
    """Deterministic seconds of all answers."""
    wall_s: float = 0.0
    until_s: float | None = None
    """Deterministic seconds at which to stop for now."""
    nodes: int = MOST_NODES
    """What is left of the nodes of searches over turns, which have a limit of their own."""

    def slice(self, share: float | None) -> None:
        """Leave only a share of the whole for what comes next; None leaves all there is."""
        whole = self.limits.deterministic_s
        self.until_s = None if share is None or whole is None else self.spent_s + whole * share

    def extend(self, share: float) -> None:
        """Leave a share of the whole for what comes next, as `slice`, even where less is left."""
        limits = self.limits
        if limits.deterministic_s is not None:
            self.spent_s = min(self.spent_s, limits.deterministic_s * (1 - share))
        if limits.wall_s is not None:
            self.wall_s = min(self.wall_s, limits.wall_s * (1 - share))
        self.slice(share)

    @classmethod
    def of(cls, limits: Limits) -> Budget:
        """Return the budget of a whole solve: `QUESTIONS` times the deterministic limit, and the wall-clock limit."""
        whole = None if limits.deterministic_s is None else limits.deterministic_s * QUESTIONS
        nodes = MOST_NODES if whole is None else min(MOST_NODES, int(whole * NODES_PER_S))
        return cls(replace(limits, deterministic_s=whole), nodes=nodes)

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        limits = self.limits
        used_up = limits.deterministic_s is not None and self.spent_s >= limits.deterministic_s
        used_up = used_up or (self.until_s is not None and self.spent_s >= self.until_s)
        return used_up or (limits.wall_s is not None and self.wall_s >= limits.wall_s)

    def share(self, share: float) -> Limits:
        """Return limits of one question: a share of the whole, no more than what is left."""
        return replace(
            self.limits,
            deterministic_s=_part(self.limits.deterministic_s, self.spent_s, share, self.until_s),
            wall_s=_part(self.limits.wall_s, self.wall_s, share),
        )

    def charge(self, outcome: Outcome) -> Outcome:
        """Take an answer's time off and return the answer."""
        self.spent_s += max(outcome.report.deterministic_time, QUESTION_S)
        self.wall_s += outcome.report.wall_s
        return outcome


def _part(whole: float | None, spent: float, share: float, until: float | None = None) -> float | None:
    end = whole if until is None else until
    return None if whole is None or end is None else max(0.0, min(whole * share, whole - spent, end - spent))
