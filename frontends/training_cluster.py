"""The `[cluster]` of a training specification: groups of nodes, links, and measured collectives."""

from __future__ import annotations

import re
from collections.abc import Callable
from math import lcm
from pathlib import Path

from pydantic import Field

from treadle.costmodels.training_machine import training_gpu, training_gpu_ids
from treadle.frontends.located import toml_place
from treadle.frontends.toml_files import Table
from treadle.frontends.training_nccl import read_curve
from treadle.ir.diagnostics import Place, TreadleError
from treadle.ir.errors import MissingField, UnknownName, WrongType
from treadle.ir.training.cluster import ClusterTopology, Curve, DisconnectedTopology, NodeGroup
from treadle.ir.units import parse_quantity

_MOST_PAIRS = 8
"""Missing connections that a message names."""


class UnclearFabric(TreadleError):
    """Leaf switches and spine that contradict each other, the nodes or the domains."""

    code = "TRD656"
    template = "the cluster's leaf switches are not clear: {reason}"
    hint = "give `rails`, `leaf_nodes` and `spine_oversubscription` as the fabric is wired, or leave them out"


class MeasuredTable(Table):
    """An nccl-tests output file, and over how many domains it ran."""

    file: str
    operation: str
    nodes: int = Field(ge=1, default=1)


class GroupTable(Table):
    """A group of equal nodes."""

    gpu: str
    nodes: int = Field(ge=1, le=1_000_000)
    gpus_per_node: int | None = Field(default=None, ge=1, le=1024)


class ClusterTable(Table):
    """The cluster: one kind of node, or several groups."""

    gpu: str | None = None
    nodes: int | None = Field(default=None, ge=1, le=1_000_000)
    gpus_per_node: int | None = Field(default=None, ge=1, le=1024)
    groups: list[GroupTable] = Field(default_factory=list[GroupTable])
    network: str | None = None
    links: str | None = None
    domain_gpus: int = Field(default=0, ge=0)
    host_memory: str | None = None
    host_links: str | None = None
    contention: float = Field(default=0.0, ge=0, le=1)
    rails: bool = False
    leaf_nodes: int = Field(default=0, ge=0)
    spine_oversubscription: float = Field(default=1.0, ge=1, le=1000)
    connections: list[list[int]] = Field(default_factory=list[list[int]])
    measured: list[MeasuredTable] = Field(default_factory=list[MeasuredTable])


def read_cluster(table: ClusterTable, path: Path, text: str) -> ClusterTopology:
    """Return the cluster of a specification at `path` with this text.

    Raises:
        MissingField, UnknownTrainingGpu, DisconnectedTopology, UnclearFabric, WrongType, WrongUnit, NotNcclTests,
        UnknownName, UnreadableFile: each with its place.
    """

    def place(*steps: str | int) -> Place:
        return toml_place(text, str(path), ("cluster", *steps))

    nodes = _groups(table, path, text)
    count = sum(group.nodes for group in nodes)

    def bandwidth(name: str, value: str | None) -> float:
        rate = float(parse_quantity(value, "bandwidth", place(name))) / 1e9 if value is not None else 0.0
        if value is not None and rate == 0 and name != "network":
            hint = f"leave `{name}` out for the GPU type's own rate"
            raise WrongType(
                place=place(name), field=name, found=f"`{value}`", reason="no bandwidth", expected="above 0", hint=hint
            )
        return rate

    network = bandwidth("network", table.network)
    if table.network is not None and network == 0 and count > 1:
        raise DisconnectedTopology(place=place("network"), nodes=count, reason="the network has no bandwidth")
    curves = _curves(table, path, place)
    host = place("host_memory")
    memory = float(parse_quantity(table.host_memory, "memory", host)) / 1e9 if table.host_memory is not None else 0.0
    links, host_links = bandwidth("links", table.links), bandwidth("host_links", table.host_links)
    _require_connected(table, count, place("connections"))
    _require_fabric(table, nodes, place)
    fabric = table.contention, table.rails, table.leaf_nodes, table.spine_oversubscription
    return ClusterTopology(nodes, network, links, table.domain_gpus, curves, True, memory, host_links, *fabric)


