"""`deployment.toml` -> a resolved deployment request.

    model    = "config.json"
    workload = { trace = "conversation.csv", format = "azure-2023", rate = "12/s" }
    slo      = { ttft_p90 = "600ms", tpot_p90 = "30ms" }
    goal     = "fewest-gpus"

    [cluster]
    gpu = "h200"

Paths are relative to the specification. Instead of a trace, `workload` may name `quantiles`: a file, or a table of the
lists `probability`, `prompt_tokens` and `output_tokens`; or `clients`, a file of clients with rates and lengths.
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field

from treadle.costmodels.machines import load_machine, machine_ids
from treadle.frontends.client_mix import load_clients
from treadle.frontends.errors import BadSpecification
from treadle.frontends.located import toml_place
from treadle.frontends.serving_spec import ServingTable, serving_options
from treadle.frontends.toml_files import Table, read_toml
from treadle.frontends.traces import FORMATS, arrival_rate_per_s, length_quantiles, load_trace
from treadle.ir.codec import Path as Steps
from treadle.ir.diagnostics import Place, closest
from treadle.ir.errors import InvalidValue, MissingField, UnknownField, UnknownName, UnreadableFile, WrongType
from treadle.ir.model import STORED_BYTES
from treadle.ir.units import parse_quantity
from treadle.ir.workload import (
    ClusterRequest,
    Deployment,
    Goal,
    LengthQuantiles,
    Metric,
    QuantilePoint,
    ServiceLevel,
    Workload,
)

_LEVEL = re.compile(r"(ttft|tpot|e2e)_p([0-9]{1,3}(?:_[0-9]{1,3})?)")


class QuantilesTable(Table):
    """Length quantiles: three lists of equal length, and where they come from."""

    probability: list[float] = Field(min_length=1, max_length=1000)
    prompt_tokens: list[int] = Field(min_length=1, max_length=1000)
    output_tokens: list[int] = Field(min_length=1, max_length=1000)
    source: str = ""
    licence: str = ""
    date: str = ""
    requests: int = Field(default=0, ge=0)


class WorkloadTable(Table):
    """A trace with its format, quantiles, or a mix of clients; and a rate."""

    trace: str | None = None
    format: str | None = None
    quantiles: str | QuantilesTable | None = None
    clients: str | None = None
    rate: str | None = None


class ClusterTable(Table):
    """Where to serve."""

    gpu: str
    gpus: int | None = Field(default=None, ge=1, le=10**7)
    gpus_per_node: int | None = Field(default=None, ge=1, le=10**4)
    nodes: str | None = None
    namespace: str = ""


class PrecisionTable(Table):
    """Dtypes other than those of the configuration."""

    weights: str = ""
    cache: str = ""


class KernelsTable(Table):
    """What kernels are scheduled for."""

    decode_batch: int = Field(default=64, ge=1, le=10**5)


class DeploymentTable(Table):
    """The whole file."""

    model: str
    workload: WorkloadTable
    cluster: ClusterTable
    name: str = ""
    slo: dict[str, str] = Field(default_factory=dict)
    goal: str = Goal.FEWEST_GPUS.value
    precision: PrecisionTable = PrecisionTable()
    kernels: KernelsTable = KernelsTable()
    serving: ServingTable = ServingTable()


def load_deployment(path: str | Path) -> Deployment:
    """Read a `deployment.toml` and everything it names except the model and the node dump.

    Returns: the request with absolute paths and base units.

    Raises:
        UnreadableFile, MalformedText, UnknownField, MissingField, WrongType, WrongUnit, UnknownName,
        BadSpecification, MalformedTrace, EmptyTrace: with file and line.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "deployment.toml"
    table, text = read_toml(DeploymentTable, file)
    return Resolver(file, text).deployment(table)


