"""Damaged texts are refused with a coded error, quickly: never a traceback, never a hang (TREADLE_FUZZ for more)."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.text.mutation import mutated, repetitions
from treadle.ir.diagnostics import TreadleError
from treadle.ir.text.documents import parse, print_document

SAMPLES = sorted((Path(__file__).parent / "documents").glob("*.trd"))
SLOWEST_S = 5.0


def is_refused(text: str) -> bool:
    """Whether reading the text ends with a coded error that has a place; otherwise it must survive printing."""
    start = time.process_time()
    error: TreadleError | None = None
    try:
        objects = parse(text, "damaged.trd")
    except TreadleError as caught:
        error = caught
    else:
        assert parse(print_document(objects)) == objects
    assert time.process_time() - start < SLOWEST_S
    assert error is None or (error.place and error.place.line >= 1 and error.render()), text
    return error is not None


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_mutated_texts_raise_only_coded_errors(sample: Path) -> None:
    text = sample.read_text()
    dice = random.Random(sample.stem)
    refused = 0
    for _ in range(repetitions(300) // len(SAMPLES) + 1):
        refused += is_refused(mutated(text, dice))
    assert refused > 0


@pytest.mark.parametrize(
    "opening", ["loop a {x ", "certificate a {levels [a = 1 b unknown bound none by none evidence "]
)
def test_deep_nesting_is_refused(opening: str) -> None:
    for brackets in ("[", "{a ", "[{a "):
        with pytest.raises(TreadleError) as caught:
            parse(opening + brackets * 50_000)
        assert caught.value.code in ("TRD102", "TRD108")


def test_long_texts_are_refused() -> None:
    with pytest.raises(TreadleError, match="characters") as caught:
        parse("# " + "x" * 2**24)
    assert caught.value.code == "TRD108"


@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1." + "0" * 5000])
def test_long_numbers_are_refused(number: str) -> None:
    with pytest.raises(TreadleError, match="digits") as caught:
        parse(f"schedule x {{ ii_cycles = {number} }}")
    assert caught.value.code == "TRD108"


def test_reading_takes_linear_time() -> None:
    def seconds(operations: int) -> float:
        lines = "\n".join(f"o{i}: u occupancy 1 latency 2" for i in range(operations))
        text = f"loop big {{\n units [u: 1]\n operations [\n{lines}\n]\n dependences []\n}}"
        start = time.process_time()
        parse(text)
        return time.process_time() - start

    small, large = seconds(1000), seconds(8000)
    assert large < 8 * small * 4
