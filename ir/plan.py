"""A plan: inputs by hash, options, decisions, figures, certificates, versions - and a seal over all of it.

The decisions (`body`) belong to a level; `BODIES` names the type of each kind of plan. A plan folder holds `plan.json`
and the files it lists as artifacts, and may hold further plan folders (`parts`), each complete in itself.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from treadle.ir.certificate import Certificate
from treadle.ir.codec import decode, encode, file_locator
from treadle.ir.diagnostics import Place
from treadle.ir.errors import InvalidValue, MalformedText, NotAPlan, UnknownName, UnreadableFile, UnsupportedVersion

FORMAT = "treadle-plan/1"

BODIES: dict[str, str] = {
    "reassignment": "treadle.ir.cluster.reassignment:ReassignmentBody",
    "adapters": "treadle.ir.layout.adapters:AdaptersPlan",
    "batch-order": "treadle.ir.layout.batch:BatchPlan",
    "buffers": "treadle.ir.layout.buffers:BuffersPlan",
    "memory-spaces": "treadle.ir.layout.space_plan:SpacesPlan",
    "experts": "treadle.ir.layout.experts:ExpertsPlan",
    "serving": "treadle.ir.serving.plan:ServingPlan",
    "tiers": "treadle.ir.layout.tiers:TiersPlan",
    "overlap-choice": "treadle.ir.operator.choice:ChoiceBody",
    "overlap": "treadle.ir.operator.plan:OverlapBody",
    "sections": "treadle.ir.sections.graph:SectionsBody",
    "packing": "treadle.ir.cluster.packing:PackingBody",
    "parallel": "treadle.ir.training.plan:ParallelBody",
    "replan": "treadle.ir.training.elastic:ReplanBody",
    "sequence-groups": "treadle.ir.training.grouping:GroupingBody",
    "deployment": "treadle.ir.deployment:DeploymentBody",
    "kernel": "treadle.ir.tile.kernel:KernelBody",
}
"""Kind of plan -> where the type of its body is defined."""


@dataclass(frozen=True, slots=True)
class Input:
    """Something the plan was made from: its role, where it was, and the SHA-256 of its bytes."""

    role: str
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """A figure the plan predicts, recomputed by `treadle verify`."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file of the plan folder: path relative to the folder, and the SHA-256 of its bytes."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan. `id` is derived from kind, inputs and options; `seal` is the digest of everything else."""

    kind: str
    inputs: tuple[Input, ...]
    options: dict[str, Any]
    versions: dict[str, str]
    body: Any
    certificates: tuple[Certificate, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    artifacts: tuple[Artifact, ...] = ()
    parts: tuple[str, ...] = ()
    id: str = ""
    seal: str = ""
    format: str = field(default=FORMAT)

    def __post_init__(self) -> None:
        for what, names in (
            ("input", [f"{item.role} {item.path}" for item in self.inputs]),
            ("artifact", [item.path for item in self.artifacts]),
            ("part", list(self.parts)),
        ):
            if len(set(names)) != len(names):
                raise InvalidValue(message=f"the plan names an {what} twice")

    def sealed(self) -> Plan:
        """Return the plan with its id and seal computed."""
        identified = replace(self, id=self.expected_id(), seal="")
        return replace(identified, seal=identified.expected_seal())

    def expected_id(self) -> str:
        """Return the id that kind, inputs and options give."""
        return digest({"kind": self.kind, "inputs": encode(self.inputs), "options": encode(self.options)})[:16]

    def expected_seal(self) -> str:
        """Return the SHA-256 of the plan's canonical JSON with an empty seal."""
        return digest(to_data(replace(self, seal="")))


def digest(data: object) -> str:
    """Return the SHA-256 of JSON data in canonical form (sorted keys, no blanks)."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()).hexdigest()


def body_type(kind: str) -> type[Any]:
    """Return the body type of a kind of plan; raises UnknownName."""
    if kind not in BODIES:
        raise UnknownName(kind="kind of plan", name=kind, expected=f"one of {', '.join(BODIES)}")
    module, _, name = BODIES[kind].partition(":")
    found: type[Any] = getattr(import_module(module), name)
    return found


def to_data(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON data, format first."""
    data = encode(plan)
    return {"format": plan.format, **data}


def to_text(plan: Plan) -> str:
    """Return the bytes of `plan.json` as text."""
    return json.dumps(to_data(plan), indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def from_data(data: object, file: str) -> Plan:
    """Build a plan from JSON data; raises coded errors with the path inside `file`."""
    if not isinstance(data, dict) or not isinstance(data.get("format"), str):
        raise NotAPlan(path=file, reason="no `format` field")
    if data["format"] != FORMAT:
        raise UnsupportedVersion(place=Place(file, path="format"), found=data["format"], expected=f"`{FORMAT}`")
    locate = file_locator(file)
    plan = decode(Plan, data, locate)
    body = decode(body_type(plan.kind), plan.body, lambda path: locate(("body", *path)))
    return replace(plan, body=body)


def load(path: Path) -> Plan:
    """Read a plan from a plan folder or a plan.json; raises UnreadableFile, NotAPlan, MalformedText, ..."""
    file = path / "plan.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise NotAPlan(path=str(path), reason="no plan.json in it")
    return from_data(parse_json(read_text(file), str(file)), str(file))


def read_text(file: Path) -> str:
    """Return a file's text; raises UnreadableFile (missing, a folder, no permission, not UTF-8)."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not UTF-8 text"
        raise UnreadableFile(path=str(file), reason=reason) from None


def parse_json(text: str, file: str) -> Any:
    """Parse JSON; raises MalformedText with line, column and caret. NaN and infinities are refused."""

    def refuse(word: str) -> float:
        raise MalformedText(place=Place(file), message=f"`{word}` is not a JSON number")

    try:
        return json.loads(text, parse_constant=refuse, parse_float=_finite)
    except json.JSONDecodeError as error:
        line = text.splitlines()[error.lineno - 1] if text.splitlines()[error.lineno - 1 :] else ""
        place = Place(file, error.lineno, min(error.colno, 200), text=line[:200])
        raise MalformedText(
            place=place, message=f"not JSON: {error.msg}", expected="a complete JSON document"
        ) from None
    except (RecursionError, ValueError) as error:
        raise MalformedText(place=Place(file), message=f"not JSON: {error}") from None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"`{text}` is too large for a number")
    return value


def input_from(role: str, path: Path) -> Input:
    """Return the record of an input file; raises UnreadableFile."""
    return Input(role, path.name, hashlib.sha256(read_bytes(path)).hexdigest())


def read_bytes(path: Path) -> bytes:
    """Return a file's bytes; raises UnreadableFile."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnreadableFile(path=str(path), reason=error.strerror or str(error)) from None


def figures(plan: Plan) -> Mapping[str, Prediction]:
    """Return the plan's predictions by name."""
    return {prediction.name: prediction for prediction in plan.predictions}
