"""Labels and what selects by them: requirements, taints and tolerations, with the meaning Kubernetes gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from treadle.ir.errors import InvalidValue


class Operator(Enum):
    """Operators of a label requirement, by their Kubernetes names."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement on a set of labels: `key` stands in the relation `operator` to `values`."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        needs = {Operator.IN: 1, Operator.NOT_IN: 1, Operator.GT: 1, Operator.LT: 1}.get(self.operator, 0)
        if bool(self.values) != bool(needs):
            raise InvalidValue(message=f"`{self.key} {self.operator.value}` with {len(self.values)} values")
        if self.operator in (Operator.GT, Operator.LT) and (len(self.values) != 1 or _integer(self.values[0]) is None):
            raise InvalidValue(message=f"`{self.key} {self.operator.value} {' '.join(self.values)}` is no whole number")

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether the labels meet the requirement; a missing key meets NotIn and DoesNotExist."""
        value = labels.get(self.key)
        match self.operator:
            case Operator.IN:
                return value in self.values
            case Operator.NOT_IN:
                return value not in self.values
            case Operator.EXISTS:
                return value is not None
            case Operator.DOES_NOT_EXIST:
                return value is None
            case Operator.GT:
                return _integer(value) is not None and int(value or 0) > int(self.values[0])
            case Operator.LT:
                return _integer(value) is not None and int(value or 0) < int(self.values[0])


Selector = tuple[Requirement, ...]
"""All requirements together; the empty selector selects everything."""


def selects(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether the labels meet every requirement."""
    return all(requirement.matches(labels) for requirement in selector)


class Effect(Enum):
    """What a taint does to pods that do not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


@dataclass(frozen=True, slots=True)
class Taint:
    """A mark that keeps pods off a node."""

    key: str
    value: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Toleration:
    """What a pod tolerates: empty `key` with `exists` is everything; `effect` None is every effect."""

    key: str = ""
    exists: bool = False
    value: str = ""
    effect: Effect | None = None

    def tolerates(self, taint: Taint) -> bool:
        """Whether the taint is tolerated."""
        if self.effect is not None and self.effect is not taint.effect:
            return False
        if not self.key:
            return self.exists
        return self.key == taint.key and (self.exists or self.value == taint.value)


def repelled_by(taints: tuple[Taint, ...], tolerations: tuple[Toleration, ...]) -> Taint | None:
    """Return the first taint that keeps the pod from being scheduled, or None."""
    for taint in taints:
        if taint.effect is Effect.PREFER_NO_SCHEDULE:
            continue
        if not any(toleration.tolerates(taint) for toleration in tolerations):
            return taint
    return None


def _integer(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
