"""How types are written: one-line forms, names before records, and the kinds of document.

A form is a line of grammar over the fields of a dataclass; the parser and the printer both follow it, so neither can
disagree with the other. `'x'` stands for itself, `name` for the value of a field, `"name"` for one that is printed in
quotes, `name*` for its items separated by commas, `name|word` for a field in which the word means null, `[...]` for a
part that is absent when the field is.
Types without a form are records `{field = value ...}`, and types with a form may always be written as records too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from typing import Any, get_type_hints

from treadle.ir.text.kinds import is_record, without_none

FORMS: dict[str, str] = {
    "treadle.ir.certificate:Level": (
        "name '=' value unit status 'bound' bound|none 'by' proof ['maximize' maximize] ['evidence' evidence]"
    ),
    "treadle.ir.machine:Figure": "name '=' value unit basis 'on' \"date\" 'from' \"source\"",
    "treadle.ir.model:LayerGroup": "layer 'x' count",
    "treadle.ir.plan:Artifact": '"path" \'sha256\' "sha256"',
    "treadle.ir.plan:Input": "role '=' \"path\" 'sha256' \"sha256\"",
    "treadle.ir.plan:Prediction": "name '=' value unit",
    "treadle.ir.tile.loop:Capacity": "memory ':' capacity_bytes 'bytes' ['fixed' fixed_bytes]",
    "treadle.ir.tile.loop:Dependence": "source '->' target 'delay' delay_cycles ['distance' distance]",
    "treadle.ir.tile.loop:Operation": "name ':' unit 'occupancy' occupancy_cycles 'latency' latency_cycles",
    "treadle.ir.tile.loop:Reader": "operation 'hold' hold_cycles ['distance' distance]",
    "treadle.ir.tile.loop:Ring": (
        "name ':' memory slot_bytes 'bytes' 'from' producer 'to' '(' readers* ')' 'depth' 'up' 'to' max_depth"
    ),
    "treadle.ir.tile.loop:Unit": "name ':' count|unlimited",
    "treadle.ir.tile.program:Invariant": "name ':' tile",
    "treadle.ir.tile.program:Operand": "value ['@' distance]",
    "treadle.ir.tile.program:Tile": "dtype '[' shape* ']' memory",
    "treadle.ir.tile.program:TileOperation": (
        "name '=' kind '(' operands* ')' ':' result ['depth' depth] ['work' work] ['note' \"note\"]"
    ),
    "treadle.ir.warp.program:Buffer": "name ':' memory slots 'slots' 'of' slot_bytes 'bytes'",
    "treadle.ir.warp.program:Instruction": (
        "action subject ['stage' stage] ['ago' distance] ['reads' '(' operands* ')'] ['to' result]"
        " ['asynchronous' asynchronous] ['queue' queue] ['after' after] ['pending' pending]"
    ),
    "treadle.ir.warp.program:Queue": "name 'most' most_in_flight ['drains' drains]",
    "treadle.ir.warp.program:Source": "value ['@' distance] ['as' role] ['in' buffer] ['invariant' invariant]",
    "treadle.ir.workload:QuantilePoint": "'p' probability 'prompt' prompt_tokens 'output' output_tokens",
    "treadle.ir.workload:Request": (
        "'at' arrival_s 'prompt' prompt_tokens 'output' output_tokens ['blocks' block_hashes]"
    ),
    "treadle.ir.workload:ServiceLevel": "metric 'p' percentile 'within' limit_s",
}
"""Type -> grammar of its one-line form."""

NAMED: dict[str, str] = {
    "treadle.ir.certificate:Certificate": "problem",
    "treadle.ir.diagnostics:Finding": "code",
    "treadle.ir.machine:Machine": "id",
    "treadle.ir.model:Layer": "name",
    "treadle.ir.model:ModelGraph": "name",
    "treadle.ir.model:Operator": "name",
    "treadle.ir.plan:Plan": "kind",
    "treadle.ir.tile.kernel:KernelPlan": "name",
    "treadle.ir.tile.loop:Loop": "name",
    "treadle.ir.tile.program:TileProgram": "name",
    "treadle.ir.tile.schedule:Schedule": "loop",
    "treadle.ir.warp.program:Channel": "name",
    "treadle.ir.warp.program:Turn": "name",
    "treadle.ir.warp.program:WarpGroup": "name",
    "treadle.ir.warp.program:WarpProgram": "name",
    "treadle.ir.workload:Deployment": "name",
    "treadle.ir.workload:HotLoop": "name",
}
"""Type -> the field that is written before the record: `loop attention {...}`."""

DOCUMENTS: dict[str, str] = {
    "certificate": "treadle.ir.certificate:Certificate",
    "deployment": "treadle.ir.workload:Deployment",
    "finding": "treadle.ir.diagnostics:Finding",
    "hot_loop": "treadle.ir.workload:HotLoop",
    "kernel": "treadle.ir.tile.kernel:KernelPlan",
    "loop": "treadle.ir.tile.loop:Loop",
    "machine": "treadle.ir.machine:Machine",
    "model": "treadle.ir.model:ModelGraph",
    "plan": "treadle.ir.plan:Plan",
    "program": "treadle.ir.tile.program:TileProgram",
    "schedule": "treadle.ir.tile.schedule:Schedule",
    "warps": "treadle.ir.warp.program:WarpProgram",
}
"""The word a document starts with -> the type of what it holds."""


@dataclass(frozen=True, slots=True)
class Literal:
    """A word or sign that stands for itself."""

    text: str


@dataclass(frozen=True, slots=True)
class FieldOf:
    """The value of a field; `null_word` is how null is written; `many` means items separated by commas."""

    name: str
    null_word: str = ""
    many: bool = False
    in_quotes: bool = False


@dataclass(frozen=True, slots=True)
class Optional:
    """A part that is there when its field is given; it starts with a literal."""

    elements: tuple[Literal | FieldOf, ...]

    @property
    def field(self) -> FieldOf:
        """The one field of the part."""
        return next(element for element in self.elements if isinstance(element, FieldOf))


Element = Literal | FieldOf | Optional

_PIECE = re.compile(
    r"'(?P<literal>[^']+)'|(?P<bracket>[\[\]])"
    r"|(?P<quote>\"?)(?P<field>[a-z_0-9]+)(?P=quote)(?:\|(?P<null>[a-z]+))?(?P<many>\*)?"
)


def name_of(kind: type) -> str:
    """Return the name by which the tables know a type."""
    return f"{kind.__module__}:{kind.__qualname__}"


def type_named(name: str) -> type[Any]:
    """Import the type that a table names."""
    module, _, attribute = name.partition(":")
    found: type[Any] = getattr(import_module(module), attribute)
    return found


def form_of(kind: type[Any]) -> tuple[Element, ...] | None:
    """Return the one-line form of a type, or None."""
    name = name_of(kind)
    return _form(name) if name in FORMS else None


@cache
def _form(name: str) -> tuple[Element, ...]:
    return tuple(_elements(_PIECE.finditer(FORMS[name])))


def name_field(kind: type) -> str | None:
    """Return the field that is written before the record of a type, or None."""
    return NAMED.get(name_of(kind))


def is_named(kind: Any) -> bool:
    """Whether values of an annotation start with a name, so that a field needs no `=` before them."""
    kind = without_none(kind)
    return is_record(kind) and name_field(kind) is not None


def field_types(kind: type[Any]) -> dict[str, Any]:
    """Return the annotations of a dataclass by field."""
    return _field_types(name_of(kind))


@cache
def _field_types(name: str) -> dict[str, Any]:
    kind = type_named(name)
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _elements(pieces: Iterator[re.Match[str]]) -> Iterator[Element]:
    for piece in pieces:
        if piece["bracket"] == "]":
            return
        if piece["bracket"] == "[":
            inner = tuple(element for element in _elements(pieces) if not isinstance(element, Optional))
            yield Optional(inner)
        elif piece["literal"]:
            yield Literal(piece["literal"])
        else:
            yield FieldOf(piece["field"], piece["null"] or "", bool(piece["many"]), bool(piece["quote"]))
