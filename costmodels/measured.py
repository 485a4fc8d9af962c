"""Measured kernel times: the tables of `aiconfigurator-core` (optional extra), behind the protocol of the estimates.

The package holds one parquet file per system, family, serving framework and version, as measured by its authors;
latencies there are milliseconds. `load_table` reads any of them; `TableTimes` answers `KernelTimes` questions from the
matrix product, attention and expert tables by interpolating measured over estimated (see `treadle.costmodels.grid`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from treadle.costmodels import kernel_estimates as kernels
from treadle.costmodels.errors import MissingTable
from treadle.costmodels.grid import Grid
from treadle.costmodels.kernel_times import RooflineTimes, flops_per_us
from treadle.ir.diagnostics import closest
from treadle.ir.errors import MissingExtra
from treadle.ir.machine import Machine
from treadle.ir.tile.program import DTYPE_BYTES

SYSTEMS = {"a100": "a100_sxm", "h100": "h100_sxm", "h200": "h200_sxm", "b200": "b200_sxm"}
"""Machine id -> system of the tables."""

FAMILIES = {
    "gemm": "gemm/{backend}/{version}/gemm_perf",
    "context_attention": "attention/{backend}/{version}/context_attention_perf",
    "generation_attention": "attention/{backend}/{version}/generation_attention_perf",
    "context_mla": "mla/{backend}/{version}/context_mla_perf",
    "generation_mla": "mla/{backend}/{version}/generation_mla_perf",
    "moe": "moe/{backend}/{version}/moe_perf",
    "nccl": "comm/nccl/{version}/nccl_perf",
    "custom_allreduce": "comm/{backend}/{version}/custom_allreduce_perf",
}
"""Family -> path of its file inside a system's folder, without the ending."""

BACKENDS = ("vllm", "trtllm", "sglang")
"""Serving frameworks whose kernels were measured; the first is the default."""

DTYPES = {"bfloat16": "bfloat16", "float8_e4m3": "fp8", "int8": "sq", "int4": "int4_wo"}
"""Tile dtype -> the tables' word for it (`sq` is int8 weights and activations, `int4_wo` int4 weights alone)."""

Column = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one measured table, and where it stands in the package."""

    system: str
    family: str
    backend: str
    version: str
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def where(self, **equal: object) -> Table:
        """Return the rows whose columns equal the values; raises MissingTable when none does.

        A column that the table does not have counts as equal: older tables lack the newer switches.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, value in equal.items():
            if name in self.columns:
                keep &= self.columns[name] == value
        if not keep.any():
            wanted = ", ".join(f"{name}={value}" for name, value in equal.items())
            offered = {name: sorted(set(self.columns[name].tolist())) for name in equal if name in self.columns}
            raise MissingTable(what=f"{self.family} rows of {self.system} with {wanted}", expected=f"{offered}")
        return self.take(keep)

    def take(self, rows: NDArray[Any]) -> Table:
        """Return the rows that a mask or a list of positions names."""
        columns = {name: column[rows] for name, column in self.columns.items()}
        return Table(self.system, self.family, self.backend, self.version, columns)

    def points(self, *names: str) -> NDArray[np.float64]:
        """Return columns as coordinates, one row per measurement."""
        return np.stack([self.columns[name].astype(np.float64) for name in names], axis=1)


def available() -> bool:
    """Whether the tables and a reader for them are installed."""
    return find_spec("aiconfigurator_core") is not None and find_spec("pyarrow") is not None


