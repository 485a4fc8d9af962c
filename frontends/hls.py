"""Loops of high-level synthesis: a dependence graph (GraphML) and a resource model (XML), as HatScheT writes them.

A node names the resource it uses; an edge carries `delay` and `distance`; a resource has a `latency`, a `limit`
(-1 is unlimited) and a `blockingTime`. A schedule is legal when
start(target) - start(source) >= latency(resource of source) + delay - II * distance, and no modulo slot of a limited
resource is used more than `limit` times. A limited resource is used for at least the slot its operation starts in, also
with `blockingTime` 0. Physical delays and costs do not matter for the schedule and are skipped.

Files with a document type declaration are refused, so no entity is ever expanded.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from xml.parsers import expat

from treadle.ir.diagnostics import Place, TreadleError, closest
from treadle.ir.errors import MalformedText, MissingField, UnreadableFile, WrongType
from treadle.ir.plan import read_bytes
from treadle.ir.tile.loop import Dependence, Loop, Operation, Unit, ZeroDistanceCycle

_INTEGER = re.compile(r"[+-]?[0-9]{1,12}")
MAX_CYCLES = 10**9
"""Largest latency, delay, distance and blocking time that is believed."""


class DeclarationRefused(TreadleError):
    """An XML file with a document type declaration (the door to entity expansion)."""

    code = "TRD111"
    template = "document type declarations are not read"
    hint = "remove the <!DOCTYPE ...> from the file"


class UnknownResource(TreadleError):
    """A node that uses a resource the resource model does not have."""

    code = "TRD112"
    template = "node `{node}` uses the resource `{resource}`, which the resource model does not have"


class UnknownNode(TreadleError):
    """An edge from or to a node that the graph does not have."""

    code = "TRD113"
    template = "edge `{source}` -> `{target}` names the unknown node `{node}`"
    hint = "add the node, or remove the edge"


class RepeatedName(TreadleError):
    """Two nodes with one id, or two resources with one name."""

    code = "TRD114"
    template = "{kind} `{name}` is there twice"
    hint = "ids and names are unique; rename one of them"


class NoOperations(TreadleError):
    """A dependence graph without nodes."""

    code = "TRD115"
    template = "the graph has no nodes"
    hint = "is this a GraphML file with <node> elements?"


@dataclass(slots=True)
class _Element:
    tag: str
    attributes: dict[str, str]
    place: Place
    data: dict[str, tuple[str, Place]] = field(default_factory=dict[str, tuple[str, Place]])


def read_loop(graphml: Path, resources: Path) -> Loop:
    """Read one loop.

    Args:
        graphml: the dependence graph.
        resources: the resource model.

    Returns: the loop, in the order of the file; named after the graph's file.

    Raises:
        UnreadableFile, MalformedText, DeclarationRefused, MissingField, WrongType, UnknownResource, UnknownNode,
        RepeatedName, NoOperations, ZeroDistanceCycle: with file, line and column.
    """
    models = _resources(_elements(resources, {"Resource"}), str(resources))
    elements = _elements(graphml, {"node", "edge"})
    nodes = _nodes(elements, models)
    if not nodes:
        raise NoOperations(place=Place(str(graphml)))
    operations = tuple(operation for operation, _ in nodes.values())
    used = {operation.unit for operation in operations}
    try:
        return Loop(
            name=graphml.stem,
            units=tuple(unit for unit, _ in models.values() if unit.name in used),
            operations=operations,
            dependences=_dependences(elements, nodes),
        )
    except ZeroDistanceCycle as error:
        error.place = _closing(elements, nodes, str(error.fields["cycle"])) or Place(str(graphml))
        raise
    except TreadleError as error:
        error.place = error.place or Place(str(graphml))
        raise


def _closing(elements: list[_Element], nodes: dict[str, tuple[Operation, _Timing]], cycle: str) -> Place | None:
    """Return where the last edge stands that a cycle of distance 0 (`a` -> `b` -> `a`) goes along."""
    names = cycle.strip("`").split("` -> `")
    steps = set(pairwise(names))
    edges = [element for element in elements if element.tag == "edge" and int(_datum(element, "distance")[0]) == 0]
    found = [
        edge.place
        for edge in edges
        if (nodes[edge.attributes["source"]][0].name, nodes[edge.attributes["target"]][0].name) in steps
    ]
    return found[-1] if found else None


def resources_beside(graphml: Path) -> Path:
    """Return the resource model that belongs to a graph by name; raises UnreadableFile when either is missing."""
    if not graphml.is_file():
        raise UnreadableFile(path=str(graphml), reason="no such file")
    candidates = [graphml.with_name(graphml.stem + ending) for ending in ("_RM.xml", "RM.xml")]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UnreadableFile(
        path=str(candidates[0]), reason="no resource model beside the graph", hint="name it with --resources FILE"
    )


def find_loops(folder: Path) -> list[tuple[Path, Path]]:
    """Return every graph under a folder with its resource model, by path; graphs without one are left out."""
    found: list[tuple[Path, Path]] = []
    for graphml in sorted(folder.rglob("*.graphml")):
        try:
            found.append((graphml, resources_beside(graphml)))
        except UnreadableFile:
            continue
    return found


def _elements(file: Path, wanted: set[str]) -> list[_Element]:
    """Return the wanted elements in order, each with its attributes and the text of its <data> children."""
    text = read_bytes(file)
    lines = text.split(b"\n")
    parser = expat.ParserCreate(namespace_separator="}")
    found: list[_Element] = []
    inside: list[_Element] = []
    key: list[tuple[str, Place, list[str]]] = []

    def here() -> Place:
        shown = lines[parser.CurrentLineNumber - 1][:200].decode("utf-8", "replace")
        return Place(str(file), parser.CurrentLineNumber, min(parser.CurrentColumnNumber + 1, 200), text=shown)

    def start(name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition("}")[2]
        if tag in wanted:
            inside.append(_Element(tag, attributes, here()))
        elif tag == "data" and inside and "key" in attributes:
            key.append((attributes["key"], here(), []))

    def end(name: str) -> None:
        tag = name.rpartition("}")[2]
        if tag in wanted and inside:
            found.append(inside.pop())
        elif tag == "data" and key and inside:
            label, place, words = key.pop()
            inside[-1].data[label] = ("".join(words).strip(), place)

    def characters(words: str) -> None:
        if key:
            key[-1][2].append(words)

    def refuse(*_: object) -> None:
        raise DeclarationRefused(place=here())

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = characters
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise MalformedText(
            place=here(), message=f"not XML: {expat.ErrorString(error.code)}", expected="a complete XML document"
        ) from None
    except (LookupError, ValueError) as error:
        raise MalformedText(place=Place(str(file)), message=f"not XML: {error}") from None
    return found


def _resources(elements: list[_Element], file: str) -> dict[str, tuple[Unit, _Timing]]:
    models: dict[str, tuple[Unit, _Timing]] = {}
    for element in elements:
        name = _attribute(element, "name")
        if name in models:
            raise RepeatedName(place=element.place, kind="resource", name=name)
        limit = _number(element, "limit", _attribute(element, "limit"), element.place, least=-1)
        if limit == 0:
            raise WrongType(
                place=element.place,
                field="limit",
                found="`0`",
                reason="nothing could run",
                expected="-1, or at least 1",
            )
        latency = _number(element, "latency", _attribute(element, "latency"), element.place)
        blocking = _number(element, "blockingTime", _attribute(element, "blockingTime"), element.place)
        unlimited = limit == -1
        models[name] = (
            Unit(name, None if unlimited else limit),
            _Timing(latency, blocking if unlimited else max(1, blocking)),
        )
    if not models:
        raise MissingField(
            place=Place(file), field="Resource", hint="is this a resource model with <Resource> elements?"
        )
    return models


@dataclass(frozen=True, slots=True)
class _Timing:
    latency_cycles: int
    occupancy_cycles: int


def _nodes(elements: list[_Element], models: dict[str, tuple[Unit, _Timing]]) -> dict[str, tuple[Operation, _Timing]]:
    """Return the operations by node id. They take the nodes' names where these are unique."""
    nodes = [element for element in elements if element.tag == "node"]
    titles = Counter(_title(element) for element in nodes)
    found: dict[str, tuple[Operation, _Timing]] = {}
    for element in nodes:
        identity = _attribute(element, "id")
        if identity in found:
            raise RepeatedName(place=element.place, kind="node", name=identity)
        resource, place = _datum(element, "uses_resource")
        if resource not in models:
            raise UnknownResource(
                place=place,
                node=identity,
                resource=resource,
                hint=closest(resource, list(models)) or "add the resource",
            )
        unit, timing = models[resource]
        title = _title(element)
        name = title if titles[title] == 1 and title else f"{title}#{identity}"
        found[identity] = (Operation(name, unit.name, timing.occupancy_cycles, timing.latency_cycles), timing)
    return found