def _require_fabric(table: ClusterTable, groups: tuple[NodeGroup, ...], place: Callable[..., Place]) -> None:
    """Refuse leaf switches that contradict nodes and domains, naming the nearest that fit; raises UnclearFabric."""
    if table.spine_oversubscription > 1 and not (table.rails or table.leaf_nodes):
        raise UnclearFabric(
            place=place("spine_oversubscription"),
            reason="nothing says what crosses the spine",
            expected="`rails = true`, or `leaf_nodes`",
            hint="add `rails = true`, or `leaf_nodes = N` with the nodes that one leaf (a unit, a pod) joins",
        )
    if not (table.rails or table.leaf_nodes):
        return
    key = "rails" if table.rails else "leaf_nodes"
    sizes = sorted({group.gpus_per_node for group in groups})
    if len(sizes) > 1:
        raise UnclearFabric(
            place=place(key),
            reason=f"nodes have {' and '.join(map(str, sizes))} GPUs",
            expected="equally many GPUs in every node",
            hint=f"leave `{key}` out, or plan the groups apart",
        )
    per_node, domain = sizes[0], table.domain_gpus or sizes[0]
    if table.leaf_nodes * per_node % domain:
        step = lcm(domain, per_node) // per_node
        below = table.leaf_nodes // step * step
        near = f"{below} or {below + step}" if below else str(step)
        raise UnclearFabric(
            place=place("leaf_nodes"),
            reason=f"{table.leaf_nodes} nodes of {per_node} GPUs cut domains of {domain}",
            expected=f"a multiple of {step}",
            hint=f"the nearest: leaf_nodes = {near}",
        )


def _groups(table: ClusterTable, path: Path, text: str) -> tuple[NodeGroup, ...]:
    """Return the groups of nodes; raises MissingField, UnknownTrainingGpu."""
    groups = list(table.groups)
    if table.gpu is not None and table.nodes is not None:
        groups.insert(0, GroupTable(gpu=table.gpu, nodes=table.nodes, gpus_per_node=table.gpus_per_node))
    elif not groups or table.gpu is not None or table.nodes is not None:
        absent = "gpu" if table.gpu is None else "nodes"
        example = 'gpu = "h100"' if absent == "gpu" else "nodes = 1"
        raise MissingField(
            place=toml_place(text, str(path), ("cluster",)),
            field=f"cluster.{absent}",
            expected="`gpu` and `nodes`, or [[cluster.groups]] that have them",
            hint=f"add `{example}`",
        )
    for group in groups:
        _require_known(group.gpu, path, text)
    return tuple(
        NodeGroup(group.gpu, group.nodes, group.gpus_per_node or training_gpu(group.gpu).gpus_per_node)
        for group in groups
    )


def _curves(table: ClusterTable, path: Path, place: Callable[..., Place]) -> tuple[Curve, ...]:
    """Read the measured curves; an error that is not inside a file is placed at the line that names what is wrong."""
    curves: list[Curve] = []
    for index, item in enumerate(table.measured):
        try:
            curves.append(read_curve(path.parent / item.file, item.operation, item.nodes))
        except TreadleError as error:
            error.place = error.place or place(
                "measured", index, "operation" if isinstance(error, UnknownName) else "file"
            )
            raise
    return tuple(curves)


def _require_known(gpu: str, path: Path, text: str) -> None:
    """Refuse an unknown GPU type at the line that names it, in whichever group; raises UnknownTrainingGpu."""
    try:
        training_gpu(gpu)
    except TreadleError as error:
        named = re.compile(rf"""^\s*gpu\s*=\s*["']{re.escape(gpu)}["']""")
        for number, line in enumerate(text.splitlines(), start=1):
            if named.match(line):
                error.place = Place(str(path), number, 1 + line.index("gpu"), text=line[:160])
                break
        words = set(re.findall("[a-z0-9]+", gpu.lower()))
        if meant := [name for name in training_gpu_ids() if words.issuperset(name.split("-"))]:
            error.next_step = f"did you mean `{max(meant, key=len)}`?"
        raise


def _require_connected(table: ClusterTable, count: int, place: Place) -> None:
    """Refuse pairs of nodes that leave a part of the cluster on its own; no pairs mean that all are joined."""
    if not table.connections:
        return
    roots = list(range(count))

    def root(number: int) -> int:
        while roots[number] != number:
            roots[number] = roots[roots[number]]
            number = roots[number]
        return number

    for pair in table.connections:
        if len(pair) != 2 or not all(0 <= number < count for number in pair):
            nearest = [min(max(number, 0), count - 1) for number in pair[:2]]
            raise WrongType(
                place=place,
                field="cluster.connections",
                found=str(pair),
                reason=f"not a pair of the {count} nodes",
                expected=f"pairs of nodes from 0 to {count - 1}",
                hint=f"the nearest is {nearest}" if len(set(nearest)) == 2 else "write pairs such as [0, 1]",
            )
        roots[root(pair[0])] = root(pair[1])
    first = {root(number): number for number in reversed(range(count)) if root(number) != root(0)}
    if apart := sorted(first.values()):
        pairs = ", ".join(f"[0, {number}]" for number in apart[:_MOST_PAIRS]) + ", ..." * (len(apart) > _MOST_PAIRS)
        reason = f"no connection joins node {apart[0]} to node 0"
        raise DisconnectedTopology(place=place, nodes=count, reason=reason, hint=f"add {pairs} to `connections`")