@cache
def load_table(system: str, family: str, backend: str = "vllm", version: str = "") -> Table:
    """Read one measured table.

    Args:
        system: a machine id (`h200`) or a system of the package (`h200_sxm`).
        family: a key of `FAMILIES`.
        backend: the framework; NCCL has none.
        version: of the framework or of NCCL; empty takes the package's current one, or the newest there is.

    Returns: its columns; `latency_us` is the latency in microseconds.

    Raises:
        MissingExtra: the tables are not installed. MissingTable: there is no such table.
    """
    root = _root()
    system = SYSTEMS.get(system, system)
    if not (root / "data" / system).is_dir():
        raise MissingTable(
            what=f"tables for `{system}`", expected=f"one of {', '.join(_names(root / 'data'))}", hint=""
        )
    if family not in FAMILIES:
        raise MissingTable(
            what=f"family `{family}`", expected=f"one of {', '.join(FAMILIES)}", hint=closest(family, list(FAMILIES))
        )
    template = root / "data" / system / f"{FAMILIES[family].format(backend=backend, version='*')}.parquet"
    files = {path.parent.name: path for path in template.parents[1].glob(f"*/{template.name}")}
    version = version or _current(root, system, backend, files)
    if version not in files:
        raise MissingTable(
            what=f"{family} table of {backend} {version} on {system}", expected=f"versions {', '.join(files) or 'none'}"
        )
    return Table(system, family, backend, version, _read(files[version]))


def _root() -> Path:
    """Return the folder of the tables; raises MissingExtra."""
    tables, reader = find_spec("aiconfigurator_core"), find_spec("pyarrow")
    if tables is None or reader is None or tables.origin is None:
        package = "aiconfigurator-core" if reader else "pyarrow"
        raise MissingExtra(package=package, purpose="reading measured kernel times", extra="measured")
    return Path(tables.origin).parent / "systems"


def _read(path: Path) -> dict[str, Column]:
    from pyarrow import parquet

    table = parquet.read_table(path)
    columns: dict[str, Column] = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    columns["latency_us"] = columns.pop("latency").astype(np.float64) * 1000
    sound = np.isfinite(columns["latency_us"]) & (columns["latency_us"] > 0)
    return {name: column[sound] for name, column in columns.items()}


def _current(root: Path, system: str, backend: str, files: Mapping[str, Path]) -> str:
    """Return the version the package calls current for a framework, else the newest that is there."""
    import yaml

    slots = yaml.safe_load((root / "query_versions.yaml").read_text(encoding="utf-8"))
    chosen = slots.get("overrides", {}).get(system, {}).get(backend) or slots["defaults"].get(backend, {})
    current = str(chosen.get("current", ""))
    return current if current in files else max(files, key=_release, default="")


def _release(version: str) -> tuple[int, ...]:
    """Return a version's numbers; a release candidate sorts before its release."""
    numbers = [int(number) for number in re.findall(r"\d+", version.partition("rc")[0])]
    candidate = re.search(r"rc(\d+)", version)
    return (*numbers, int(candidate[1]) if candidate else 10**6)


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())


