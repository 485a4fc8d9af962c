"""The reader of HLS loops: semantics of the format on samples written by hand, and every way a file can be wrong."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks import hls_loops
from treadle.frontends.hls import (
    DeclarationRefused,
    NoOperations,
    RepeatedName,
    UnknownNode,
    UnknownResource,
    find_loops,
    read_loop,
    resources_beside,
)
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import MalformedText, MissingField, UnreadableFile, WrongType
from treadle.ir.tile.loop import Dependence, Operation, Unit, ZeroDistanceCycle

RESOURCES = """<?xml version="1.0"?>
<ModelInformation>
  <Resources>
    <Resource blockingTime="1" latency="4" limit="1" name="Product" physicalDelay="1.5"><Cost demand="3"/></Resource>
    <Resource blockingTime="0" latency="2" limit="2" name="Sum" physicalDelay="0.0"/>
    <Resource blockingTime="3" latency="1" limit="-1" name="Constant" physicalDelay="0.0"/>
    <Resource blockingTime="1" latency="1" limit="1" name="Unused" physicalDelay="0.0"/>
  </Resources>
</ModelInformation>
"""
GRAPH = """<?xml version="1.0"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <graph edgedefault="directed">
    <node id="1"><data key="name">c</data><data key="uses_resource">Constant</data></node>
    <node id="2"><data key="name">p</data><data key="uses_resource">Product</data></node>
    <node id="3"><data key="name">s</data><data key="uses_resource">Sum</data></node>
    <node id="4"><data key="name">s</data><data key="uses_resource">Sum</data></node>
    <edge id="a" source="1" target="2"><data key="delay">0</data><data key="distance">0</data></edge>
    <edge id="b" source="2" target="3"><data key="delay">1</data><data key="distance">0</data></edge>
    <edge id="c" source="3" target="4"><data key="delay">-1</data><data key="distance">0</data></edge>
    <edge id="d" source="4" target="3"><data key="delay">0</data><data key="distance">2</data></edge>
  </graph>
