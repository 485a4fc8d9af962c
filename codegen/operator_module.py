"""A PyTorch module that runs the planned layer, and the options of engines that come near the plan."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from treadle.costmodels.training_lanes import BACKWARD, FORWARD
from treadle.ir.operator.plan import OverlapBody
from treadle.ir.version import VERSION


def operator_module(body: OverlapBody) -> str:
    """Return the source of a module with the plan's launches and a runner for them (needs PyTorch only).

    Of a training step its operators go forward with one microbatch and back with another.
    """
    training = body.step.training
    parts = ("overlap", "overlap_train") if training else ("overlap",)
    folder = files("treadle.codegen").joinpath("templates/torch")
    text = "".join(folder.joinpath(f"{part}.py.j2").read_text(encoding="utf-8") for part in parts)
    launches = sorted(_launches(body), key=lambda launch: (launch[2], launch[0]))
    count = len(body.nano_batches)
    values = {
        "states": "microbatch_going_forward, microbatch_going_back"
        if training
        else ", ".join(f"state_of_nano_batch_{number}" for number in range(1, count + 1)),
        "operators": "DenseTraining" if training else "DenseOperators",
        "lanes": "microbatches" if training else "nano-batches",
        "title": f"{body.loop.name} on {body.tensor_parallel} x {body.machine.id}",
        "version": VERSION,
        "first": body.loop.operators[0].name.partition(".")[2],
        "period": str(body.schedule.period_ns),
        "sizes": str(list(body.nano_batches)),
        "sequence_parallel": str(body.sequence_parallel),
        "launches": "\n".join(f"    {launch!r}," for launch in launches),
    }
    for name, value in values.items():
        text = text.replace("{{ " + name + " }}", value)
    return text


def _launches(body: OverlapBody) -> list[tuple[int, str, int, int, int]]:
    found: list[tuple[int, str, int, int, int]] = []
    for operator in body.loop.operators:
        lane, _, name = operator.name.partition(".")
        if body.step.training:
            batch, name = (FORWARD, BACKWARD).index(lane), operator.name
        else:
            batch = int(lane) - 1
        mode = body.schedule.mode(body.loop, operator.name)
        start = body.schedule.start_ns[operator.name]
        found.append((batch, name, start, start + mode.duration_ns, mode.shares_milli.get("sm", 1000)))
    return found


def engine_options(body: OverlapBody) -> str:
    """Return what vLLM and Megatron can express of the plan, and what they cannot, as JSON."""
    if body.step.training:
        return _training_options(body)
    halves = len(body.nano_batches) == 2
    equal = halves and body.nano_batches[0] == body.nano_batches[1]
    sizes = (
        [] if equal or not halves else [f"nano-batches of {list(body.nano_batches)} of 256: micro-batches are equal"]
    )
    shares = "shares of the SMs by operator, and the order of operators between nano-batches"
    vllm: dict[str, Any] = {"--tensor-parallel-size": body.tensor_parallel}
    if body.sequence_parallel:
        passes = {"enable_sequence_parallelism": True, "enable_async_tp": True}
        vllm["--compilation-config"] = {"pass_config": passes}
    megatron: dict[str, Any] = {"--tensor-model-parallel-size": body.tensor_parallel}
    if body.sequence_parallel:
        megatron |= {"--sequence-parallel": True, "--tp-comm-overlap": True}
    experts = any("experts" in operator.name for operator in body.loop.operators)
    if body.expert_parallel > 1:
        vllm |= {"--enable-expert-parallel": True, "--data-parallel-size": body.expert_parallel // body.tensor_parallel}
        megatron |= {"--expert-model-parallel-size": body.expert_parallel, "--expert-tensor-parallel-size": 1}
    if experts and halves:
        vllm["--enable-dbo"] = True
        megatron["--overlap-moe-expert-parallel-comm"] = True
    dense = [] if experts or not halves else ["two nano-batches at once: dual-batch overlap is for expert parallelism"]
    return (
        json.dumps(
            {
                "vllm": {"options": vllm, "not_expressed": [*dense, *sizes, shares]},
                "megatron": {"options": megatron, "not_expressed": [*dense, *sizes, shares]},
            },
            indent=1,
        )
        + "\n"
    )


def _training_options(body: OverlapBody) -> str:
    """Forward of one microbatch beside backward of another: Megatron has it for expert layers (its 1F1B overlap)."""
    experts = any("experts" in operator.name for operator in body.loop.operators)
    options: dict[str, Any] = {"--tensor-model-parallel-size": body.tensor_parallel}
    if body.sequence_parallel:
        options |= {"--sequence-parallel": True, "--tp-comm-overlap": True}
    missing = ["shares of the SMs by operator, and the order of operators between microbatches"]
    if body.expert_parallel > 1:
        options |= {"--expert-model-parallel-size": body.expert_parallel, "--expert-tensor-parallel-size": 1}
    if experts:
        options |= {"--overlap-moe-expert-parallel-comm": True, "--delay-wgrad-compute": True}
    else:
        missing.append("forward and backward of two microbatches at once: the overlap is for expert parallelism")
    serving = {"options": {}, "not_expressed": ["training"]}
    return json.dumps({"vllm": serving, "megatron": {"options": options, "not_expressed": missing}}, indent=1) + "\n"