@dataclass(frozen=True)
class TableTimes:
    """Measured times of one machine and framework, interpolated; estimates only bend between measurements."""

    machine: Machine
    backend: str = "vllm"
    estimate: RooflineTimes = field(init=False, repr=False, compare=False)
    """The estimate that the measurements are taken relative to."""
    _grids: dict[tuple[object, ...], Grid] = field(
        init=False, repr=False, compare=False, default_factory=dict[tuple[object, ...], Grid]
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "estimate", RooflineTimes(self.machine))

    def table(self, family: str) -> Table:
        """Return one of this machine's tables; raises MissingExtra, MissingTable."""
        return load_table(self.machine.id, family, self.backend)

    def gemm_us(self, m: int, n: int, k: int, dtype: str = "bfloat16") -> float:
        """Return the time of (m, k) @ (k, n); raises MissingTable for a dtype that was not measured."""
        grid = self._grid(
            ("gemm", dtype), lambda: gemm_grid(self.estimate, gemm_rows(self.table("gemm"), dtype), dtype)
        )
        return grid.ratio((m, n, k)) * self.estimate.gemm_us(m, n, k, dtype)

    def attention_prefill_us(
        self, batch: int, seq: int, heads: int, kv_heads: int, head_dim: int, *, window: int = 0, kv_seq: int = 0
    ) -> float:
        """Return the time of causal attention; keys beyond the new queries change it as the estimate says."""
        grid = self._grid(
            ("prefill", head_dim, window),
            lambda: prefill_grid(
                self.estimate, attention_rows(self.table("context_attention"), head_dim, window), head_dim, window
            ),
        )
        scale = self.estimate.attention_prefill_us(batch, seq, heads, kv_heads, head_dim, window=window, kv_seq=kv_seq)
        return grid.ratio((batch, max(seq, kv_seq), heads, kv_heads)) * scale

    def attention_decode_us(
        self, batch: int, kv_seq: int, heads: int, kv_heads: int, head_dim: int, *, window: int = 0
    ) -> float:
        """Return the time of attention of one query per sequence over `kv_seq` cached keys."""
        grid = self._grid(
            ("decode", head_dim, window),
            lambda: decode_grid(
                self.estimate, attention_rows(self.table("generation_attention"), head_dim, window), head_dim, window
            ),
        )
        scale = self.estimate.attention_decode_us(batch, kv_seq, heads, kv_heads, head_dim, window=window)
        return grid.ratio((batch, kv_seq, heads, kv_heads)) * scale

    def latent_prefill_us(self, batch: int, seq: int, heads: int) -> float:
        """Return the time of latent attention over a whole sequence (tables of trtllm and sglang)."""
        grid = self._grid(("latent", "prefill"), lambda: self._latent_grid("context_mla", "isl", 0))
        return grid.ratio((batch, seq, heads)) * self.estimate.latent_prefill_us(batch, seq, heads)

    def latent_decode_us(self, batch: int, kv_seq: int, heads: int) -> float:
        """Return the time of absorbed latent attention (tables of trtllm and sglang)."""
        grid = self._grid(("latent", "decode"), lambda: self._latent_grid("generation_mla", "step", 1))
        return grid.ratio((batch, kv_seq, heads)) * self.estimate.latent_decode_us(batch, kv_seq, heads)

    def _latent_grid(self, family: str, length: str, offset: int) -> Grid:
        rows = self.table(family).where(mla_dtype="bfloat16", kv_cache_dtype="bfloat16")
        points = rows.points("batch_size", length, "num_heads")
        points[:, 1] += offset
        answer = self.estimate.latent_decode_us if offset else self.estimate.latent_prefill_us
        return Grid.of(points, rows.columns["latency_us"] / [answer(*_whole(point)) for point in points])

    def moe_us(
        self,
        tokens: int,
        hidden: int,
        inter: int,
        experts: int,
        top_k: int,
        *,
        tensor_parallel: int = 1,
        expert_parallel: int = 1,
        dtype: str = "bfloat16",
    ) -> float:
        """Return the time of a gated expert layer, with the skewed routing that was measured (power law 1.2).

        The layer shape (hidden, inter, experts, top_k) must be one of those measured; raises MissingTable.
        """
        layer = (hidden, inter, experts, top_k)
        grid = self._grid(("moe", *layer, dtype), lambda: self._moe_grid(layer, dtype))
        scale = self.estimate.moe_us(
            tokens, *layer, tensor_parallel=tensor_parallel, expert_parallel=expert_parallel, dtype=dtype
        )
        return grid.ratio((tokens, tensor_parallel, expert_parallel)) * scale

    def _moe_grid(self, layer: tuple[int, int, int, int], dtype: str) -> Grid:
        rows = moe_rows(self.table("moe"), layer, dtype)
        points = rows.points("num_tokens", "moe_tp_size", "moe_ep_size")
        estimates = [
            self.estimate.moe_us(tokens, *layer, tensor_parallel=tp, expert_parallel=ep, dtype=dtype)
            for tokens, tp, ep in (_whole(point) for point in points)
        ]
        return Grid.of(points, rows.columns["latency_us"] / estimates)

    def collective_us(self, kind: str, size_bytes: int, gpus: int) -> float:
        """Return the time of one NCCL collective inside a node.

        Args:
            kind: `all_reduce`, `all_gather`, `reduce_scatter` or `alltoall`.
            size_bytes: of the full buffer.
            gpus: 2, 4 or 8; another number takes the nearest that was measured.
        """
        grid = self._grid(("nccl", kind), lambda: self._collective_grid(kind))
        return grid.ratio((gpus, size_bytes)) * self._collective_estimate_us(size_bytes, gpus)

    def _collective_grid(self, kind: str) -> Grid:
        rows = self.table("nccl").where(op_name=kind, nccl_dtype="half")
        points = rows.points("num_gpus", "message_size")
        points[:, 1] *= 2  # messages are counted in elements of two bytes
        estimates = [self._collective_estimate_us(size, gpus) for gpus, size in points]
        return Grid.of(points, rows.columns["latency_us"] / estimates)

    def _collective_estimate_us(self, size_bytes: float, gpus: float) -> float:
        rate = self.machine.value("allreduce_bus_bandwidth_bytes_per_s") / 1e6
        return self.machine.value("allreduce_latency_us") + size_bytes * (gpus - 1) / gpus / rate

    def _grid(self, key: tuple[object, ...], build: Callable[[], Grid]) -> Grid:
        if key not in self._grids:
            self._grids[key] = build()
        return self._grids[key]


