"""Whatever the IR can hold prints, parses back equal, and prints the same again."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.text.strategies import BY_WORD
from treadle.ir.errors import InvalidValue, UnknownName
from treadle.ir.machine import Basis, Figure, Machine
from treadle.ir.text.documents import parse, print_document
from treadle.ir.text.forms import DOCUMENTS, FORMS, NAMED, FieldOf, Optional, field_types, form_of, type_named

PHASES = (Phase.explicit, Phase.generate)
"""No shrinking: whole plans take minutes to shrink, and the first failure names its line."""
QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


def test_every_document_has_a_strategy() -> None:
    assert sorted(BY_WORD) == sorted(DOCUMENTS)


@pytest.mark.parametrize("word", sorted(BY_WORD))
def test_prints_and_parses_back(word: str) -> None:
    @settings(max_examples=40, deadline=None, suppress_health_check=QUIET, derandomize=True, phases=PHASES)
    @given(BY_WORD[word])
    def holds(value: Any) -> None:
        text = print_document([value])
        back = parse(text)
        assert back == [value]
        assert print_document(back) == text

    holds()


@settings(max_examples=15, deadline=None, suppress_health_check=QUIET, derandomize=True)
@given(st.lists(st.one_of(BY_WORD["loop"], BY_WORD["finding"], BY_WORD["schedule"]), max_size=4))
def test_documents_stand_one_after_the_other(values: list[Any]) -> None:
    assert parse(print_document(values)) == values


def test_types_of_numbers_survive() -> None:
    machine = Machine("m", "m", "v", "a", (Figure("f", 3, "W", "s", "d", Basis.VENDOR),))
    assert type(parse(print_document([machine]))[0].figures[0].value) is int
    exact = Figure("f", 0.1 + 0.2, "W", "s", "d", Basis.VENDOR)
    assert parse(print_document([Machine("m", "m", "v", "a", (exact,))]))[0].figures[0].value == 0.1 + 0.2


@pytest.mark.parametrize("name", sorted(FORMS))
def test_forms_say_every_field(name: str) -> None:
    """A form names each field once, and leaves out only fields that have defaults."""
    kind = type_named(name)
    elements = form_of(kind)
    assert elements is not None
    said = [e for e in elements if isinstance(e, FieldOf)]
    left_out = [e.field for e in elements if isinstance(e, Optional)]
    assert sorted(e.name for e in [*said, *left_out]) == sorted(field_types(kind))
    required = {field.name for field in fields(kind)} - {e.name for e in left_out}
    assert required == {e.name for e in said}


@pytest.mark.parametrize("name", sorted(NAMED))
def test_names_are_fields(name: str) -> None:
    assert NAMED[name] in field_types(type_named(name))


def test_refuses_what_it_cannot_write() -> None:
    with pytest.raises(UnknownName, match="type of document"):
        print_document([object()])
    infinite = Machine("m", "m", "v", "a", (Figure("f", float("inf"), "W", "s", "d", Basis.VENDOR),))
    with pytest.raises(InvalidValue, match="finite"):
        print_document([infinite])
