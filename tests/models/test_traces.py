"""Request traces: both formats, quantiles, and every kind of damage."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.frontends.errors import EmptyTrace, MalformedTrace
from treadle.frontends.traces import arrival_rate_per_s, length_quantiles, load_trace, parse_trace
from treadle.ir.errors import InvalidValue, UnknownName, UnreadableFile
from treadle.ir.workload import LengthQuantiles, QuantilePoint, Request

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
AZURE = HEADER + "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
MOONCAKE = (
    '{"timestamp": 500, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 3500, "input_length": 7322, "output_length": 490, "hash_ids": [0, 14]}\n'
)


def test_azure() -> None:
    first, second = parse_trace(AZURE, "azure-2023")
    assert first == Request(0.0, 374, 44)
    assert second.arrival_s == pytest.approx(4.314579, abs=1e-12)
    assert arrival_rate_per_s((first, second)) == pytest.approx(1 / 4.314579)


def test_mooncake() -> None:
    assert parse_trace(MOONCAKE, "mooncake") == (
        Request(0.0, 6758, 500, (0, 1, 2)),
        Request(3.0, 7322, 490, (0, 14)),
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("A,B\n", 1, "TIMESTAMP"),
        ("TIMESTAMP,ContextTokens\n", 1, "GeneratedTokens"),
        (AZURE + "2023-11-16 18:15:40.0,1,1\n", 4, "before|above"),
        (AZURE + "2023-11-16 18:15:51,0,1\n", 4, "0 prompt tokens"),
        (AZURE + "2023-11-16 18:15:51,1,0\n", 4, "0 output tokens"),
        (AZURE + "2023-11-16 18:15:51,1\n", 4, "cells"),
        (AZURE + "2023-13-16 18:15:51,1,1\n", 4, "calendar"),
        (AZURE + "yesterday,1,1\n", 4, "not a time"),
        (AZURE + "2023-11-16 18:15:51,-4,1\n", 4, "not a number of tokens"),
        (AZURE + "2023-11-16 18:15:51,1e3,1\n", 4, "not a number of tokens"),
        (AZURE + "2023-11-16 18:15:51,999999999999,1\n", 4, "expected 1 to"),
    ],
)
def test_damaged_azure(text: str, line: int, message: str) -> None:
    with pytest.raises(MalformedTrace, match=message) as caught:
        parse_trace(text, "azure-2023", "t.csv")
    assert caught.value.place is not None
    assert (caught.value.place.file, caught.value.place.line) == ("t.csv", line)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"timestamp": "0", "input_length": 1, "output_length": 1}', "timestamp"),
        ('{"timestamp": 9000, "input_length": 1.5, "output_length": 1}', "input_length"),
        ('{"timestamp": 9000, "input_length": 0, "output_length": 1}', "0 prompt"),
        ('{"timestamp": 9000, "output_length": 1}', "input_length"),
        ('{"timestamp": 9000, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}', "hash_ids"),
        ('{"timestamp": 1, "input_length": 1, "output_length": 1}', "above"),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}', "timestamp"),
    ],
)
def test_damaged_mooncake(row: str, message: str) -> None:
    with pytest.raises(MalformedTrace, match=message) as caught:
        parse_trace(MOONCAKE + row, "mooncake", "t.jsonl")
    assert caught.value.place is not None
    assert caught.value.place.line == 3


def test_files(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    with pytest.raises(UnreadableFile):
        load_trace(file, "azure-2023")
    file.write_text(HEADER)
    with pytest.raises(EmptyTrace):
        load_trace(file, "azure-2023")
    with pytest.raises(UnknownName, match="azure"):
        load_trace(file, "azure")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableFile, match="UTF-8"):
        load_trace(file, "azure-2023")


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=40), st.floats(0, 1))
def test_quantiles_are_the_least_lengths_that_enough_requests_respect(
    lengths: list[tuple[int, int]], share: float
) -> None:
    requests = [Request(float(index), *pair) for index, pair in enumerate(lengths)]
    point = length_quantiles(requests, "x", probabilities=(share,)).points[0]
    prompts = sorted(prompt for prompt, _ in lengths)
    below = [length for length in prompts if length <= point.prompt_tokens]
    assert len(below) >= share * len(prompts) - 1e-9
    assert point.prompt_tokens in prompts
    shorter = [length for length in prompts if length < point.prompt_tokens]
    assert not shorter or len(shorter) < share * len(prompts) + 1e-9


def test_quantiles_interpolate_and_stay_inside() -> None:
    lengths = LengthQuantiles((QuantilePoint(0.5, 100, 10), QuantilePoint(0.9, 200, 30)), "x")
    assert [lengths.prompt(share) for share in (0.0, 0.5, 0.7, 0.9, 1.0)] == [100, 100, 150, 200, 200]
    assert lengths.output(0.7) == 20


@pytest.mark.parametrize(
    "points",
    [(), ((0.5, 1, 1), (0.5, 2, 2)), ((0.5, 5, 1), (0.9, 4, 2)), ((1.5, 1, 1),), ((0.5, 0, 1),)],
)
def test_quantiles_are_valid_once_built(points: tuple[tuple[float, int, int], ...]) -> None:
    with pytest.raises(InvalidValue):
        LengthQuantiles(tuple(QuantilePoint(*point) for point in points), "x")
