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

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field

from treadle.frontends.exported_model import is_exported, read_exported
from treadle.frontends.hf import load_model
from treadle.frontends.located import toml_place
from treadle.frontends.sequence_lengths import read_lengths
from treadle.frontends.toml_files import Table, read_toml
from treadle.frontends.training_cluster import ClusterTable, read_cluster
from treadle.frontends.training_model import training_model
from treadle.ir.codec import Locator, decode
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import WrongType
from treadle.ir.training.batches import nearest_batches
from treadle.ir.training.check import check_tensor
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.space import divisors
from treadle.ir.training.spec import SearchSpace, TrainingSpec
from treadle.ir.units import parse_quantity


class BatchNotDivisible(TreadleError):
    """A global batch that no allowed data ranks, microbatches and schedules split."""

    code = "TRD152"
    template = "global batch {batch} does not split: {gpus} GPUs and [search] leave {ranks} data ranks{each}"
    hint = "the nearest {nearest}"


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
        cluster = read_cluster(document.cluster, path, text)
    except TreadleError as error:
        raise placed(error, "cluster") from None
    try:
        spec = _spec(document, lambda steps: toml_place(text, str(path), ("search", *steps[:1])))
    except TreadleError as error:
        named = tuple(name for name in JobTable.model_fields if name in str(error))
        raise placed(error, "training", *named[:1]) from None
    _require_fitting(spec, cluster, placed)
    model, config = _model(document.model, path.parent)
    _require_splitting(model, cluster, spec, placed)
    _require_divisible(model, cluster, spec, placed)
    measured = tuple(("nccl-tests", path.parent / item.file) for item in document.cluster.measured)
    lengths = path.parent / document.training.lengths if document.training.lengths else None
    if lengths:
        spec = replace(spec, lengths=read_lengths(lengths))
    grouped = (("lengths", lengths),) if lengths else ()
    return TrainingProblem(model, cluster, spec, (("spec", path), ("model", config), *measured, *grouped), lengths)


def _model(name: str, folder: Path) -> tuple[TrainingModel, Path]:
    """Read a model: a configuration, or a program of torch.export (`FILE.pt2`, `FILE.py:NAME`)."""
    if is_exported(name):
        return read_exported(name, folder)
    config = folder / name
    model = training_model(load_model(config))
    return model, config / "config.json" if config.is_dir() else config


def _spec(document: TrainingFile, locate: Locator) -> TrainingSpec:

    given = ((name, value) for name, value in document.search if value is not None)
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in given}
    if "most_memory" in fields:
        fields["most_memory"] = int(parse_quantity(str(fields["most_memory"]), "memory", locate(("most_memory",))))
    search = decode(SearchSpace, fields, locate)
    job = {name: value for name, value in document.training if name != "lengths"}
    return TrainingSpec(**job, search=search)


def _require_fitting(spec: TrainingSpec, cluster: ClusterTopology, placed: Callable[..., TreadleError]) -> None:
    """Refuse a list of degrees of which none divides the GPUs, naming the nearest that do."""
    for name in ("data", "tensor", "context", "pipeline"):
        reason, expected = f"none divides the {cluster.gpus} GPUs", f"divisors of {cluster.gpus}"
        _require_some(spec, name, divisors(cluster.gpus), reason, expected, placed)


def _require_splitting(
    model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec, placed: Callable[..., TreadleError]
) -> None:
    """Refuse tensor, expert and expert-tensor degrees of which none splits the model, naming the nearest that do."""
    inside = cluster.domain if spec.search.tensor_inside_domain else cluster.gpus
    tensors = tuple(
        degree
        for degree in divisors(cluster.gpus)
        if inside % degree == 0 and not any(check_tensor(kind, degree) for kind in model.kinds)
    )
    within = (
        f" among {inside} GPUs with fast links, which `tensor_inside_domain = false` would lift"
        if spec.search.tensor_inside_domain
        else ""
    )
    _require_some(spec, "tensor", tensors, f"none splits {model.name}{within}", _either(tensors), placed)
    counts = [kind.experts.count for kind in model.kinds if kind.experts]
    reason = f"none splits the {counts[0]} experts" if counts else f"{model.name} has no experts"
    splits = divisors(counts[0]) if counts else (1,)
    _require_some(spec, "expert", splits, reason, _either(splits), placed)
    sides = tuple(sorted({side for degree in tensors for side in divisors(degree)})) if counts else (1,)
    reason = "none divides a tensor degree" if counts else f"{model.name} has no experts"
    _require_some(spec, "expert_tensor", sides, reason, _either(sides), placed)


def _require_some(
    spec: TrainingSpec,
    name: str,
    legal: tuple[int, ...],
    reason: str,
    expected: str,
    placed: Callable[..., TreadleError],
) -> None:
    """Refuse a list of degrees without a legal one, naming the nearest legal to each of its values."""
    values = getattr(spec.search, name)
    if not values or set(values) & set(legal):
        return
    near = {side for value in values for side in _around(value, legal)}
    hint = f"nearest legal: {_either(tuple(sorted(near)))}"
    error = WrongType(field=f"search.{name}", found=str(list(values)), reason=reason, expected=expected, hint=hint)
    raise placed(error, "search", name)


def _around(value: int, legal: tuple[int, ...]) -> set[int]:
    """Return the greatest legal number below a value and the least above it, as far as there are such."""
    return {
        max((item for item in legal if item < value), default=legal[0]),
        next((item for item in legal if item > value), legal[-1]),
    }


def _require_divisible(
    model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec, placed: Callable[..., TreadleError]
) -> None:
    """Refuse a batch that no allowed degrees split, naming the nearest that some do."""
    found = nearest_batches(model, cluster, spec)
    if found is None:
        return
    near = [str(batch) for batch in (found.below, found.above) if batch]
    error = BatchNotDivisible(
        batch=spec.global_batch,
        gpus=cluster.gpus,
        ranks=_either(found.data_ranks),
        each=f", microbatches of {_either(spec.search.micro_batch)}" if spec.search.micro_batch else "",
        nearest=f"batches are {near[0]} and {near[1]}" if len(near) == 2 else f"batch is {near[0]}",
        expected="a multiple of data ranks x microbatch, with no fewer microbatches than pipeline stages",
    )
    raise placed(error, "training", "global_batch")


def _either(values: tuple[int, ...], most: int = 6) -> str:
    """Return numbers as words: `1, 2 or 4`."""
    shown = [str(value) for value in values[:most]] + (["more"] if len(values) > most else [])
    return " or ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))