</graphml>
"""


def written(folder: Path, graph: str = GRAPH, resources: str = RESOURCES) -> tuple[Path, Path]:
    graphml, model = folder / "loop.graphml", folder / "loop_RM.xml"
    graphml.write_text(graph)
    model.write_text(resources)
    return graphml, model


def test_semantics(tmp_path: Path) -> None:
    loop = read_loop(*written(tmp_path))
    assert loop.name == "loop"
    assert loop.units == (Unit("Product", 1), Unit("Sum", 2), Unit("Constant", None))
    assert loop.operations == (
        Operation("c", "Constant", 3, 1),
        Operation("p", "Product", 1, 4),
        # A limited resource is used for at least the slot the operation starts in, and names are made unique.
        Operation("s#3", "Sum", 1, 2),
        Operation("s#4", "Sum", 1, 2),
    )
    assert loop.dependences == (
        Dependence("c", "p", 1, 0),
        Dependence("p", "s#3", 5, 0),
        Dependence("s#3", "s#4", 1, 0),
        Dependence("s#4", "s#3", 2, 2),
    )


def test_resource_models_are_found_under_both_names(tmp_path: Path) -> None:
    graphml, model = written(tmp_path)
    (tmp_path / "alone.graphml").write_text(GRAPH)
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "other.graphml").write_text(GRAPH)
    (inner / "otherRM.xml").write_text(RESOURCES)
    assert find_loops(tmp_path) == [(inner / "other.graphml", inner / "otherRM.xml"), (graphml, model)]
    with pytest.raises(UnreadableFile):
        resources_beside(tmp_path / "alone.graphml")


@pytest.mark.parametrize(
    ("old", "new", "error", "line", "words"),
    [
        ("<?xml version", "<?xmlversion", MalformedText, 1, "not XML"),
        ("</graphml>", "", MalformedText, 0, "not XML"),
        ("<graphml xmlns", '<!DOCTYPE graphml [<!ENTITY a "b">]><graphml xmlns', DeclarationRefused, 2, "declaration"),
        ('<data key="uses_resource">Product</data>', "", MissingField, 5, "`uses_resource` is missing"),
        (">Product<", ">Prodduct<", UnknownResource, 5, "`Prodduct`"),
        ('<node id="2">', "<node>", MissingField, 5, "`id` is missing"),
        ('<node id="3">', '<node id="2">', RepeatedName, 6, "node `2`"),
        ('source="2"', 'source="9"', UnknownNode, 9, "unknown node `9`"),
        ('target="3"', 'goal="3"', MissingField, 9, "`target` is missing"),
        ('<data key="delay">1</data>', "", MissingField, 9, "`delay` is missing"),
        ('<data key="delay">1</data>', '<data key="delay">one</data>', WrongType, 9, "`one`"),
        ('<data key="delay">1</data>', '<data key="delay">1.5</data>', WrongType, 9, "`1.5`"),
        ('<data key="delay">1</data>', '<data key="delay">1000000000000</data>', WrongType, 9, "`delay`"),
        ('<data key="distance">2</data>', '<data key="distance">-2</data>', WrongType, 11, "`-2`"),
        ('<data key="distance">2</data>', '<data key="distance">0</data>', ZeroDistanceCycle, 11, "`s#4`"),
    ],
)
def test_wrong_graphs(tmp_path: Path, old: str, new: str, error: type[TreadleError], line: int, words: str) -> None:
    assert old in GRAPH
    with pytest.raises(error) as caught:
        read_loop(*written(tmp_path, GRAPH.replace(old, new, 1)))
    assert words in str(caught.value)
    assert caught.value.place is not None
    assert caught.value.place.file.endswith("loop.graphml")
    assert line in (0, caught.value.place.line)


def test_no_nodes(tmp_path: Path) -> None:
    with pytest.raises(NoOperations):
        read_loop(*written(tmp_path, "<graphml><graph/></graphml>"))


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ('limit="1"', 'limit="0"', WrongType, "nothing could run"),
        ('limit="1"', 'limit="-2"', WrongType, "`limit`"),
        ('latency="4"', 'latency="-4"', WrongType, "`latency`"),
        ('latency="4"', "", MissingField, "`latency` is missing"),
        ('blockingTime="1"', 'blockingTime="x"', WrongType, "`blockingTime`"),
        ('name="Product"', "", MissingField, "`name` is missing"),
        ('name="Sum"', 'name="Product"', RepeatedName, "resource `Product`"),
        ("<ModelInformation>", "<!DOCTYPE x><ModelInformation>", DeclarationRefused, "declaration"),
        ("Resource ", "Source ", MalformedText, "not XML"),
    ],
)
def test_wrong_resources(tmp_path: Path, old: str, new: str, error: type[TreadleError], words: str) -> None:
    with pytest.raises(error) as caught:
        read_loop(*written(tmp_path, resources=RESOURCES.replace(old, new, 1)))
    assert words in str(caught.value)
    assert caught.value.place is not None
    assert caught.value.place.file.endswith("loop_RM.xml")


def test_missing_and_binary_files(tmp_path: Path) -> None:
    graphml, model = written(tmp_path)
    with pytest.raises(UnreadableFile):
        read_loop(tmp_path / "none.graphml", model)
    graphml.write_bytes(b"\x00\xff\xfe" * 20)
    with pytest.raises(MalformedText):
        read_loop(graphml, model)
    model.write_text("<Other/>")
    with pytest.raises(MissingField):
        read_loop(graphml, model)


def test_mutated_files_never_give_a_traceback(tmp_path: Path) -> None:
    chance = random.Random(5)
    read, places = 0, list[object]()
    for _ in range(1500):
        text = bytearray(GRAPH.encode())
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(text))
            match chance.randrange(3):
                case 0:
                    text[at] = chance.randrange(256)
                case 1:
                    del text[at : at + chance.randrange(1, 40)]
                case _:
                    text[at:at] = text[chance.randrange(len(text)) :][: chance.randrange(1, 40)]
        graphml, model = written(tmp_path)
        graphml.write_bytes(bytes(text))
        try:
            read_loop(graphml, model)
            read += 1
        except TreadleError as error:
            places.append(error.place)
    assert None not in places
    assert read > 5
    assert len(places) > 100


def test_the_benchmark_runs_on_any_folder(tmp_path: Path) -> None:
    written(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    written(broken, GRAPH.replace('source="2"', 'source="9"'))
    rows = hls_loops.run(find_loops(tmp_path), 1.0)
    figures = hls_loops.summarize(rows, 1.0)
    assert (figures["loops"], figures["not_read"], figures["interval_proven"]) == (2, 1, 1)
    assert (figures["exhaustive_compared"], figures["exhaustive_differs"], figures["with_findings"]) == (1, 0, 0)
    assert (rows[1]["ii"], rows[1]["length"]) == (2, 9)
