"""`treadle overlap CONFIG.json`: one layer of a model with compute, memory and network busy at the same time."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.cli.options import JsonFlag, OutputFolder
from treadle.cli.output import level_line, number, print_json, print_table, say
from treadle.codegen.folder import write_plan
from treadle.costmodels.interference import unknown_pairs
from treadle.costmodels.overlap_presets import words
from treadle.driver.overlap import NanoBatchNumber, OverlapRequest, overlap_files, plan_overlap, what_more_buys
from treadle.driver.overlap_presets import plan_preset
from treadle.ir.certificate import Status
from treadle.ir.diagnostics import ExitCode
from treadle.ir.operator.choice import ChoiceBody, Preset, PresetRequest
from treadle.ir.operator.plan import OverlapBody, Step
from treadle.ir.operator.schedule import stream_profile
from treadle.ir.plan import Plan, figures, to_data
from treadle.verification.core import review_plan

Config = Annotated[Path, typer.Argument(help="The model's config.json, or its folder.", metavar="CONFIG")]
MachineName = Annotated[str, typer.Option("--machine", help="GPU type; see `treadle machines`.", metavar="ID")]
Ranks = Annotated[int, typer.Option("--tensor-parallel", help="GPUs that share each operator.", metavar="N")]
Decode = Annotated[int, typer.Option("--decode", help="Sequences that take one new token each.", metavar="N")]
Context = Annotated[int, typer.Option("--context", help="Tokens each decoding sequence has.", metavar="N")]
Prefill = Annotated[int, typer.Option("--prefill", help="Prompts read in the step.", metavar="N")]
Prompt = Annotated[int, typer.Option("--prompt", help="Tokens of each prompt.", metavar="N")]
Number = Annotated[str, typer.Option("--nano-batches", help="1, 2, 3, 4, or auto: try all.", metavar="N")]
Rows = Annotated[
    bool | None,
    typer.Option(
        "--sequence-parallel/--repeated-norms", help="Norms on each GPU's own rows, or on all rows; both tried."
    ),
]
Experts = Annotated[
    int, typer.Option("--expert-parallel", help="GPUs the experts are spread over; 1 cuts them like the rest.", min=1)
]
Train = Annotated[
    bool, typer.Option("--train", help="Forward of a microbatch (--prefill, --prompt) beside backward of another.")
]
Named = Annotated[Preset | None, typer.Option("--preset", help="Decide one overlap alone instead.")]
Nodes = Annotated[int, typer.Option("--nodes", help="Nodes of an expert-parallel group (expert-chunks).", min=1)]
Tbt = Annotated[float, typer.Option("--tbt", help="Longest iteration in ms (layered-prefill).", metavar="MS")]
WhatIf = Annotated[bool, typer.Option("--what-if", help="Plan again with a quarter more of each resource.")]


def command(
    config: Config,
    machine: MachineName,
    tensor_parallel: Ranks = 1,
    decode: Decode = 0,
    context: Context = 1,
    prefill: Prefill = 0,
    prompt: Prompt = 1,
    train: Train = False,
    nano_batches: Number = "auto",
    sequence_parallel: Rows = None,
    expert_parallel: Experts = 1,
    preset: Named = None,
    nodes: Nodes = 1,
    tbt: Tbt = 50.0,
    what_if: WhatIf = False,
    output: OutputFolder = None,
    json: JsonFlag = False,
) -> None:
    """Split a step into nano-batches and run their operators side by side, each on a share of the GPU.

    Exit status 0: the period is proven least for its nano-batches (one or two always are). 3: a bound is stated, the
    gap is open. 2: bad input.
    """
    started = time.perf_counter()
    step = Step(decode, context, prefill, prompt, train)
    if preset is not None:
        _preset(config, PresetRequest(preset, machine, tensor_parallel, step, nodes, tbt_ms=tbt), output, json)
        return
    request = OverlapRequest(
        machine, tensor_parallel, step, _number(nano_batches), sequence_parallel=sequence_parallel,
        expert_parallel=expert_parallel,
    )  # fmt: skip
    plan = plan_overlap(config, request, say)
    body: OverlapBody = plan.body
    plan = write_plan(output, plan, overlap_files(body)) if output is not None else plan.sealed()
    review = review_plan(plan, output)
    bought = what_more_buys(body) if what_if else {}
    seconds = time.perf_counter() - started
    if json:
        print_json({**to_data(plan), "what_more_buys_ns": bought})
    else:
        _print(plan, bought, seconds, review.rederived, len(review.findings))
    if review.errors:
        raise RuntimeError(f"the planner made an illegal plan: {review.findings[0]}")
    if plan.certificates[0]["period"].status is not Status.OPTIMAL:
        raise typer.Exit(ExitCode.LIMIT)


def _preset(config: Path, request: PresetRequest, output: Path | None, as_json: bool) -> None:
    plan = plan_preset(config, request)
    plan = write_plan(output, plan, {}) if output is not None else plan.sealed()
    review = review_plan(plan, output)
    body: ChoiceBody = plan.body
    gain = body.without_ns / body.time_ns
    if as_json:
        facts = {"time_us": body.time_ns / 1000, "without_us": body.without_ns / 1000, "gain": gain}
        print_json({**to_data(plan), "choice": words(request, body.chosen), **facts})
    else:
        sys.stdout.write(f"{request.preset.value}: {words(request, body.chosen)}\n")
        sys.stdout.write(f"  {level_line(plan.certificates[0].levels[0])}\n")
        print_table(("", "us"), [("with it", number(body.time_ns / 1000)), ("without", number(body.without_ns / 1000))])
        sys.stdout.write(f"  gain {gain:.2f}x; {review.rederived} claims re-derived, {len(review.findings)} findings\n")
    if review.errors:
        raise RuntimeError(f"the planner made an illegal plan: {review.findings[0]}")


def _number(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise NanoBatchNumber(found=f"`{text}`", expected="a number, or auto")
    return int(text)


def _print(plan: Plan, bought: dict[str, int], seconds: float, rederived: int, findings: int) -> None:
    body: OverlapBody = plan.body
    predicted: dict[str, Any] = {name: item.value for name, item in figures(plan).items()}
    sys.stdout.write(
        f"{body.loop.name} on {body.tensor_parallel} x {body.machine.name}, {body.step.tokens} tokens a step, "
        f"{_side_by_side(body)}"
        f"{', norms on own rows' if body.sequence_parallel else ''}"
        f"{f', experts over {body.expert_parallel} GPUs' if body.expert_parallel > 1 else ''}\n"
    )
    for level in plan.certificates[0].levels:
        sys.stdout.write(f"  {level_line(level)}\n")
    print_table(
        ("", "token/s", "of optimal"),
        [
            ("this plan", number(predicted["throughput"]), f"{predicted['share_of_optimal']:.1%}"),
            ("in turn", number(predicted["in_turn_throughput"]), f"{predicted['in_turn_share_of_optimal']:.1%}"),
            (
                f"optimal (rate of products / {6 if body.step.training else 2} parameters)",
                number(predicted["optimal_throughput"]),
                "100.0%",
            ),
        ],
    )
    if len(body.nano_batches) > 2:
        proven = min((ns for sizes, ns in body.alternatives.items() if sizes.count("+") < 2), default=None)
        if proven is not None:
            sys.stdout.write(
                f"  one or two nano-batches: {proven / 1000:.0f} us (--nano-batches 2 proves their least)\n"
            )
    for kind in unknown_pairs(body.machine.id):
        sys.stdout.write(
            f"  no interference data for {kind}-bound kernels on {body.machine.id}: they get their share of the SMs "
            "and no more (the worst case)\n"
        )
    print_table(("stream", "busy"), [(s.name, f"{_busy(body, s.name):.1%}") for s in body.loop.streams])
    for name, period_ns in bought.items():
        gain = body.schedule.period_ns / period_ns - 1
        sys.stdout.write(f"  25 % more {name}: {period_ns / 1000:.0f} us a layer ({gain:+.1%} throughput)\n")
    sys.stdout.write(f"  {rederived} claims re-derived, {findings} findings, {seconds:.1f} s\n")


def _side_by_side(body: OverlapBody) -> str:
    if body.step.training:
        return "forward of one microbatch beside backward of another"
    return f"nano-batches {'+'.join(map(str, body.nano_batches))} of 256"


def _busy(body: OverlapBody, stream: str) -> float:
    capacity = next(item.capacity_milli for item in body.loop.streams if item.name == stream)
    profile = stream_profile(body.loop, body.schedule, stream)
    return sum((high - low) * load for low, high, load in profile) / capacity / body.schedule.period_ns