class Resolver:
    """Turns the checked table into IR; knows the file for paths and places."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        self.text = text

    def place(self, *steps: str) -> Place:
        """Return where a field stands."""
        return toml_place(self.text, str(self.file), steps)

    def deployment(self, table: DeploymentTable) -> Deployment:
        """Return the whole request."""
        model = self.existing(table.model, "model")
        if model.is_dir():
            model = self.existing(str(Path(table.model) / "config.json"), "model")
        workload = self.workload(table.workload)
        return Deployment(
            table.name or self.file.resolve().parent.name,
            str(model),
            workload,
            self.cluster(table.cluster),
            tuple(self.service_level(name, limit) for name, limit in table.slo.items()),
            Goal(self.one_of(table.goal, [goal.value for goal in Goal], "goal", "goal")),
            self.dtype(table.precision.weights, "weights"),
            self.dtype(table.precision.cache, "cache"),
            table.kernels.decode_batch,
            serving_options(table.serving, workload.lengths, self),
        )

    def existing(self, name: str, *steps: str) -> Path:
        """Resolve a path against the specification's folder; it has to exist."""
        if "\0" in name or len(name) > 4096:
            raise WrongType(place=self.place(*steps), field=steps[-1], found="a path", reason="not a path")
        path = (self.file.parent / name).absolute()
        try:
            found = path.exists()
        except OSError:
            found = False
        if not found:
            raise UnreadableFile(
                place=self.place(*steps),
                path=name,
                reason="no such file",
                hint=f"paths are relative to {self.file.parent}",
            )
        return path

    def one_of(self, word: str, allowed: list[str], kind: str, *steps: str) -> str:
        """Return a word that has to be one of those allowed; raises UnknownName with its place."""
        if word not in allowed:
            raise UnknownName(
                place=self.place(*steps),
                kind=kind,
                name=word,
                expected=f"one of {', '.join(allowed)}",
                hint=closest(word, allowed),
            )
        return word

    def dtype(self, word: str, field: str) -> str:
        """Return a known dtype, or nothing."""
        return self.one_of(word, list(STORED_BYTES), "dtype", "precision", field) if word else ""

    def workload(self, table: WorkloadTable) -> Workload:
        """Return what arrives, from the one source that the table names."""
        rate = None
        if table.rate is not None:
            rate = float(parse_quantity(table.rate, "rate", self.place("workload", "rate")))
            self.positive(rate, table.rate, "workload", "rate")
        if sum(source is not None for source in (table.trace, table.quantiles, table.clients)) != 1:
            raise BadSpecification(
                place=self.place("workload"), message="`workload` needs one of `trace`, `quantiles` and `clients`"
            )
        if table.trace is not None:
            return self.from_trace(table.trace, table.format, rate)
        if table.format is not None:
            raise BadSpecification(place=self.place("workload", "format"), message="`format` belongs to a trace")
        if table.clients is not None:
            path = self.existing(table.clients, "workload", "clients")
            requests = load_clients(path)
            lengths = length_quantiles(requests, path.name)
            return Workload(lengths, rate or arrival_rate_per_s(requests), requests, table.clients)
        if isinstance(table.quantiles, str):
            path = self.existing(table.quantiles, "workload", "quantiles")
            inner, text = read_toml(QuantilesTable, path)
            return Workload(quantiles_from(inner, path, text), rate, source=table.quantiles)
        assert table.quantiles is not None
        return Workload(quantiles_from(table.quantiles, self.file, self.text, ("workload", "quantiles")), rate)

    def from_trace(self, trace: str, format_name: str | None, rate: float | None) -> Workload:
        """Return the workload of a trace."""
        if format_name is None:
            raise MissingField(
                place=self.place("workload"), field="workload.format", expected=f"one of {', '.join(FORMATS)}"
            )
        self.one_of(format_name, list(FORMATS), "trace format", "workload", "format")
        path = self.existing(trace, "workload", "trace")
        requests = load_trace(path, format_name)
        lengths = length_quantiles(requests, path.name)
        return Workload(lengths, rate or arrival_rate_per_s(requests), requests, trace)

    def cluster(self, table: ClusterTable) -> ClusterRequest:
        """Return where to serve."""
        gpu = self.machine(table.gpu, "cluster", "gpu")
        nodes = str(self.existing(table.nodes, "cluster", "nodes")) if table.nodes else ""
        return ClusterRequest(gpu, table.gpus, table.gpus_per_node, nodes, table.namespace)

    def machine(self, gpu: str, *steps: str) -> str:
        """Return the id of a known machine, or the path of a description of one's own."""
        if not gpu.endswith(".toml"):
            return self.one_of(gpu, list(machine_ids()), "machine", *steps)
        path = str(self.existing(gpu, *steps))
        load_machine(path)
        return path

    def service_level(self, name: str, limit: str, *steps: str) -> ServiceLevel:
        """Return a level by its name, such as `ttft_p90`, and its limit."""
        place = self.place(*steps) if steps else self.place("slo", name)
        match = _LEVEL.fullmatch(name)
        if match is None:
            usual = [f"{metric.value}_p{percentile}" for metric in Metric for percentile in (50, 90, 95, 99)]
            raise UnknownField(
                place=place,
                field=name,
                expected="ttft, tpot or e2e with a percentile, such as `ttft_p90`",
                hint=closest(name, usual),
            )
        limit_s = float(parse_quantity(limit, "time", place))
        self.positive(limit_s, limit, *(steps or ("slo", name)))
        percentile = float(match[2].replace("_", "."))
        if not 0 < percentile <= 100:
            raise WrongType(place=place, field=name, found=f"`p{match[2]}`", reason="not a percentile in (0, 100]")
        return ServiceLevel(Metric(match[1]), percentile, limit_s)

    def positive(self, value: float, found: str, *steps: str) -> None:
        """Refuse a value that is not above zero and finite."""
        if not 0 < value < 1e15:
            raise WrongType(
                place=self.place(*steps), field=".".join(steps), found=f"`{found}`", reason="not above zero and finite"
            )


def load_quantiles(path: str | Path) -> LengthQuantiles:
    """Read a file of length quantiles; raises as `load_deployment` does."""
    table, text = read_toml(QuantilesTable, Path(path))
    return quantiles_from(table, Path(path), text)


def quantiles_from(table: QuantilesTable, file: Path, text: str, steps: Steps = ()) -> LengthQuantiles:
    """Return the checked quantiles of a table; raises InvalidValue with the place."""
    lists = {"prompt_tokens": table.prompt_tokens, "output_tokens": table.output_tokens}
    for name, values in lists.items():
        if len(values) != len(table.probability):
            raise BadSpecification(
                place=toml_place(text, str(file), (*steps, name)),
                message=f"`{name}` has {len(values)} values, `probability` {len(table.probability)}",
            )
    try:
        points = tuple(map(QuantilePoint, table.probability, table.prompt_tokens, table.output_tokens))
        return LengthQuantiles(points, table.source, table.licence, table.date, table.requests)
    except InvalidValue as error:
        error.place = toml_place(text, str(file), (*steps, "probability"))
        raise
