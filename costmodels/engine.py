"""Profiles of serving engines, sampled from kernel times of a model on a machine; and what their caches hold."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from treadle.costmodels.collectives import Links, all_reduce_us, all_to_all_us, group_of
from treadle.costmodels.kernel_times import KernelTimes
from treadle.ir.machine import Machine
from treadle.ir.model import Attention, Gemm, GroupedGemm, Layer, ModelGraph, Operator
from treadle.ir.serving.pools import Shape
from treadle.ir.serving.profile import Profile
from treadle.ir.symbolic import evaluate
from treadle.ir.workload import Phase

SAMPLED_TOKENS = (1, 8, 16, 32, 64, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192, 16384)
"""Token counts at which `linear` is sampled."""


def links_of(machine: Machine) -> Links:
    """Return the links between GPUs of a machine."""
    return Links(
        fast_bytes_per_us=machine.value("allreduce_bus_bandwidth_bytes_per_s") / 1e6,
        slow_bytes_per_us=machine.value("network_bandwidth_bytes_per_s") / 1e6,
        latency_us=machine.value("allreduce_latency_us"),
    )


def profile_of(model: ModelGraph, machine: Machine, times: KernelTimes, shape: Shape, per_node: int) -> Profile:
    """Sample the profile of one engine.

    Args:
        model: the graph.
        machine: for links and memory bandwidth.
        times: kernel times, measured or estimated.
        shape: tensor and expert degrees (pipeline stages run one after another: a step passes through all).
        per_node: GPUs of a node.

    Raises:
        MissingTable, MissingFigure: a kernel without times.
    """
    sampler = _Sampler(model, machine, times, shape, links_of(machine), per_node)
    linear = tuple(sampler.linear_us(tokens) / 1e6 for tokens in SAMPLED_TOKENS)
    short, long_ = sampler.prefill_attention_us(2048), sampler.prefill_attention_us(8192)
    per_pair = max(0.0, (long_ - short) / (8192**2 / 2 - 2048**2 / 2)) / 1e6
    decode = sampler.decode_slopes_us()
    return Profile(SAMPLED_TOKENS, linear, per_pair, decode[0] / 1e6, decode[1] / 1e6)


@dataclass(frozen=True, slots=True)
class _Sampler:
    """Walks the layers of a model for given token counts."""

    model: ModelGraph
    machine: Machine
    times: KernelTimes
    shape: Shape
    links: Links
    per_node: int

    def linear_us(self, tokens: int) -> float:
        """Time of all operators but attention for `tokens` new tokens, decode forms, collectives included."""
        values = {"batch": tokens, "seq": 1, "kv": 1, "scored": 1, "source": 0}
        return sum(count * self._layer_us(layer, values, tokens) for layer, count in self.model.forward())

    def _layer_us(self, layer: Layer, values: dict[str, int], tokens: int) -> float:
        time = sum(self._operator_us(operator, values, tokens) for operator in layer.in_phase(Phase.DECODE))
        return time + self._collectives_us(layer, tokens)

    def _operator_us(self, operator: Operator, values: dict[str, int], tokens: int) -> float:
        detail = operator.detail
        tensor = self.shape.tensor
        if isinstance(detail, Gemm):
            rows, n, k, repeats = int(evaluate(detail.m, **values)), detail.n, detail.k, 1.0
            if detail.batches > 1:
                return self._traffic_us(operator, values) + 2.0 * detail.batches * rows * n * k / tensor / self._rate()
            if operator.kind.value == "router":
                repeats = 1.0
            elif n >= k or k % tensor:
                n = ceil(n / tensor)
            else:
                k = ceil(k / tensor)
            return repeats * self.times.gemm_us(max(1, rows), n, k, self._dtype(operator))
        if isinstance(detail, GroupedGemm):
            if detail.n != self.model.hidden_size:
                return 0.0  # the pair of products is timed once, at the second
            return self.times.moe_us(
                tokens,
                detail.n,
                detail.k,
                detail.experts,
                detail.top_k,
                tensor_parallel=self.shape.expert_tensor,
                expert_parallel=self.shape.expert,
                dtype=self._dtype(operator),
            )
        if isinstance(detail, Attention):
            return 0.0
        return self._traffic_us(operator, values)

    def _traffic_us(self, operator: Operator, values: dict[str, int]) -> float:
        moved = float(evaluate(operator.bytes, **values)) / self.shape.tensor
        return moved / (self.machine.value("memory_bandwidth_sustained_bytes_per_s") / 1e6)

    def _rate(self) -> float:
        return self.machine.value("peak_flops_bfloat16") / 1e6 * 0.5  # batched small products reach about half

    def _dtype(self, operator: Operator) -> str:
        return {"float8_e4m3": "float8_e4m3", "int8": "int8"}.get(operator.weight_dtype, "bfloat16")

    def _collectives_us(self, layer: Layer, tokens: int) -> float:
        """Two all-reduces per block over the tensor group; two exchanges where experts are spread."""
        if layer.role.value != "block":
            return 0.0
        size = 2.0 * tokens * self.model.hidden_size
        time = 0.0
        if self.shape.tensor > 1:
            time += 2 * all_reduce_us(size, group_of(self.shape.tensor, 1, self.per_node), self.links)
        experts = [operator.detail for operator in layer.operators if isinstance(operator.detail, GroupedGemm)]
        if experts and self.shape.expert > self.shape.tensor:
            sent = size * experts[0].top_k / self.shape.expert
            time += 2 * all_to_all_us(sent, group_of(self.shape.expert, 1, self.per_node), self.links)
        return time

    def prefill_attention_us(self, tokens: int) -> float:
        """Attention of a whole prompt over all layers."""
        time = 0.0
        for layer, count in self.model.forward():
            for operator in layer.in_phase(Phase.PREFILL):
                detail = operator.detail
                if isinstance(detail, Attention):
                    heads = max(1, detail.heads // self.shape.tensor)
                    if detail.latent:
                        time += count * self.times.latent_prefill_us(1, tokens, heads)
                        continue
                    kv_heads = max(1, detail.kv_heads // self.shape.tensor)
                    window = detail.window or detail.chunk
                    time += count * self.times.attention_prefill_us(
                        1, tokens, heads, kv_heads, detail.qk_head_dim, window=window
                    )
        return time

    def decode_slopes_us(self) -> tuple[float, float]:
        """Decode attention as time per cached token and time per sequence, from two context lengths at batch 32."""
        low, high, batch = 1024, 4096, 32
        first, second = self._decode_us(batch, low), self._decode_us(batch, high)
        slope = max(0.0, (second - first) / (batch * (high - low)))
        return slope, max(0.0, first / batch - slope * low)

    def _decode_us(self, batch: int, context: int) -> float:
        time = 0.0
        for layer, count in self.model.forward():
            for operator in layer.in_phase(Phase.DECODE):
                detail = operator.detail
                if isinstance(detail, Attention):
                    heads = max(1, detail.heads // self.shape.tensor)
                    if detail.latent:
                        time += count * self.times.latent_decode_us(batch, context, heads)
                        continue
                    kv_heads = max(1, detail.kv_heads // self.shape.tensor)
                    window = detail.window or detail.chunk
                    time += count * self.times.attention_decode_us(
                        batch, context, heads, kv_heads, detail.qk_head_dim, window=window
                    )
        return time


RESERVED_BYTES = 4 * 2**30
"""Memory per GPU kept for activations, graphs and the runtime (assumed; the peer reserves 3.5 GB)."""

MEMORY_SHARE = 0.92
"""Share of a GPU's memory that an engine may use."""


def kv_capacity_tokens(model: ModelGraph, machine: Machine, shape: Shape) -> int:
    """Return how many tokens of context an engine's cache holds; 0 when the weights do not fit.

    Key-value heads are split over the tensor group as far as there are heads; a latent cache is repeated on each GPU.
    """
    gpus = shape.tensor * shape.pipeline
    experts = sum(
        operator.stored_bytes * count
        for layer, count in model.forward()
        for operator in layer.operators
        if isinstance(operator.detail, GroupedGemm)
    )
    dense = model.stored_bytes() - experts
    spread = max(1, shape.expert * shape.expert_tensor * shape.pipeline) if experts else gpus
    weights = dense / gpus + experts / spread
    free = machine.value("memory_capacity_bytes") * MEMORY_SHARE - RESERVED_BYTES - weights
    if free <= 0:
        return 0
    heads = max((detail.kv_heads for _, _, detail, _ in model.attentions() if not detail.latent), default=1)
    latent = any(detail.latent for _, _, detail, _ in model.attentions())
    split = 1 if latent else min(shape.tensor, heads)
    per_token = max(1.0, model.kv_bytes_per_token()) / (split * shape.pipeline)
    return int(free / per_token)
