"""Dimension expressions: parsing, printing, exact evaluation, bounded input."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.ir.codec import decode, encode, file_locator
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import WrongType
from treadle.ir.symbolic import (
    BATCH,
    KV,
    SEQ,
    Amount,
    BadExpression,
    Expression,
    UnboundDimension,
    evaluate,
    names,
    parse,
    show,
    substitute,
)

VALUES: dict[str, Amount] = {"batch": 3, "seq": 7, "kv": 11}


def trees() -> st.SearchStrategy[tuple[str, Fraction]]:
    """Texts with their value at `VALUES`, computed beside the parser."""
    leaves = st.one_of(
        st.integers(0, 9).map(lambda n: (str(n), Fraction(n))),
        st.sampled_from([(name, Fraction(value)) for name, value in VALUES.items()]),
    )

    def grow(inner: st.SearchStrategy[tuple[str, Fraction]]) -> st.SearchStrategy[tuple[str, Fraction]]:
        pair = st.tuples(inner, inner)
        return st.one_of(
            pair.map(lambda p: (f"({p[0][0]} + {p[1][0]})", p[0][1] + p[1][1])),
            pair.map(lambda p: (f"({p[0][0]} - {p[1][0]})", p[0][1] - p[1][1])),
            pair.map(lambda p: (f"{p[0][0]}*{p[1][0]}", p[0][1] * p[1][1])),
            pair.map(lambda p: (f"Max({p[0][0]}, {p[1][0]})", max(p[0][1], p[1][1]))),
            pair.map(lambda p: (f"Min({p[0][0]}, {p[1][0]})", min(p[0][1], p[1][1]))),
            inner.map(lambda p: (f"ceil(({p[0]})/4)", Fraction(ceil(p[1] / 4)))),
            inner.map(lambda p: (f"floor(({p[0]})/4)", Fraction(floor(p[1] / 4)))),
            inner.map(lambda p: (f"({p[0]})**2", p[1] ** 2)),
        )

    return st.recursive(leaves, grow, max_leaves=6)


@given(trees())
def test_evaluates_exactly_and_prints_what_it_reads(tree: tuple[str, Fraction]) -> None:
    text, value = tree
    expression = parse(text)
    assert evaluate(expression, **VALUES) == value
    assert parse(show(expression)) == expression


@pytest.mark.parametrize(
    "text",
    ["", "1/0", "a.b", "__import__('os')", "9**99", "((9**16)**16)**16", "seq**999", "(" * 50, "2 2", "floor(1/0)",
     "exp(seq)", "Max()", "seq**kv", "seq^2", "9" * 50, "seq +",
     "1/(seq - seq)", "(((9**64)**64)**64)", "²", "a" * 5000],
)  # fmt: skip
def test_refuses_what_is_no_expression(text: str) -> None:
    with pytest.raises(BadExpression) as caught:
        parse(text)
    assert caught.value.code == "TRD120"
    assert caught.value.next_step


@given(st.text(alphabet="seqkv0123456789+-*/(), MaxinceilfloorMin", max_size=60))
def test_any_text_is_an_expression_or_a_coded_error(text: str) -> None:
    try:
        expression = parse(text)
    except BadExpression:
        return
    assert parse(show(expression)) == expression


def test_missing_value_is_an_error() -> None:
    with pytest.raises(UnboundDimension, match="kv"):
        evaluate(SEQ * KV, seq=3)


def test_codec_writes_expressions_as_text() -> None:
    expression = 2 * BATCH * SEQ * 4096
    assert encode(expression) == "8192*batch*seq"
    assert decode(Expression, "2*batch*seq*4096", file_locator("x")) == expression
    with pytest.raises(WrongType) as caught:
        decode(Expression, "2*", file_locator("x"))
    assert isinstance(caught.value, TreadleError)


def test_names_and_substitution() -> None:
    assert names(SEQ * KV + 1) == ("kv", "seq")
    assert substitute(SEQ * KV, kv=SEQ) == SEQ**2


def test_sympy_is_not_loaded_by_the_package_or_its_help() -> None:
    code = (
        "import sys, treadle; from treadle.cli.main import main; main(['--help']);"
        "sys.exit('sympy' in sys.modules or 'pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False).returncode == 0