def gemm_rows(table: Table, dtype: str) -> Table:
    """Return the rows of a matrix product table at one dtype."""
    return table.where(gemm_dtype=DTYPES.get(dtype, dtype))


def moe_rows(table: Table, layer: tuple[int, int, int, int], dtype: str) -> Table:
    """Return the rows of an expert table for one layer (hidden, inter, experts, top_k).

    Where 8-bit weights were measured only with scales per block (DeepSeek's own format), those rows are taken.
    """
    hidden, inter, experts, top_k = layer
    shape = {"hidden_size": hidden, "inter_size": inter, "num_experts": experts, "topk": top_k}
    words = (DTYPES.get(dtype, dtype), *(("fp8_block",) if dtype == "float8_e4m3" else ()))
    measured = set(table.columns["moe_dtype"][_equal(table, shape)].tolist())
    word = next((word for word in words if word in measured), words[0])
    return table.where(**shape, moe_dtype=word, distribution="power_law_1.2")


def _equal(table: Table, values: Mapping[str, int]) -> NDArray[np.bool_]:
    keep = np.ones(len(table), dtype=bool)
    for name, value in values.items():
        keep &= table.columns[name] == value
    return keep


def attention_rows(table: Table, head_dim: int, window: int) -> Table:
    """Return the bfloat16 rows of an attention table at one head dimension and window."""
    return table.where(head_dim=head_dim, window_size=window, kv_cache_dtype="bfloat16", attn_dtype="bfloat16")


def gemm_grid(times: RooflineTimes, rows: Table, dtype: str = "bfloat16") -> Grid:
    """Return measured over estimated on the coordinates (m, n, k)."""
    points = rows.points("m", "n", "k")
    m, n, k = points.T
    rate, size = flops_per_us(times.machine, dtype), DTYPE_BYTES[dtype]
    return Grid.of(points, rows.columns["latency_us"] / kernels.gemm_us(times.constants, m, n, k, rate, size))


def prefill_grid(times: RooflineTimes, rows: Table, head_dim: int, window: int) -> Grid:
    """Return measured over estimated on the coordinates (batch, seq, heads, kv_heads)."""
    points = rows.points("batch_size", "isl", "num_heads", "num_key_value_heads")
    rate = flops_per_us(times.machine, "bfloat16")
    batch, seq, heads, kv_heads = points.T
    estimates = kernels.attention_prefill_us(
        times.constants, batch, seq, heads, kv_heads, head_dim, rate, window=window
    )
    return Grid.of(points, rows.columns["latency_us"] / estimates)


def decode_grid(times: RooflineTimes, rows: Table, head_dim: int, window: int) -> Grid:
    """Return measured over estimated on the coordinates (batch, keys, heads, kv_heads); `step` keys precede the new."""
    points = rows.points("batch_size", "step", "num_heads", "num_key_value_heads")
    points[:, 1] += 1
    batch, keys, heads, kv_heads = points.T
    estimates = kernels.attention_decode_us(times.constants, batch, keys, heads, kv_heads, head_dim, window=window)
    return Grid.of(points, rows.columns["latency_us"] / estimates)


def _whole(point: NDArray[np.float64]) -> list[int]:
    return [int(value) for value in point]
