"""Device selectors of DeviceClasses and ResourceClaims: the part of CEL that published drivers use.

Read: `&&`, `||`, `!`, comparisons, `in`, string, number and list literals, `device.driver`,
`device.attributes["domain"].name`, `device.capacity["domain"].name`, `quantity("40Gi")`, and the methods `compareTo`,
`isGreaterThan`, `isLessThan`, `matches`, `startsWith`, `endsWith`, `contains`, `lowerAscii`. Anything else is refused.
A selector that looks up an attribute which a device does not have does not select it.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from treadle.frontends.kubernetes.quantity import parse_quantity
from treadle.ir.cluster.errors import UnreadableSelector
from treadle.ir.diagnostics import Place, TreadleError

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"[^"\\]*"|'[^'\\]*')|(?P<number>-?\d+(?:\.\d+)?)|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<mark>&&|\|\||==|!=|<=|>=|[<>!()\[\].,]))"""
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


def _compared(one: Any, other: Any) -> int:
    return int(one > other) - int(one < other)


def _matched(text: str, pattern: str) -> bool:
    return re.search(pattern, text) is not None


_METHODS: dict[str, Callable[..., Any]] = {
    "compareTo": _compared,
    "isGreaterThan": operator.gt,
    "isLessThan": operator.lt,
    "matches": _matched,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "contains": operator.contains,
    "lowerAscii": str.lower,
}


@dataclass(frozen=True, slots=True)
class Device:
    """What a selector sees of a device: attributes and capacities by (domain, name)."""

    driver: str
    attributes: dict[tuple[str, str], Any]
    capacity: dict[tuple[str, str], Fraction]


class _Missing(Exception):
    """A lookup of what the device does not have."""


def selects(expression: str, device: Device, place: Place) -> bool:
    """Return whether the selector selects the device.

    Raises:
        UnreadableSelector: the expression is beyond what is read.
    """
    try:
        return bool(_Reader(expression, device).run())
    except _Missing:
        return False
    except (IndexError, TypeError, ValueError, KeyError, AttributeError, re.error, TreadleError) as error:
        reason = str(error) or "it ends too early"
        raise UnreadableSelector(place=place, expression=expression[:200], reason=reason[:120]) from None


class _Reader:
    """Evaluates while it reads; both sides of `&&` and `||` are read, failed lookups wait until they count."""

    def __init__(self, text: str, device: Device) -> None:
        self.device = device
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise ValueError(f"`{text[at:].strip()[:12]}` is not understood")
            self.tokens.append((str(match.lastgroup), match[0].strip()))
            at = match.end()
        self.at = 0

    def run(self) -> Any:
        """Return the value of the whole expression."""
        value = self._either()
        if self.at < len(self.tokens):
            raise ValueError(f"`{self.tokens[self.at][1]}` is not understood here")
        return _known(value)

    def _next(self) -> tuple[str, str]:
        self.at += 1
        return self.tokens[self.at - 1]

    def _take(self, mark: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at][1] == mark:
            self.at += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._take(mark):
            raise ValueError(f"`{mark}` is missing")

    def _either(self) -> Any:
        value = self._both()
        while self._take("||"):
            other = self._both()
            value = other if isinstance(value, _Missing) or not value else value
        return value

    def _both(self) -> Any:
        value = self._not()
        while self._take("&&"):
            other = self._not()
            falses = [v for v in (value, other) if not isinstance(v, _Missing) and not v]
            value = falses[0] if falses else value if isinstance(value, _Missing) else other
        return value

    def _not(self) -> Any:
        if self._take("!"):
            value = self._not()
            return value if isinstance(value, _Missing) else not value
        return self._relation()

    def _relation(self) -> Any:
        left = self._value()
        if self.at >= len(self.tokens):
            return left
        word = self.tokens[self.at][1]
        if word not in _COMPARE and word != "in":
            return left
        self.at += 1
        right = self._value()
        for side in (left, right):
            if isinstance(side, _Missing):
                return side
        return left in right if word == "in" else _COMPARE[word](left, right)

    def _value(self) -> Any:
        value = self._primary()
        while self._take("."):
            name = self._next()[1]
            arguments = self._arguments() if self._take("(") else []
            if isinstance(value, _Missing):
                continue
            if name not in _METHODS:
                raise ValueError(f"the method `{name}` is not read")
            value = _METHODS[name](value, *arguments)
        return value

    def _arguments(self) -> list[Any]:
        found: list[Any] = []
        while not self._take(")"):
            found.append(_known(self._either()))
            self._take(",")
        return found

    def _primary(self) -> Any:
        kind, word = self._next()
        if kind == "string":
            return word[1:-1]
        if kind == "number":
            return Fraction(word)
        if word == "(":
            value = self._either()
            self._expect(")")
            return value
        if word == "[":
            return self._items()
        if word in ("true", "false"):
            return word == "true"
        if word == "quantity":
            self._expect("(")
            return parse_quantity(self._arguments()[0])
        if word == "device":
            return self._device()
        raise ValueError(f"`{word}` is not understood")

    def _items(self) -> list[Any]:
        found: list[Any] = []
        while not self._take("]"):
            found.append(_known(self._either()))
            self._take(",")
        return found

    def _device(self) -> Any:
        self._expect(".")
        field = self._next()[1]
        if field == "driver":
            return self.device.driver
        if field not in ("attributes", "capacity"):
            raise ValueError(f"`device.{field}` is not read")
        table: dict[tuple[str, str], Any] = (
            self.device.attributes if field == "attributes" else dict(self.device.capacity)
        )
        if not self._take("["):
            return {domain for domain, _ in table}
        domain = str(self._either())
        self._expect("]")
        if self._take("["):
            name = str(self._either())
            self._expect("]")
        elif self._take("."):
            name = self._next()[1]
        else:
            return {name for known, name in table if known == domain}
        return table.get((domain, name), _Missing())


def _known(value: Any) -> Any:
    if isinstance(value, _Missing):
        raise value
    return value
