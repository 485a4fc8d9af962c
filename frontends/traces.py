"""Request traces: Azure 2023 (CSV) and Mooncake (JSON lines) -> requests and length quantiles.

Azure: `TIMESTAMP,ContextTokens,GeneratedTokens`, timestamps as `2023-11-16 18:15:46.6805900` with up to seven decimals.
Mooncake: one object a line with `timestamp` (ms), `input_length`, `output_length` and optional `hash_ids` of 512-token
blocks (FAST '25 release). Times count from the first request.
"""

from __future__ import annotations

import calendar
import json
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any

from treadle.frontends.errors import EmptyTrace, MalformedTrace
from treadle.ir.diagnostics import Place, closest
from treadle.ir.errors import UnknownName
from treadle.ir.plan import read_text
from treadle.ir.workload import LengthQuantiles, QuantilePoint, Request

PROBABILITIES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
"""Quantiles that a length distribution keeps."""

_LONGEST = 10**8
"""Tokens of one request beyond which a trace is taken for damaged."""

_AZURE_COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
_AZURE_TIME = re.compile(r"(\d{4})-(\d{2})-(\d{2})[ T](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?(?:Z|\+00:?00)?", re.ASCII)

Line = tuple[int, str]


def load_trace(path: str | Path, format_name: str) -> tuple[Request, ...]:
    """Read a request trace, in the order of the file.

    Args:
        path: the file.
        format_name: a key of `FORMATS`.

    Raises:
        UnreadableFile, UnknownName, EmptyTrace.
        MalformedTrace: a line of another shape, a time before the one above, a length of zero; with file and line.
    """
    if format_name not in FORMATS:
        raise UnknownName(
            kind="trace format",
            name=format_name,
            expected=f"one of {', '.join(FORMATS)}",
            hint=closest(format_name, list(FORMATS)),
        )
    return parse_trace(read_text(Path(path)), format_name, str(path))


def parse_trace(text: str, format_name: str, file: str = "<trace>") -> tuple[Request, ...]:
    """Read a request trace given as text; raises as `load_trace` does."""
    lines = [(number, line) for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1) if line.strip()]
    requests: list[Request] = []
    start: Fraction | None = None
    before: Fraction | None = None
    for number, arrival, prompt, output, hashes in FORMATS[format_name](lines, file):
        if before is not None and arrival < before:
            raise _malformed(file, number, text, f"arrives {float(before - arrival):.6g} s before the line above")
        for name, tokens in (("prompt", prompt), ("output", output)):
            if not 1 <= tokens <= _LONGEST:
                raise _malformed(file, number, text, f"{tokens} {name} tokens; expected 1 to {_LONGEST}")
        start = arrival if start is None else start
        before = arrival
        requests.append(Request(float(arrival - start), prompt, output, hashes))
    if not requests:
        raise EmptyTrace(place=Place(file))
    return tuple(requests)


def length_quantiles(
    requests: Sequence[Request], source: str, licence: str = "", date: str = "", probabilities: Sequence[float] = ()
) -> LengthQuantiles:
    """Return the marginal quantiles of prompt and output lengths.

    The quantile of p is the least length that a share p of the requests does not exceed (inverse of the empirical
    distribution function; no interpolation).
    """
    prompts = sorted(request.prompt_tokens for request in requests)
    outputs = sorted(request.output_tokens for request in requests)
    points = tuple(
        QuantilePoint(share, _quantile(prompts, share), _quantile(outputs, share))
        for share in (probabilities or PROBABILITIES)
    )
    return LengthQuantiles(points, source, licence, date, len(requests))


def arrival_rate_per_s(requests: Sequence[Request]) -> float | None:
    """Return the mean arrival rate over the trace; None when all requests arrive at once."""
    span = requests[-1].arrival_s - requests[0].arrival_s
    return (len(requests) - 1) / span if span > 0 else None


def _quantile(ordered: Sequence[int], share: float) -> int:
    return ordered[max(ceil(Fraction(str(share)) * len(ordered)) - 1, 0)]


Row = tuple[int, Fraction, int, int, tuple[int, ...]]


def _azure(lines: Sequence[Line], file: str) -> Iterator[Row]:
    if not lines:
        return
    number, header = lines[0]
    columns = [column.strip() for column in header.split(",")]
    for name in _AZURE_COLUMNS:
        if name not in columns:
            raise MalformedTrace(
                place=Place(file, number, text=header[:160]),
                message=f"the column `{name}` is missing",
                expected=",".join(_AZURE_COLUMNS),
                hint=closest(name, columns),
            )
    positions = [columns.index(name) for name in _AZURE_COLUMNS]
    for number, line in lines[1:]:
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != len(columns):
            raise _wrong_line(file, number, line, f"{len(cells)} cells; expected {len(columns)}")
        time, prompt, output = (cells[position] for position in positions)
        yield number, _azure_time(time, file, number, line), *_counts(file, number, line, prompt, output), ()


def _azure_time(text: str, file: str, number: int, line: str) -> Fraction:
    """Return seconds since 1970, exactly (floats would round the seventh decimal)."""
    match = _AZURE_TIME.fullmatch(text)
    if match is None:
        raise _wrong_line(file, number, line, f"`{text[:40]}` is not a time such as 2023-11-16 18:15:46.6805900")
    year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 61):
        raise _wrong_line(file, number, line, f"`{text[:40]}` is not a time of this calendar")
    decimals = match[7] or "0"
    whole = calendar.timegm((year, month, day, hour, minute, second))
    return whole + Fraction(int(decimals), 10 ** len(decimals))


def _counts(file: str, number: int, line: str, *cells: str) -> tuple[int, int]:
    for cell in cells:
        if not (cell.isascii() and cell.isdecimal() and len(cell) <= 18):
            raise _wrong_line(file, number, line, f"`{cell[:40]}` is not a number of tokens")
    return int(cells[0]), int(cells[1])


def _mooncake(lines: Sequence[Line], file: str) -> Iterator[Row]:
    for number, line in lines:
        row = _json_row(file, number, line)
        time = row.get("timestamp")
        if isinstance(time, bool) or not isinstance(time, int | float) or not 0 <= time < 1e15:
            raise _wrong_line(file, number, line, "`timestamp` is not a number of milliseconds")
        lengths = [row.get(name) for name in ("input_length", "output_length")]
        if any(type(length) is not int for length in lengths):
            raise _wrong_line(file, number, line, "`input_length` and `output_length` are not both whole numbers")
        hashes = row.get("hash_ids", [])
        if not isinstance(hashes, list) or any(type(item) is not int for item in hashes):
            raise _wrong_line(file, number, line, "`hash_ids` is not a list of whole numbers")
        prompt, output = (int(length) for length in lengths if length is not None)
        yield number, Fraction(time) / 1000, prompt, output, tuple(hashes)


def _json_row(file: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise _wrong_line(file, number, line, f"not JSON: {reason}") from None
    if not isinstance(row, dict):
        raise _wrong_line(file, number, line, "not a JSON object")
    return row


def _wrong_line(file: str, number: int, line: str, message: str) -> MalformedTrace:
    return MalformedTrace(place=Place(file, number, text=line[:160]), message=message)


def _malformed(file: str, number: int, text: str, message: str) -> MalformedTrace:
    return _wrong_line(file, number, text.splitlines()[number - 1], message)


FORMATS: dict[str, Callable[[Sequence[Line], str], Iterator[Row]]] = {"azure-2023": _azure, "mooncake": _mooncake}
"""Trace formats by the name a specification gives them."""
