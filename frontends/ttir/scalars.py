"""Whole numbers of a kernel: loop bounds from constants and from the arguments whose values the user gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from treadle.frontends.ttir.errors import UnknownTrips
from treadle.frontends.ttir.text import Kernel, Op

_CONSTANT = re.compile(r"^(-?\d+|true|false) :|^(-?\d+|true|false)$")
_UNARY = {"arith.extsi", "arith.trunci", "arith.index_cast", "arith.extui"}
_BINARY: dict[str, Callable[[int, int], int]] = {
    "arith.addi": lambda a, b: a + b,
    "arith.subi": lambda a, b: a - b,
    "arith.muli": lambda a, b: a * b,
    "arith.divsi": lambda a, b: a // b,
    "arith.divui": lambda a, b: a // b,
    "arith.ceildivsi": lambda a, b: -(-a // b),
    "arith.remsi": lambda a, b: a % b,
    "arith.minsi": min,
    "arith.maxsi": max,
    "arith.shrsi": lambda a, b: a >> b,
    "arith.shli": lambda a, b: a << b,
}


class Scalars:
    """Values of a kernel that are whole numbers, as far as constants and given arguments tell."""

    def __init__(self, kernel: Kernel, given: Mapping[str, int]) -> None:
        self._kernel = kernel
        self._made: dict[str, Op] = {result: op for op in _every(kernel.operations) for result in op.results}
        self._known = {f"%{name}": value for name, value in given.items()}

    def value(self, name: str) -> int:
        """Return a value.

        Raises:
            UnknownTrips: it depends on an argument without a value, on the place in the grid, or on loaded data.
        """
        if name not in self._known:
            self._known[name] = self._computed(name)
        return self._known[name]

    def _computed(self, name: str) -> int:
        op = self._made.get(name)
        if op is None:
            argument = name.lstrip("%")
            hint = f'give it with --shape "{argument}=NUMBER", or the number of iterations with --shape "trips=NUMBER"'
            raise UnknownTrips(kernel=self._kernel.name, what=f"the argument `{argument}`", hint=hint)
        if op.name == "arith.constant" and (match := _CONSTANT.match(op.text)):
            word = match[1] or match[2]
            return {"true": 1, "false": 0}.get(word) or int(word if word not in ("true", "false") else 0)
        if op.name in _UNARY:
            return self.value(op.operands[0])
        if op.name in _BINARY:
            first, second = (self.value(operand) for operand in op.operands[:2])
            return _BINARY[op.name](first, second)
        raise UnknownTrips(
            kernel=self._kernel.name,
            what=f"`{op.name}`",
            place=self._kernel.place(op),
            hint='give the number of iterations with --shape "trips=NUMBER"',
        )


def _every(operations: Iterable[Op]) -> Iterable[Op]:
    for op in operations:
        yield op
        yield from op.walk()
