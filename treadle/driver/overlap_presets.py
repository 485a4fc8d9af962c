"""`treadle overlap --preset`: one overlap decided alone -> plan with all its choices enumerated."""

from __future__ import annotations

from pathlib import Path

from treadle.costmodels.machines import load_machine
from treadle.costmodels.overlap_presets import (
    choices,
    chunk_choice,
    expert_shape,
    tile_choice,
    tiling_of,
    training_pipelines,
)
from treadle.driver.kernel import machine_input
from treadle.driver.versions import versions
from treadle.frontends.hf import load_model
from treadle.ir.certificate import Certificate, Level, ProofKind, Status
from treadle.ir.codec import encode
from treadle.ir.machine import Machine
from treadle.ir.model import ModelGraph
from treadle.ir.operator.choice import ChoiceBody, Preset, PresetRequest
from treadle.ir.plan import Plan, Prediction, input_from
from treadle.solvers.overlap.moe_degree import best_pipeline, best_tiles
from treadle.solvers.overlap.token_split import token_split


def plan_preset(model_path: Path, request: PresetRequest) -> Plan:
    """Return the best choice of a preset as a plan, not sealed yet.

    Raises:
        PresetRefused: the model has no experts, or no choice is within the limits; what reading the files raises.
    """
    machine, model = load_machine(request.machine), load_model(model_path)
    body = decided(model, machine, request)
    level = Level("time", "ns", body.time_ns, body.time_ns, Status.OPTIMAL, ProofKind.ENUMERATION)
    certificate = Certificate(request.preset.value, "choices as listed by the cost model", (level,))
    file = model_path / "config.json" if model_path.is_dir() else model_path
    inputs = (input_from("model", file), machine_input(machine))
    predictions = (Prediction("time", body.time_ns, "ns"), Prediction("without", body.without_ns, "ns"))
    return Plan("overlap-choice", inputs, encode(request), versions(), body, (certificate,), predictions)


def decided(model: ModelGraph, machine: Machine, request: PresetRequest) -> ChoiceBody:
    """Return the best choice: splits, chunks and tiles by searches with bounds, the others by going through them."""
    listed = choices(model, machine, request)
    match request.preset:
        case Preset.EXPERT_CHUNKS:
            chunked = [best_pipeline(pipeline)[0] for pipeline in training_pipelines(model, machine, request)]
            chosen = tuple(chunk_choice(best.degree, best.pieces, best.late_first, best.time_ns) for best in chunked)
        case Preset.EXPERT_TILES:
            share, found, _ = best_tiles(expert_shape(model, request), machine)
            chosen = (tile_choice(share, found.degree, found.late_first, found.time_ns),)
        case Preset.TOKEN_SPLIT:
            split = token_split(tiling_of(model, machine, request), request.step.tokens)
            chosen = tuple(
                next(one for one in stage if one.decisions["first"] == split.first) for stage in listed.stages
            )
        case _:
            chosen = listed.best()
    return ChoiceBody(model, machine, request, chosen, listed.without_ns)
