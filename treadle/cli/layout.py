"""`treadle layout PROBLEM FILE`: offline placements with bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.cli.options import JsonFlag, OutputFolder
from treadle.cli.output import level_line, print_json, say
from treadle.codegen.folder import write_plan
from treadle.driver import layout as driver
from treadle.driver.memory_spaces import SpacesRequest, files, plan_spaces, summary
from treadle.frontends.layout_experts import ExpertOptions
from treadle.ir.certificate import Status
from treadle.ir.codec import encode
from treadle.ir.diagnostics import ExitCode
from treadle.ir.layout.adapters import AdaptersPlan
from treadle.ir.layout.batch import BatchPlan
from treadle.ir.layout.buffers import BuffersPlan
from treadle.ir.layout.experts import ExpertsPlan, Policy
from treadle.ir.layout.space_plan import SpacesPlan
from treadle.ir.layout.tiers import TiersPlan
from treadle.ir.plan import Plan
from treadle.solvers.buffers.solve import Effort
from treadle.verification.core import review_plan

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

Problem = Annotated[Path, typer.Argument(help="The problem's file.", metavar="FILE")]


@app.command("buffers")
def buffers(
    file: Problem,
    capacity: Annotated[
        int | None, typer.Option(help="Bytes of the memory; without it only the height counts.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Sequences of a traced training step.", min=1)] = 1,
    tokens: Annotated[int, typer.Option(help="Tokens of each sequence of a traced step.", min=1)] = 4096,
    machine: Annotated[
        str | None, typer.Option(help="GPU type or file: least step time within its memory, by copies and reruns.")
    ] = None,
    host_memory: Annotated[int | None, typer.Option(help="Bytes of the host's memory; unlimited unless given.")] = None,
    spaces: Annotated[Path | None, typer.Option(help="TOML of [[space]] tables instead of the host.")] = None,
    rerun: Annotated[bool, typer.Option(help="Kernels may be run again instead of keeping what they made.")] = True,
    rounds: Annotated[int, typer.Option(help="Rounds of search before giving up.", min=1)] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the search.")] = 0,
    output: OutputFolder = None,
    json: JsonFlag = False,
) -> None:
    """Offsets for buffers with known lifetimes, of the least height.

    FILE is a CSV (id, lower, upper, size), or a model's config.json, whose training step is traced on fake tensors.
    With --machine, buffers that do not fit are copied out, made again or kept on chip, in the least time.
    """
    if machine is not None:
        request = SpacesRequest(machine, batch, tokens, capacity, host_memory, str(spaces) if spaces else None, rerun)
        _run(lambda: plan_spaces(file, request, say), output, json)
        return
    if spaces is not None or host_memory is not None:
        raise typer.BadParameter("--spaces and --host-memory are for --machine: a CSV has no uses and no times")
    effort = Effort(rounds=rounds, seed=seed)
    if file.is_dir() or file.suffix == ".json":
        step = driver.StepShape(batch, tokens)
        _run(lambda: driver.plan_step_buffers(file, step, capacity, effort, say), output, json)
    else:
        _run(lambda: driver.plan_buffers(file, capacity, effort, say), output, json)


@app.command("experts")
def experts(
    file: Problem,
    slots: Annotated[int | None, typer.Option(help="Replica slots over all GPUs.", min=1)] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs.", min=1)] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes.", min=1)] = None,
    groups: Annotated[int | None, typer.Option(help="Expert groups.", min=1)] = None,
    policy: Annotated[Policy | None, typer.Option(help="Keep groups in nodes, or not.")] = None,
    output: OutputFolder = None,
    json: JsonFlag = False,
) -> None:
    """Replicas and GPUs of mixture-of-experts layers (JSON: loads, slots, gpus, nodes, groups), of the least peak."""
    options = ExpertOptions(slots, gpus, nodes, groups, policy)
    _run(lambda: driver.plan_experts(file, options), output, json)


@app.command("adapters")
def adapters(
    file: Problem,
    limit: Annotated[float, typer.Option(help="Deterministic seconds of search.", min=0.01)] = 2.0,
    output: OutputFolder = None,
    json: JsonFlag = False,
) -> None:
    """LoRA adapters onto replicas (JSON: adapters, replicas), of the least peak load and fewest moves."""
    _run(lambda: driver.plan_adapters(file, limit), output, json)


@app.command("tiers")
def tiers(
    file: Problem,
    nodes: Annotated[int, typer.Option(help="Nodes of the search tree.", min=1)] = 4000,
    output: OutputFolder = None,
    json: JsonFlag = False,
) -> None:
    """Weights, KV budgets and caches onto memory tiers (JSON: items, tiers, loss_budget), of the least reading time."""
    _run(lambda: driver.plan_tiers(file, nodes), output, json)


@app.command("batch")
def batch(
    file: Problem,
    block_tokens: Annotated[int, typer.Option(help="Tokens of a prefix block.", min=1)] = 512,
    cache_blocks: Annotated[int, typer.Option(help="Blocks the KV cache holds; 0 is no limit.", min=0)] = 0,
    output: OutputFolder = None,
    json: JsonFlag = False,
) -> None:
    """Order and groups of offline requests that share prefixes (JSONL with hash_ids), of the fewest computed blocks."""
    _run(lambda: driver.plan_batch(file, block_tokens, cache_blocks), output, json)


def _run(make: Callable[[], Plan], output: Path | None, as_json: bool) -> None:
    started = time.perf_counter()
    plan = make().sealed()
    solved_s = time.perf_counter() - started
    review = review_plan(plan, None)
    if output is not None:
        plan = write_plan(output, plan, files(plan.body) if isinstance(plan.body, SpacesPlan) else {})
    if as_json:
        print_json(_report(plan, solved_s, [str(finding) for finding in review.findings]))
    else:
        for level in plan.certificates[0].levels:
            typer.echo(level_line(level))
        if isinstance(plan.body, SpacesPlan):
            typer.echo(_told(summary(plan.body)))
        typer.echo(f"solved in {solved_s:.2f} s, {review.rederived} claims re-derived, {len(review.findings)} findings")
    if review.errors:
        raise typer.Exit(ExitCode.UNMET)
    if plan.certificates[0].status is not Status.OPTIMAL:
        raise typer.Exit(ExitCode.LIMIT)


def _report(plan: Plan, solved_s: float, findings: list[str]) -> dict[str, Any]:
    certificate = plan.certificates[0]
    return {
        "kind": plan.kind,
        "id": plan.id,
        "status": certificate.status.value,
        "levels": [{**encode(level), "gap": level.gap} for level in certificate.levels],
        "placement": _placement(plan.body),
        "solved_s": round(solved_s, 3),
        "findings": findings,
    }


def _told(facts: dict[str, Any]) -> str:
    """Return a step over memory spaces in two lines."""
    ms = {key: facts[f"{key}_ns"] / 1e6 for key in ("kernels", "rerun", "stall")}
    done = f"{facts['copied_buffers']} buffers copied ({facts['copied_bytes'] / 2**30:.1f} GiB each way)"
    done += f", {facts['rerun_buffers']} made again, {facts['on_chip_buffers']} kept on chip"
    return f"kernels {ms['kernels']:.1f} ms, run again {ms['rerun']:.1f} ms, stalled {ms['stall']:.1f} ms\n{done}"


def _placement(body: object) -> Any:
    """Return the decisions in the words of the problem."""
    match body:
        case BuffersPlan():
            offsets = zip(body.problem.buffers, body.offsets_bytes, strict=True)
            return {
                "height_bytes": body.height_bytes,
                "offsets_bytes": {buffer.id: offset for buffer, offset in offsets},
            }
        case SpacesPlan():
            return summary(body)
        case ExpertsPlan():
            k, gpus = body.problem.slots // body.problem.gpus, body.problem.gpus
            layers = [[list(slots[gpu * k : (gpu + 1) * k]) for gpu in range(gpus)] for slots in body.slots]
            return {"policy": body.problem.policy.value, "experts_per_gpu": layers}
        case AdaptersPlan():
            names = [replica.name for replica in body.problem.replicas]
            homes = zip(body.problem.adapters, body.homes, strict=True)
            return {"replica": {adapter.name: names[home] for adapter, home in homes}}
        case TiersPlan():
            chosen = zip(body.problem.items, body.options, body.tiers, strict=True)
            return {
                item.name: {"tier": body.problem.tiers[tier].name, "size_bytes": item.options[option].size_bytes}
                for item, option, tier in chosen
            }
        case BatchPlan():
            return {"order": list(body.order), "shared_blocks": list(body.shared_blocks)}
        case _:
            raise TypeError(type(body).__name__)
