"""Choices of single overlaps and what each costs: TokenWeave, FSMoE, Comet, APEX, CO2, layered prefill.

Every preset has one stage or two, and the choices of a stage are all listed: the best is the least by enumeration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import ceil

from treadle.costmodels.moe_pipeline import (
    PIECES,
    MoePipeline,
    MoeShape,
    Network,
    tile_pipeline,
    time_ns,
    training_pipeline,
    without_overlap_ns,
)
from treadle.costmodels.operator_loop import block_layer, in_turn_ns, layer_loop
from treadle.ir.machine import Machine
from treadle.ir.model import Attention, Gemm, GroupedGemm, ModelGraph
from treadle.ir.operator.choice import Choice, Preset, PresetRefused, PresetRequest
from treadle.ir.operator.plan import SPLIT, Step
from treadle.ir.operator.waves import Tiling

TILE = 128
"""Rows and columns of a tile of a product (TokenWeave's setting)."""

DEGREES = tuple(range(1, 17))
"""Chunks tried of a layer across nodes."""

TILE_GROUPS = (1, 2, 4, 8, 16, 32, 64)
"""Groups of tiles tried inside a node."""

TILE_SHARES_MILLI = tuple(range(25, 525, 25))
"""Shares of the SMs tried for moving data."""


@dataclass(frozen=True, slots=True)
class Choices:
    """All choices of each stage (to go through once), and the time without the overlap."""

    stages: tuple[Iterable[Choice], ...]
    without_ns: float

    def best(self) -> tuple[Choice, ...]:
        """Return the least of each stage; of equals the first listed."""
        return tuple(min(stage, key=lambda choice: choice.cost) for stage in self.stages)


def choices(model: ModelGraph, machine: Machine, request: PresetRequest) -> Choices:
    """Return every choice of a preset.

    Raises:
        PresetRefused: there is nothing to choose, or nothing within the limits.
    """
    return _PRESETS[request.preset](model, machine, request)


def words(request: PresetRequest, chosen: tuple[Choice, ...]) -> str:
    """Return the choice of a preset in words."""
    given = chosen[0].decisions
    step = request.step
    match request.preset:
        case Preset.TOKEN_SPLIT:
            return f"{given['first']} + {step.tokens - given['first']} tokens, {given['waves']} waves"
        case Preset.EXPERT_CHUNKS:
            parts = [f"forward {given['degree']} chunks", f"backward {chosen[1].decisions['degree']} chunks"]
            parts.append(f"{chosen[1].decisions['pieces']} of {PIECES} gradient pieces beside them")
            return ", ".join(parts)
        case Preset.EXPERT_TILES:
            return f"{given['groups']} groups of tiles, {given['share_milli'] / 10:.1f} % of the SMs move data"
        case Preset.CPU_ATTENTION:
            return f"attention of {given['sequences']} of {step.decode_sequences} sequences on the CPU"
        case Preset.HIDDEN_SYNC:
            return f"synchronise every {given['steps']} steps, hidden behind the next {given['steps']}"
        case Preset.LAYERED_PREFILL:
            return (
                f"{given['groups']} groups of up to {given['layers']} layers, prompts read in {given['groups']} turns"
            )


def _layer_ns(model: ModelGraph, machine: Machine, request: PresetRequest, step: Step) -> int:
    return in_turn_ns(layer_loop(model, machine, request.tensor_parallel, step, (SPLIT,)))


def tiling_of(model: ModelGraph, machine: Machine, request: PresetRequest) -> Tiling:
    """Return the dense products of a block as tiles; raises PresetRefused without any."""
    columns = [
        ceil(operator.detail.n / request.tensor_parallel / TILE)
        for operator in block_layer(model).operators
        if isinstance(operator.detail, Gemm)
    ]
    if not columns:
        raise PresetRefused(preset=request.preset.value, reason="the layer has no dense products")
    return Tiling(TILE, int(machine.value("sm_count")), tuple(columns))


def _token_split(model: ModelGraph, machine: Machine, request: PresetRequest) -> Choices:
    """Fewest waves, then the most even: that share of every collective hides behind the other set's products."""
    tiling, tokens = tiling_of(model, machine, request), request.step.tokens
    whole = layer_loop(model, machine, request.tensor_parallel, request.step, (SPLIT,))
    turn = in_turn_ns(whole)
    links = sum(min(m.duration_ns for m in op.modes) for op in whole.operators if op.name.endswith(".reduce"))
    found: list[Choice] = []
    for first in range(tokens // 2 + 1):
        waves = tiling.waves(first) + tiling.waves(tokens - first)
        found.append(Choice({"first": first, "waves": waves}, (waves, -first), turn - links * first / tokens))
    return Choices((tuple(found),), turn)


def expert_shape(model: ModelGraph, request: PresetRequest) -> MoeShape:
    """Return the expert layer of a block; raises PresetRefused where there is none."""
    layer = block_layer(model)
    grouped = [op.detail for op in layer.operators if isinstance(op.detail, GroupedGemm)]
    if not grouped:
        raise PresetRefused(preset=request.preset.value, reason=f"`{model.name}` has no experts in its blocks")
    down = grouped[-1]
    dense = sum(op.active for op in layer.operators if isinstance(op.detail, Gemm))
    tokens = request.step.tokens
    return MoeShape(
        tokens, down.n, down.k, down.top_k, grouped[0].n == 2 * down.k, request.nodes,
        dense_flops=2.0 * dense * tokens, gradient_bytes=2.0 * dense,
    )  # fmt: skip


def training_pipelines(model: ModelGraph, machine: Machine, request: PresetRequest) -> tuple[MoePipeline, MoePipeline]:
    """Return forward and backward of an expert layer across nodes; raises PresetRefused in one node."""
    if request.nodes < 2:
        raise PresetRefused(preset=request.preset.value, reason="one node has no transfers between nodes; give --nodes")
    shape = expert_shape(model, request)
    forward, backward = (training_pipeline(shape, machine, Network(), way) for way in (False, True))
    return forward, backward


def _expert_chunks(model: ModelGraph, machine: Machine, request: PresetRequest) -> Choices:
    pipelines = training_pipelines(model, machine, request)
    without = sum(time_ns(pipeline, 1, 0 if pipeline.gradient else PIECES, False) for pipeline in pipelines)
    return Choices(tuple(_all_chunks(pipeline) for pipeline in pipelines), without)


def _all_chunks(pipeline: MoePipeline) -> Iterator[Choice]:
    for degree in DEGREES:
        for count in range(PIECES + 1) if pipeline.gradient else range(PIECES, PIECES + 1):
            for late in (False, True):
                yield chunk_choice(degree, count, late, time_ns(pipeline, degree, count, late))


def chunk_choice(degree: int, pieces: int, late_first: bool, time: int) -> Choice:
    """Return a choice of `expert-chunks`."""
    return Choice({"degree": degree, "pieces": pieces, "late_first": int(late_first)}, (time,), time)


def _expert_tiles(model: ModelGraph, machine: Machine, request: PresetRequest) -> Choices:
    shape = expert_shape(model, request)
    found = (
        tile_choice(share, groups, late, time_ns(pipeline, groups, PIECES, late))
        for share in TILE_SHARES_MILLI
        for pipeline in (tile_pipeline(shape, machine, share),)
        for groups in TILE_GROUPS
        for late in (False, True)
    )
    return Choices((found,), without_overlap_ns(shape, machine))


def tile_choice(share_milli: int, groups: int, late_first: bool, time: int) -> Choice:
    """Return a choice of `expert-tiles`."""
    return Choice({"share_milli": share_milli, "groups": groups, "late_first": int(late_first)}, (time,), time)


def _cpu_attention(model: ModelGraph, machine: Machine, request: PresetRequest) -> Choices:
    step = request.step
    attention = next((op.detail for op in block_layer(model).operators if isinstance(op.detail, Attention)), None)
    if not step.decode_sequences or attention is None:
        raise PresetRefused(preset=request.preset.value, reason="there are no decoding sequences with attention")
    read = 2.0 * attention.cache_elements * step.context_tokens / request.tensor_parallel
    moved = 2.0 * (attention.heads * 2 + attention.kv_heads * 2) * attention.qk_head_dim / request.tensor_parallel
    on_gpu = read / machine.value("memory_bandwidth_sustained_bytes_per_s") * 1e9
    on_cpu = (read / request.cpu_bandwidth_bytes_per_s + moved / machine.value("pcie_bandwidth_bytes_per_s")) * 1e9
    whole = _layer_ns(model, machine, request, step)
    times = [max(whole - count * on_gpu, count * on_cpu) for count in range(step.decode_sequences + 1)]
    found = tuple(Choice({"sequences": count}, (time, count), time) for count, time in enumerate(times))
    return Choices((found,), whole)


def _hidden_sync(model: ModelGraph, machine: Machine, request: PresetRequest) -> Choices:
    """Fewest steps that cover a synchronisation over the network wholly; a step is three forward passes."""
    step_ns = 3 * _layer_ns(model, machine, request, request.step) * model.block_count
    moved = 2 * 2.0 * model.parameters() / request.tensor_parallel
    sync_ns = moved / machine.value("network_bandwidth_bytes_per_s") * 1e9
    most = max(1, ceil(sync_ns / step_ns))
    times = [(steps, max(float(step_ns), sync_ns / steps)) for steps in range(1, most + 1)]
    found = tuple(Choice({"steps": steps}, (time, steps), time) for steps, time in times)
    return Choices((found,), step_ns + sync_ns / most)


def _layered_prefill(model: ModelGraph, machine: Machine, request: PresetRequest) -> Choices:
    step, layers = request.step, model.block_count
    if not step.decode_sequences or not step.prefill_sequences:
        raise PresetRefused(preset=request.preset.value, reason="it needs --decode and --prefill sequences")
    decode = _layer_ns(model, machine, request, Step(step.decode_sequences, step.context_tokens))
    mixed = _layer_ns(model, machine, request, step)
    found: list[Choice] = []
    for groups in range(1, layers + 1):
        size = ceil(layers / groups)
        longest = layers * decode + size * (mixed - decode)
        if longest <= request.tbt_ms * 1e6:
            found.append(Choice({"groups": groups, "layers": size}, (groups,), longest))
    if not found:
        reason = f"one layer of prompts in an iteration takes {(layers * decode + mixed - decode) / 1e6:.1f} ms"
        raise PresetRefused(preset=request.preset.value, reason=f"{reason}, the limit is {request.tbt_ms} ms")
    return Choices((tuple(found),), layers * mixed)


_PRESETS: dict[Preset, Callable[[ModelGraph, Machine, PresetRequest], Choices]] = {
    Preset.TOKEN_SPLIT: _token_split,
    Preset.EXPERT_CHUNKS: _expert_chunks,
    Preset.EXPERT_TILES: _expert_tiles,
    Preset.CPU_ATTENTION: _cpu_attention,
    Preset.HIDDEN_SYNC: _hidden_sync,
    Preset.LAYERED_PREFILL: _layered_prefill,
}
