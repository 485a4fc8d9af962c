"""`training.toml` -> a training problem.

    model = "config.json"            # or "model.pt2", "model.py:build": a torch.export program

    [training]
    global_batch    = 1024
    sequence_tokens = 8192
    precision       = "bf16"
    lengths         = "lengths.toml"  # a batch's sequences, to be grouped on the plan

    [cluster]
    gpu     = "h100"
    nodes   = 64
    network = "50GB/s"

    [search]
    tensor = [1, 2, 4, 8]

Paths are relative to the specification. `[[cluster.measured]]` names nccl-tests output that replaces nominal links.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from pathlib import Path

from pydantic import Field

from treadle.costmodels.training_machine import training_gpu
from treadle.frontends.exported_model import is_exported, read_exported
from treadle.frontends.hf import load_model
from treadle.frontends.located import toml_place
from treadle.frontends.sequence_lengths import read_lengths
from treadle.frontends.toml_files import Table, read_toml
from treadle.frontends.training_model import training_model
from treadle.frontends.training_nccl import read_curve
from treadle.ir.diagnostics import Place, TreadleError
from treadle.ir.errors import WrongType
from treadle.ir.training.cluster import ClusterTopology, DisconnectedTopology, NodeGroup
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.spec import SearchSpace, TrainingSpec
from treadle.ir.units import parse_quantity


class BatchNotDivisible(TreadleError):
    """A global batch that no allowed number of data ranks divides."""

    code = "TRD152"
    template = "global batch {batch} is not a multiple of the {ranks} data ranks that the search allows"
    hint = "the nearest batches are {below} and {above}"


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
    connections: list[list[int]] = Field(default_factory=list[list[int]])
    measured: list[MeasuredTable] = Field(default_factory=list[MeasuredTable])


class JobTable(Table):
    """The training job."""

    global_batch: int = Field(ge=1, le=10**9)
    sequence_tokens: int = Field(ge=1, le=10**8)
    precision: str = "bf16"
    gradient_bytes: int = 4
    optimizer_bytes: int = Field(default=12, ge=0, le=64)
    overlap_gradients: bool = True
    fused_attention: bool = True
    fused_loss: bool = False
    early_stop: bool = False
    dropout: bool = False
    sequence_parallel: bool = True
    memory_reserve: float = 0.06
    lengths: str | None = None


class SearchTable(Table):
    """Which values are allowed; what is left out is free."""

    data: list[int] = Field(default_factory=list[int])
    tensor: list[int] = Field(default_factory=list[int])
    context: list[int] = Field(default_factory=list[int])
    pipeline: list[int] = Field(default_factory=list[int])
    virtual: list[int] = Field(default_factory=list[int])
    expert: list[int] = Field(default_factory=list[int])
    expert_tensor: list[int] = Field(default_factory=lambda: [1])
    micro_batch: list[int] = Field(default_factory=list[int])
    zero: list[int] | None = None
    recompute: list[str] | None = None
    order: list[str] | None = None
    schedule: list[str] | None = None
    sharding: list[str] | None = None
    context_mode: list[str] | None = None
    offload: list[str] | None = None
    overlap_tensor: list[bool] | None = None
    trainer: str | None = None
    most_virtual: int = Field(default=8, ge=1, le=64)
    most_micro_batch: int = Field(default=64, ge=1)
    tensor_inside_domain: bool = True
    most_memory: str | None = None


class TrainingFile(Table):
    """The document."""

    model: str
    training: JobTable
    cluster: ClusterTable
    search: SearchTable = Field(default_factory=SearchTable)


@dataclass(frozen=True, slots=True)
class TrainingProblem:
    """A resolved specification, and the files it was made from."""

    model: TrainingModel
    cluster: ClusterTopology
    spec: TrainingSpec
    files: tuple[tuple[str, Path], ...]
    lengths: Path | None = None
    """Sequence lengths of a batch to group: a list, a table or a distribution."""


def load_training(path: Path) -> TrainingProblem:
    """Read a specification with everything it points at.

    Raises:
        UnknownTrainingGpu, BatchNotDivisible, DisconnectedTopology, NotNcclTests, WrongUnit, and the errors of TOML
        files and model configurations; each with its place.
    """
    document, text = read_toml(TrainingFile, path)

    def placed(error: TreadleError, *steps: str) -> TreadleError:
        error.place = error.place or toml_place(text, str(path), steps)
        return error

    try:
        cluster = _cluster(document.cluster, path, text)
    except TreadleError as error:
        raise placed(error, "cluster") from None
    try:
        spec = _spec(document, toml_place(text, str(path), ("search", "most_memory")))
    except TreadleError as error:
        raise placed(error, "training") from None
    _require_divisible(spec, cluster, placed)
    model, config = _model(document.model, path.parent)
    measured = tuple(("nccl-tests", path.parent / item.file) for item in document.cluster.measured)
    lengths = path.parent / document.training.lengths if document.training.lengths else None
    if lengths:
        read_lengths(lengths)  # a file that cannot be read is refused before the search
    grouped = (("lengths", lengths),) if lengths else ()
    return TrainingProblem(model, cluster, spec, (("spec", path), ("model", config), *measured, *grouped), lengths)


def _model(name: str, folder: Path) -> tuple[TrainingModel, Path]:
    """Read a model: a configuration, or a program of torch.export (`FILE.pt2`, `FILE.py:NAME`)."""
    if is_exported(name):
        return read_exported(name, folder)
    config = folder / name
    model = training_model(load_model(config))
    return model, config / "config.json" if config.is_dir() else config


def _cluster(table: ClusterTable, path: Path, text: str) -> ClusterTopology:
    groups = list(table.groups)
    if table.gpu is not None and table.nodes is not None:
        groups.insert(0, GroupTable(gpu=table.gpu, nodes=table.nodes, gpus_per_node=table.gpus_per_node))
    for group in groups:
        _require_known(group.gpu, path, text)
    nodes = [
        NodeGroup(group.gpu, group.nodes, group.gpus_per_node or training_gpu(group.gpu).gpus_per_node)
        for group in groups
    ]

    def bandwidth(name: str, value: str | None) -> float:
        place = toml_place(text, str(path), ("cluster", name))
        return float(parse_quantity(value, "bandwidth", place)) / 1e9 if value is not None else 0.0

    network = bandwidth("network", table.network)
    if table.network is not None and network == 0 and sum(group.nodes for group in nodes) > 1:
        raise DisconnectedTopology(
            place=toml_place(text, str(path), ("cluster", "network")),
            nodes=sum(group.nodes for group in nodes),
            reason="the network has no bandwidth",
        )
    curves = tuple(read_curve(path.parent / item.file, item.operation, item.nodes) for item in table.measured)
    host = toml_place(text, str(path), ("cluster", "host_memory"))
    memory = float(parse_quantity(table.host_memory, "memory", host)) / 1e9 if table.host_memory is not None else 0.0
    links, host_links = bandwidth("links", table.links), bandwidth("host_links", table.host_links)
    _require_connected(table, nodes, toml_place(text, str(path), ("cluster", "connections")))
    return ClusterTopology(
        tuple(nodes), network, links, table.domain_gpus, curves, True, memory, host_links, table.contention
    )


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
        raise


def _require_connected(table: ClusterTable, nodes: list[NodeGroup], place: Place) -> None:
    """Refuse pairs of nodes that leave a part of the cluster on its own; no pairs mean that all are joined."""
    count = sum(group.nodes for group in nodes)
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
            expected = f"pairs of nodes from 0 to {count - 1}"
            raise WrongType(
                place=place, field="connections", found=str(pair), reason="no pair of nodes", expected=expected
            )
        roots[root(pair[0])] = root(pair[1])
    if apart := [number for number in range(count) if root(number) != root(0)]:
        reason = f"no connection joins node {apart[0]} to node 0"
        raise DisconnectedTopology(
            place=place, nodes=count, reason=reason, hint=f"add [0, {apart[0]}] to `connections`"
        )


def _spec(document: TrainingFile, limit: Place) -> TrainingSpec:
    from treadle.ir.codec import decode, file_locator

    given = ((name, value) for name, value in document.search if value is not None)
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in given}
    if "most_memory" in fields:
        fields["most_memory"] = int(parse_quantity(str(fields["most_memory"]), "memory", limit))
    search = decode(SearchSpace, fields, file_locator("search"))
    job = {name: value for name, value in document.training if name != "lengths"}
    return TrainingSpec(**job, search=search)


def _require_divisible(spec: TrainingSpec, cluster: ClusterTopology, placed: Callable[..., TreadleError]) -> None:
    """Refuse a batch that no allowed data degree divides, naming the nearest that do."""
    allowed = spec.search.data or (1,)
    if any(spec.global_batch % ranks == 0 for ranks in allowed):
        return
    common = allowed[0]
    for ranks in allowed[1:]:
        common = gcd(common, ranks)
    ranks = min(allowed)
    below = spec.global_batch // ranks * ranks
    raise placed(
        BatchNotDivisible(
            batch=spec.global_batch, ranks=" or ".join(map(str, allowed)), below=max(ranks, below), above=below + ranks
        ),
        "training",
        "global_batch",
    )
