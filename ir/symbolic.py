"""Symbolic dimensions: exact expressions in `batch`, `seq`, `kv`, ..., read by our own parser, evaluated exactly.

User text never reaches `sympify`. This module imports sympy; nothing that `import treadle` or `treadle --help` loads
may import it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from functools import cache, reduce
from math import ceil, floor
from typing import Any, TypeAlias

import sympy

from treadle.ir.codec import register_scalar
from treadle.ir.diagnostics import Place, TreadleError

Expression: TypeAlias = sympy.Expr
"""A sympy expression over symbols made by `dimension`."""

Amount: TypeAlias = int | Fraction
"""An exact value; whole values are `int`."""

_Evaluator: TypeAlias = Callable[[Mapping[str, Amount]], Amount]

_TOKEN = re.compile(r"\s*(?:([0-9]+)|([A-Za-z_][A-Za-z_0-9]{0,40})|(\*\*|[-+*/(),]))")
_MAX_LENGTH = 4000
_MAX_NESTING = 40
_MAX_DIGITS = 40
_MAX_DEGREE = 64
_MAX_BITS = 4096
_FUNCTIONS: dict[str, tuple[Callable[..., Expression], int]] = {
    "ceil": (sympy.ceiling, 1),
    "ceiling": (sympy.ceiling, 1),
    "floor": (sympy.floor, 1),
    "Max": (sympy.Max, 8),
    "Min": (sympy.Min, 8),
}


class BadExpression(TreadleError):
    """Text that is not an expression over dimensions."""

    code = "TRD120"
    template = "`{text}` is not a dimension expression: {reason}"
    hint = "write whole numbers, names such as batch, seq and kv, + - * / **, ceil(), floor(), Max() and Min()"


class UnboundDimension(TreadleError):
    """An expression was evaluated without a value for one of its dimensions."""

    code = "TRD220"
    template = "dimension `{name}` has no value in `{text}`"
    hint = "give a value for every dimension of the expression"


def dimension(name: str) -> Expression:
    """Return the symbol of a dimension: a positive whole number."""
    return sympy.Symbol(name, integer=True, positive=True)


BATCH = dimension("batch")
"""Sequences in the step."""
SEQ = dimension("seq")
"""New tokens of every sequence in the step (1 in decode)."""
KV = dimension("kv")
"""Tokens that the last new token of a sequence sees, itself included (`seq` in a prefill without prefix)."""
SCORED = dimension("scored")
"""Positions per sequence whose logits are computed (1 when serving, `seq` when training)."""
SOURCE = dimension("source")
"""Encoder tokens of every sequence (encoder-decoder models)."""


def whole(value: int) -> Expression:
    """Return a whole number as an expression."""
    return sympy.Integer(value)


def ratio(numerator: int | Expression, denominator: int | Expression) -> Expression:
    """Return an exact quotient."""
    return sympy.sympify(numerator) / sympy.sympify(denominator)


def smallest(*values: int | Expression) -> Expression:
    """Return the least of the values."""
    return sympy.Min(*values)


def largest(*values: int | Expression) -> Expression:
    """Return the greatest of the values."""
    return sympy.Max(*values)


def rounded_down(value: Expression) -> Expression:
    """Return the largest whole number not above the value."""
    return sympy.floor(value)


def rounded_up(value: Expression) -> Expression:
    """Return the smallest whole number not below the value."""
    return sympy.ceiling(value)


def total(values: Iterator[Expression] | list[Expression]) -> Expression:
    """Return the sum of expressions; 0 for none."""
    return sympy.Add(*values)


def names(expression: Expression) -> tuple[str, ...]:
    """Return the dimensions an expression depends on, sorted."""
    return tuple(sorted(str(symbol) for symbol in expression.free_symbols))


def show(expression: Expression) -> str:
    """Return the text of an expression, which `parse` reads back."""
    return str(expression)


def parse(text: str, place: Place | None = None) -> Expression:
    """Read an expression such as ``2*batch*seq*4096`` or ``ceil(kv/128)``.

    Raises:
        BadExpression: with the reason; sizes, nesting, powers and numbers are bounded.
    """
    return _Parser(text, place).expression()


def evaluate(expression: Expression, /, **values: Amount) -> Amount:
    """Return the exact value of an expression; raises UnboundDimension."""
    try:
        return _compiled(expression)(values)
    except KeyError as error:
        raise UnboundDimension(name=error.args[0], text=show(expression)) from None


def substitute(expression: Expression, /, **values: int | Expression) -> Expression:
    """Return the expression with dimensions replaced."""
    return expression.subs({dimension(name): value for name, value in values.items()})


@cache
def _compiled(expression: Expression) -> _Evaluator:
    """Translate an expression into nested functions once; a call then costs about a microsecond per node."""
    if isinstance(expression, sympy.Integer):
        constant: Amount = int(expression)
        return lambda values: constant
    if isinstance(expression, sympy.Rational):
        fraction = Fraction(int(expression.p), int(expression.q))
        return lambda values: fraction
    if isinstance(expression, sympy.Symbol):
        name = expression.name
        return lambda values: values[name]
    parts = [_compiled(argument) for argument in expression.args]
    if isinstance(expression, sympy.Pow):
        base, exponent = parts[0], int(expression.exp)
        return lambda values: _neat(Fraction(base(values)) ** exponent)
    for kind, combine in _COMBINE:
        if isinstance(expression, kind):
            return lambda values: _neat(combine([part(values) for part in parts]))
    raise TypeError(f"no value for {type(expression).__name__}")


_COMBINE: tuple[tuple[type, Callable[[list[Amount]], Amount]], ...] = (
    (sympy.Add, sum),
    (sympy.Mul, lambda values: reduce(lambda left, right: left * right, values)),
    (sympy.Max, max),
    (sympy.Min, min),
    (sympy.floor, lambda values: floor(values[0])),
    (sympy.ceiling, lambda values: ceil(values[0])),
)


def _neat(value: Amount) -> Amount:
    return value.numerator if isinstance(value, Fraction) and value.denominator == 1 else value


class _Parser:
    """Recursive descent: sum := term (+|- term)*, term := power (*|/ power)*, power := [-] atom [** integer]."""

    def __init__(self, text: str, place: Place | None) -> None:
        self.text = text
        self.place = place
        self.nesting = 0
        self.position = 0
        self.tokens = list(self._split())

    def expression(self) -> Expression:
        result = self._sum()
        if self._peek():
            raise self._failure(f"`{self._peek()}` is left over")
        if result.has(sympy.zoo, sympy.nan, sympy.oo):
            raise self._failure("it divides by zero")
        return result

    def _split(self) -> Iterator[str]:
        if len(self.text) > _MAX_LENGTH:
            raise self._failure(f"it is longer than {_MAX_LENGTH} characters")
        start, end = 0, len(self.text.rstrip())
        while start < end:
            match = _TOKEN.match(self.text, start)
            if match is None:
                raise self._failure(f"unexpected `{self.text[start:].lstrip()[:1]}`")
            yield match[0].strip()
            start = match.end()

    def _peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def _take(self, *allowed: str) -> str:
        token = self._peek()
        if token not in allowed:
            return ""
        self.position += 1
        return token

    def _need(self, token: str) -> None:
        if not self._take(token):
            raise self._failure(f"expected `{token}`, found `{self._peek() or 'the end'}`")

    def _sum(self) -> Expression:
        self.nesting += 1
        if self.nesting > _MAX_NESTING:
            raise self._failure("it is nested too deeply")
        result = self._term()
        while sign := self._take("+", "-"):
            term = self._term()
            result = result + term if sign == "+" else result - term
        self.nesting -= 1
        return result

    def _term(self) -> Expression:
        result = self._power()
        while sign := self._take("*", "/"):
            factor = self._power()
            result = result * factor if sign == "*" else result / factor
            self._bounded(result, 1)
        return result

    def _power(self) -> Expression:
        negative = bool(self._take("-"))
        result = self._atom()
        if self._take("**"):
            result = self._raised(result)
        return -result if negative else result

    def _raised(self, base: Expression) -> Expression:
        bracket = self._take("(")
        sign = -1 if self._take("-") else 1
        token = self._peek()
        if not token.isdecimal() or int(token[:4]) > _MAX_DEGREE or len(token) > 4:
            raise self._failure(f"a power must be a whole number up to {_MAX_DEGREE}")
        self.position += 1
        if bracket:
            self._need(")")
        self._bounded(base, int(token))
        return base ** sympy.Integer(sign * int(token))

    def _atom(self) -> Expression:
        token = self._peek()
        self.position += 1
        if token == "(":
            result = self._sum()
            self._need(")")
            return result
        if token.isdecimal():
            if len(token) > _MAX_DIGITS:
                raise self._failure(f"a number has more than {_MAX_DIGITS} digits")
            return sympy.Integer(int(token))
        if token.isidentifier():
            return self._call(token) if self._peek() == "(" else dimension(token)
        raise self._failure(f"expected a number, a name or `(`, found `{token or 'the end'}`")

    def _call(self, name: str) -> Expression:
        if name not in _FUNCTIONS:
            raise self._failure(f"`{name}` is not one of the functions {', '.join(_FUNCTIONS)}")
        function, most = _FUNCTIONS[name]
        self._need("(")
        arguments = [self._sum()]
        while self._take(","):
            arguments.append(self._sum())
        self._need(")")
        if len(arguments) > most or any(argument.has(sympy.zoo, sympy.nan) for argument in arguments):
            raise self._failure(f"`{name}` takes 1 to {most} finite values")
        return function(*arguments)

    def _bounded(self, base: Expression, power: int) -> None:
        coefficient: Any = base.as_coeff_Mul()[0]
        parts = (coefficient.p, coefficient.q) if coefficient.is_Rational else (0,)
        bits = max(abs(int(part)).bit_length() for part in parts)
        if _degree(base) * power > _MAX_DEGREE or bits * power > _MAX_BITS:
            raise self._failure("its powers are too large")

    def _failure(self, reason: str) -> BadExpression:
        shown = self.text if len(self.text) <= 80 else self.text[:77] + "..."
        return BadExpression(place=self.place, text=shown, reason=reason)


def _degree(expression: sympy.Basic) -> int:
    if isinstance(expression, sympy.Pow):
        return abs(int(str(expression.exp))) * _degree(expression.base)
    inner = [_degree(argument) for argument in expression.args]
    if isinstance(expression, sympy.Mul):
        return sum(inner)
    return max(inner, default=int(isinstance(expression, sympy.Symbol)))


def _from_text(text: str) -> Expression:
    try:
        return parse(text)
    except BadExpression as error:
        raise ValueError(str(error)) from None


register_scalar(sympy.Expr, show, _from_text)
