"""Reads the JSON forms of adapters and tiers by their types, and batches of requests as JSONL."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from treadle.ir.codec import decode, file_locator
from treadle.ir.diagnostics import Place, TreadleError
from treadle.ir.layout.adapters import AdaptersProblem
from treadle.ir.layout.batch import BatchProblem
from treadle.ir.layout.errors import WrongForm
from treadle.ir.layout.tiers import TiersProblem
from treadle.ir.plan import parse_json, read_text

T = TypeVar("T")


def read_adapters(path: Path) -> AdaptersProblem:
    """Read `{"adapters": [{name, load, memory_bytes, current, blocks}], "replicas": [{name, slots, memory_bytes,
    speed}], "blocks": [{name, memory_bytes}]}`."""
    return _read(AdaptersProblem, path)


def read_tiers(path: Path) -> TiersProblem:
    """Read items (name, options of size_bytes and loss, reads_per_step, tiers), tiers, and loss_budget."""
    return _read(TiersProblem, path)


def read_batch(path: Path, block_tokens: int, cache_blocks: int) -> BatchProblem:
    """Read requests as JSON lines with `hash_ids` (the Mooncake form) or `blocks`: prefix blocks in order.

    Raises:
        UnreadableFile, MalformedText, WrongForm: with file and line.
    """
    requests: list[tuple[int, ...]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if line.strip():
            requests.append(_blocks(_parsed(line, path, number), Place(str(path), number)))
    if not requests:
        raise WrongForm(place=Place(str(path)), reason="there are no requests", expected="one JSON object per line")
    return BatchProblem(tuple(requests), block_tokens, cache_blocks)


def _read(kind: type[T], path: Path) -> T:
    return decode(kind, parse_json(read_text(path), str(path)), file_locator(str(path)))


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return parse_json(line, str(path))
    except TreadleError as error:
        if error.place is not None:
            error.place = replace(error.place, line=number)
        raise


def _blocks(data: Any, place: Place) -> tuple[int, ...]:
    blocks = (data.get("hash_ids", data.get("blocks"))) if isinstance(data, dict) else None
    if not isinstance(blocks, list) or any(type(block) is not int for block in blocks):
        raise WrongForm(
            place=place, reason="no list of prefix blocks", expected="`hash_ids`: whole numbers, first block first"
        )
    return tuple(blocks)
