"""Single overlaps by name, each exact over its few choices: TokenWeave, FSMoE, Comet, APEX, CO2, layered prefill."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import ceil

from treadle.costmodels.machines import load_machine
from treadle.costmodels.moe_pipeline import (
    PIECES,
    MoeShape,
    Network,
    time_ns,
    training_pipeline,
    without_overlap_ns,
)
from treadle.costmodels.operator_loop import block_layer, in_turn_ns, layer_loop
from treadle.ir.diagnostics import TreadleError
from treadle.ir.machine import Machine
from treadle.ir.model import Attention, Gemm, GroupedGemm, Layer, ModelGraph
from treadle.ir.operator.plan import SPLIT, Step
from treadle.ir.operator.waves import Tiling
from treadle.solvers.overlap.moe_degree import best_pipeline, best_tiles
from treadle.solvers.overlap.token_split import token_split

TILE = 128
"""Rows and columns of a tile of a product (TokenWeave's setting)."""


class Preset(Enum):
    """An overlap by the name of what it decides."""

    TOKEN_SPLIT = "token-split"
    """Two sets of tokens of no more waves than one (TokenWeave)."""
    EXPERT_CHUNKS = "expert-chunks"
    """Chunks of an expert layer across nodes, and pieces of the gradient beside them (FSMoE)."""
    EXPERT_TILES = "expert-tiles"
    """Groups of tiles handed between products and transfers in a node (Comet, T3)."""
    CPU_ATTENTION = "cpu-attention"
    """Decoding sequences whose attention runs on the CPU (APEX)."""
    HIDDEN_SYNC = "hidden-sync"
    """Steps over which a synchronisation of all gradients is hidden (CO2)."""
    LAYERED_PREFILL = "layered-prefill"
    """Groups of layers, one of which reads prompts in each iteration, within a time between tokens."""


class PresetRefused(TreadleError):
    """A preset that this model, machine or request has nothing for."""

    code = "TRD185"
    template = "`{preset}` cannot be planned: {reason}"


@dataclass(frozen=True, slots=True)
class PresetRequest:
    """What a preset needs beside the model: machine, group, step, nodes, and limits."""

    preset: Preset
    machine: str
    tensor_parallel: int
    step: Step
    nodes: int = 1
    cpu_bandwidth_bytes_per_s: float = 2e11
    tbt_ms: float = 50.0


@dataclass(frozen=True, slots=True)
class PresetAnswer:
    """The choice in words, its time, the time without the overlap, and how it was found."""

    choice: str
    time_us: float
    without_us: float
    tried: str

    @property
    def gain(self) -> float:
        """Time without the overlap over time with it."""
        return self.without_us / self.time_us


def plan_preset(model: ModelGraph, request: PresetRequest) -> PresetAnswer:
    """Return the best choice of a preset.

    Raises:
        PresetRefused: the model has no experts, or no choice is within the limits.
    """
    return _PRESETS[request.preset](model, load_machine(request.machine), request)


def _layer_ns(model: ModelGraph, machine: Machine, request: PresetRequest, step: Step) -> int:
    return in_turn_ns(layer_loop(model, machine, request.tensor_parallel, step, (SPLIT,)))


def _token_split(model: ModelGraph, machine: Machine, request: PresetRequest) -> PresetAnswer:
    columns = [
        ceil(operator.detail.n / request.tensor_parallel / TILE)
        for operator in block_layer(model).operators
        if isinstance(operator.detail, Gemm)
    ]
    if not columns:
        raise PresetRefused(preset=request.preset.value, reason="the layer has no dense products")
    tiling = Tiling(TILE, int(machine.value("sm_count")), tuple(columns))
    tokens = request.step.tokens
    found = token_split(tiling, tokens)
    whole = layer_loop(model, machine, request.tensor_parallel, request.step, (SPLIT,))
    turn = in_turn_ns(whole)
    links = [min(m.duration_ns for m in op.modes) for op in whole.operators if op.name.endswith(".reduce")]
    # The first set's share of every collective runs beside the second set's products.
    hidden = sum(links) * min(found.first, tokens - found.first) / tokens if found.first else 0.0
    choice = f"{found.first} + {tokens - found.first} tokens, {found.waves} waves (unsplit {tiling.waves(tokens)})"
    return PresetAnswer(choice, (turn - hidden) / 1000, turn / 1000, "every split of no more waves")


def _experts(model: ModelGraph, request: PresetRequest) -> tuple[Layer, MoeShape]:
    layer = block_layer(model)
    grouped = [op.detail for op in layer.operators if isinstance(op.detail, GroupedGemm)]
    if not grouped:
        raise PresetRefused(preset=request.preset.value, reason=f"`{model.name}` has no experts in its blocks")
    down = grouped[-1]
    gated = grouped[0].n == 2 * down.k
    dense = sum(op.active for op in layer.operators if isinstance(op.detail, Gemm))
    tokens = request.step.tokens
    shape = MoeShape(
        tokens, down.n, down.k, down.top_k, gated, request.nodes, dense_flops=2.0 * dense * tokens,
        gradient_bytes=2.0 * dense,
    )  # fmt: skip
    return layer, shape


def _expert_chunks(model: ModelGraph, machine: Machine, request: PresetRequest) -> PresetAnswer:
    if request.nodes < 2:
        raise PresetRefused(preset=request.preset.value, reason="one node has no transfers between nodes; give --nodes")
    _, shape = _experts(model, request)
    words: list[str] = []
    time = without = tried = 0
    for backward in (False, True):
        pipeline = training_pipeline(shape, machine, Network(), backward)
        found, count = best_pipeline(pipeline)
        words.append(f"{'backward' if backward else 'forward'} {found.degree} chunks")
        if pipeline.gradient:
            words.append(f"{found.pieces} of {PIECES} gradient pieces beside them")
        time, tried = time + found.time_ns, tried + count
        without += time_ns(pipeline, 1, 0 if pipeline.gradient else PIECES, False)
    return PresetAnswer(
        ", ".join(words), time / 1000, without / 1000, f"all degrees to 16 and pieces, {tried} simulated"
    )


def _expert_tiles(model: ModelGraph, machine: Machine, request: PresetRequest) -> PresetAnswer:
    _, shape = _experts(model, request)
    share, found, count = best_tiles(shape, machine)
    choice = f"{found.degree} groups of tiles, {share / 10:.1f} % of the SMs move data"
    return PresetAnswer(choice, found.time_ns / 1000, without_overlap_ns(shape, machine) / 1000, f"{count} simulated")


def _cpu_attention(model: ModelGraph, machine: Machine, request: PresetRequest) -> PresetAnswer:
    step = request.step
    attention = next((op.detail for op in block_layer(model).operators if isinstance(op.detail, Attention)), None)
    if not step.decode_sequences or attention is None:
        raise PresetRefused(preset=request.preset.value, reason="there are no decoding sequences with attention")
    read = 2.0 * attention.cache_elements * step.context_tokens / request.tensor_parallel
    moved = 2.0 * (attention.heads * 2 + attention.kv_heads * 2) * attention.qk_head_dim / request.tensor_parallel
    on_gpu = read / machine.value("memory_bandwidth_sustained_bytes_per_s") * 1e9
    on_cpu = (read / request.cpu_bandwidth_bytes_per_s + moved / machine.value("pcie_bandwidth_bytes_per_s")) * 1e9
    whole = _layer_ns(model, machine, request, step)
    times = [(max(whole - count * on_gpu, count * on_cpu), count) for count in range(step.decode_sequences + 1)]
    best, count = min(times)
    choice = f"attention of {count} of {step.decode_sequences} sequences on the CPU"
    return PresetAnswer(choice, best / 1000, whole / 1000, f"all {len(times)} splits")


def _hidden_sync(model: ModelGraph, machine: Machine, request: PresetRequest) -> PresetAnswer:
    step_ns = 3 * _layer_ns(model, machine, request, request.step) * model.block_count
    moved = 2 * 2.0 * model.parameters() / request.tensor_parallel
    sync_ns = moved / machine.value("network_bandwidth_bytes_per_s") * 1e9
    steps = max(1, ceil(sync_ns / step_ns))
    choice = f"synchronise every {steps} steps, hidden behind the next {steps}"
    return PresetAnswer(
        choice, step_ns / 1000, (step_ns + sync_ns / steps) / 1000, "least number of steps, closed form"
    )


def _layered_prefill(model: ModelGraph, machine: Machine, request: PresetRequest) -> PresetAnswer:
    step, layers = request.step, model.block_count
    if not step.decode_sequences or not step.prefill_sequences:
        raise PresetRefused(preset=request.preset.value, reason="it needs --decode and --prefill sequences")
    decode = _layer_ns(model, machine, request, Step(step.decode_sequences, step.context_tokens))
    mixed = _layer_ns(model, machine, request, step)
    room = request.tbt_ms * 1e6 - layers * decode
    if room < mixed - decode:
        reason = f"one layer of prompts in an iteration takes {(layers * decode + mixed - decode) / 1e6:.1f} ms"
        raise PresetRefused(preset=request.preset.value, reason=f"{reason}, the limit is {request.tbt_ms} ms")
    size = min(layers, int(room // max(1, mixed - decode)))
    groups = ceil(layers / size)
    longest = layers * decode + ceil(layers / groups) * (mixed - decode)
    choice = f"{groups} groups of up to {ceil(layers / groups)} layers, prompts read in {groups} iterations"
    return PresetAnswer(choice, longest / 1000, layers * mixed / 1000, "fewest groups, closed form")


_PRESETS: dict[Preset, Callable[[ModelGraph, Machine, PresetRequest], PresetAnswer]] = {
    Preset.TOKEN_SPLIT: _token_split,
    Preset.EXPERT_CHUNKS: _expert_chunks,
    Preset.EXPERT_TILES: _expert_tiles,
    Preset.CPU_ATTENTION: _cpu_attention,
    Preset.HIDDEN_SYNC: _hidden_sync,
    Preset.LAYERED_PREFILL: _layered_prefill,
}
