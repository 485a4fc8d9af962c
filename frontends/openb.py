"""The openb cluster lists (Alibaba GPU trace 2023): NODES.csv and PODS.csv as a cluster with nothing placed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from treadle.ir.cluster.cluster import Cluster, DeviceRequest, Devices, Node, Pod, Shape
from treadle.ir.cluster.errors import BadQuantity, NotACluster
from treadle.ir.cluster.labels import Operator, Requirement
from treadle.ir.diagnostics import Place
from treadle.ir.errors import MalformedText, MissingField
from treadle.ir.plan import read_text

_MODEL = "gpu-model"
_DEVICE_SLOTS = 1000


def load_openb(nodes: Path, pods: Path) -> Cluster:
    """Read the two lists; raises UnreadableFile, MalformedText, MissingField, BadQuantity, NotACluster."""
    shapes: dict[tuple[int, int, int, int, str], int] = {}
    listed: list[Pod] = []
    for line, row in _rows(pods, ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec")):
        place = Place(str(pods), line)
        cpu, memory, count, milli = (
            _whole(row, field, place) for field in ("cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
        )
        key = (cpu, memory, count, milli if count else 0, row["gpu_spec"] or "")
        listed.append(Pod(row["name"], shapes.setdefault(key, len(shapes))))
    described = tuple(_shape(index, *key) for key, index in shapes.items())
    machines = tuple(
        _node(row, Place(str(nodes), line))
        for line, row in _rows(nodes, ("sn", "cpu_milli", "memory_mib", "gpu", "model"))
    )
    if not machines:
        raise NotACluster(place=Place(str(nodes)), reason="it lists no node", hint="one node per row, below the header")
    return Cluster(machines, described, tuple(listed))


def _shape(index: int, cpu: int, memory: int, count: int, milli: int, models: str) -> Shape:
    selector = (Requirement(_MODEL, Operator.IN, tuple(models.split("|"))),) if models else ()
    device = DeviceRequest(milli if count == 1 else _DEVICE_SLOTS, count) if count else None
    return Shape(f"shape-{index:03d}", {"cpu": cpu, "memory": memory << 20}, selector=selector, device=device)


def _node(row: dict[str, str], place: Place) -> Node:
    count = _whole(row, "gpu", place)
    capacity = {"cpu": _whole(row, "cpu_milli", place), "memory": _whole(row, "memory_mib", place) << 20}
    devices = Devices(count, _DEVICE_SLOTS, row["model"]) if count else None
    return Node(row["sn"], capacity, {_MODEL: row["model"]} if row["model"] else {}, devices=devices)


def _rows(path: Path, fields: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(read_text(path)))
    missing = [field for field in fields if field not in (reader.fieldnames or [])]
    if missing:
        raise MissingField(
            place=Place(str(path), 1), field=missing[0], expected=f"the columns {', '.join(fields)}",
            hint="the list of nodes comes first, then that of pods",
        )  # fmt: skip
    rows: list[tuple[int, dict[str, str]]] = []
    for row in reader:
        if any(row[field] is None for field in fields):
            raise MalformedText(
                place=Place(str(path), reader.line_num), message="a row with too few columns",
                expected=f"the {len(reader.fieldnames or [])} columns of the header",
            )  # fmt: skip
        rows.append((reader.line_num, row))
    return rows


def _whole(row: dict[str, str], field: str, place: Place) -> int:
    text = row[field].strip() or "0"
    if not text.isdecimal():
        raise BadQuantity(
            place=place, found=text, expected=f"a whole number in `{field}`", hint="see the column's unit"
        )
    return int(text)