def _title(element: _Element) -> str:
    return element.data.get("name", ("", element.place))[0]


def _dependences(elements: list[_Element], nodes: dict[str, tuple[Operation, _Timing]]) -> tuple[Dependence, ...]:
    found: list[Dependence] = []
    for element in elements:
        if element.tag != "edge":
            continue
        ends = (_attribute(element, "source"), _attribute(element, "target"))
        for end in ends:
            if end not in nodes:
                raise UnknownNode(place=element.place, source=ends[0], target=ends[1], node=end)
        source, timing = nodes[ends[0]]
        target, _ = nodes[ends[1]]
        delay = _number(element, "delay", *_datum(element, "delay"), least=-MAX_CYCLES)
        distance = _number(element, "distance", *_datum(element, "distance"))
        found.append(Dependence(source.name, target.name, timing.latency_cycles + delay, distance))
    return tuple(found)


def _attribute(element: _Element, name: str) -> str:
    if name not in element.attributes:
        raise MissingField(place=element.place, field=name, hint=f"add {name}=... to this <{element.tag}>")
    return element.attributes[name]


def _datum(element: _Element, name: str) -> tuple[str, Place]:
    if name not in element.data:
        raise MissingField(
            place=element.place, field=name, hint=f'add <data key="{name}">...</data> to this <{element.tag}>'
        )
    return element.data[name]


def _number(element: _Element, name: str, text: str, place: Place, least: int = 0) -> int:
    value = int(text) if _INTEGER.fullmatch(text.strip()) else None
    if value is None or not least <= value <= MAX_CYCLES:
        raise WrongType(
            place=place,
            field=name,
            found=f"`{text[:60]}`",
            reason=f"not a whole number of a <{element.tag}>",
            expected=f"an integer from {least} to {MAX_CYCLES}",
        )
    return value
