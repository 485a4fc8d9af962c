"""A training problem with GPU types and links resolved, and passes: what cost functions of a step take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from treadle.costmodels.collectives import Links
from treadle.costmodels.training_machine import TrainingGpu, links_of, training_gpu
from treadle.ir.training.cluster import ClusterTopology
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import TrainingSpec

ELEMENT = 2
"""Bytes per activation element (bf16, fp16); products alone run in 8 or 4 bits."""
WIDE = ("bf16", "fp16")
"""Precisions in which inputs of products are not cast."""


@dataclass(frozen=True)
class Setting:
    """A training problem with its GPU type and links resolved; what every cost function takes."""

    model: TrainingModel
    cluster: ClusterTopology
    spec: TrainingSpec
    gpu: TrainingGpu = field(hash=False, compare=False)
    links: Links = field(hash=False, compare=False)
    parts: tuple[tuple[TrainingGpu, Links], ...] = field(default=(), hash=False, compare=False, repr=False)
    """On a cluster of several GPU types, those of each node group."""
    known: dict[tuple[float | str, ...], float] = field(default_factory=dict, init=False, compare=False, repr=False)
    """Times of products by shape and precision: the same ones come again and again."""

    def part(self, group: int) -> Setting:
        """Return the problem as a node group sees it."""
        gpu, links = self.parts[group]
        return replace(self, gpu=gpu, links=links, parts=())

    def changed(
        self,
        gpu: Callable[[TrainingGpu], TrainingGpu] = lambda gpu: gpu,
        links: Callable[[Links], Links] = lambda it: it,
    ) -> Setting:
        """Return the problem with other GPUs and links, those of every node group too."""
        parts = tuple((gpu(one), links(joined)) for one, joined in self.parts)
        return replace(self, gpu=gpu(self.gpu), links=links(self.links), parts=parts)

    def peak(self) -> float:
        """Return the matrix rate in FLOP per microsecond that products are measured against."""
        return self.gpu.peak(self.spec.precision)


def setting_of(model: TrainingModel, cluster: ClusterTopology, spec: TrainingSpec) -> Setting:
    """Resolve the GPU types and the links; raises UnknownTrainingGpu, UnsupportedPrecision.

    Of several types, one that is nowhere better than any of them stands for stages that have them all.
    """
    types = [training_gpu(group.gpu) for group in cluster.groups]
    gpu = min(types, key=lambda kind: kind.peak(spec.precision) * kind.constants.product_efficiency)
    if not cluster.mixed:
        return Setting(model, cluster, spec, gpu, links_of(cluster, gpu))
    least = {
        name: min(getattr(kind, name) for kind in types)
        for name in ("memory_bytes", "memory_bytes_per_us", "links_bytes_per_us", "network_bytes_per_us")
    }
    parts = tuple((kind, links_of(cluster, kind)) for kind in types)
    slowest = replace(gpu, host_bytes_per_us=min(kind.host_bytes_per_us for kind in types), **least)
    return Setting(model, cluster, spec, slowest, links_of(cluster, slowest), parts)


@dataclass(frozen=True, slots=True)
class Pass:
    """Forward and backward time of something, for one microbatch."""

    forward_us: float
    backward_us: float
    weight_us: float = 0.0
    """Part of the backward time that only makes weight gradients: it can run later."""

    @property
    def total_us(self) -> float:
        """Both."""
        return self.forward_us + self.backward_us

    def __add__(self, other: Pass) -> Pass:
        backward, weight = self.backward_us + other.backward_us, self.weight_us + other.weight_us
        return Pass(self.forward_us + other.forward_us, backward, weight)

    def __mul__(self, count: float) -> Pass:
        return Pass(self.forward_us * count, self.backward_us * count, self.weight_us * count)


def tokens_of(spec: TrainingSpec, degrees: Degrees) -> float:
    """Return the tokens of one microbatch that one rank holds (before the split by sequence parallelism)."""
    return degrees.micro_batch * spec.sequence_tokens / degrees.context


def host_rate(setting: Setting) -> float:
    """Return the bytes per microsecond between a GPU and its host, per direction."""
    return setting.cluster.host_gbytes_per_s * 1e3 or setting.gpu.host_bytes_per_us


def memory_rate(setting: Setting) -> float:
    """Return the bytes per microsecond that elementwise kernels move."""
    return setting.gpu.memory_bytes_per_us * setting.gpu.constants.memory_efficiency
