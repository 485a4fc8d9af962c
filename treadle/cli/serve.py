"""`treadle serve SPEC.toml`: engine pools for a workload, proven and replayed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.cli.options import JsonFlag, OutputFolder
from treadle.cli.output import level_line, print_json, say
from treadle.driver.bundle import write_serving
from treadle.driver.serve import plan_deployment, robustness
from treadle.ir.certificate import Status
from treadle.ir.codec import encode
from treadle.ir.diagnostics import ExitCode
from treadle.ir.plan import Plan
from treadle.ir.serving.front import price_goal
from treadle.ir.serving.plan import ServingPlan
from treadle.ir.serving.units import UNITS
from treadle.solvers.serving.robust import Robust
from treadle.verification.core import review_plan

Specification = Annotated[Path, typer.Argument(help="deployment.toml, or its folder.", metavar="SPEC")]
Roofline = Annotated[bool, typer.Option("--roofline", help="Accept estimated step times where none are measured.")]


Pareto = Annotated[bool, typer.Option("--pareto", help="Also prove the front of price and rate, point by point.")]
Hedge = Annotated[
    float,
    typer.Option(
        "--hedge", help="Take the plan that loses least at worst if step times are off by this share.", min=0, max=0.9
    ),
]
RobustFlag = Annotated[bool, typer.Option("--robust/--no-robust", help="Say what errors of the step times would cost.")]


SHOWN_GAP = 1e-6
"""Gap of a front's point below which it counts as proven."""


def command(
    specification: Specification,
    roofline: Roofline = False,
    pareto: Pareto = False,
    robust: RobustFlag = True,
    hedge: Hedge = 0.0,
    output: OutputFolder = None,
    json: JsonFlag = False,
) -> None:
    """Choose engine pools for a workload under its latency levels, prove the choice, replay it, write its manifests.

    Exit status 0: proven, and the replay meets the levels. 3: proven in the cost model, but the replay misses a level,
    or stopped at a limit. 1: the request cannot be met. 2: bad input.
    """
    started = time.perf_counter()
    plan, deployment = plan_deployment(specification, roofline, say, pareto, hedge)
    files: list[str] = []
    if output is not None:
        plan = write_serving(output, plan, deployment).plan
        files = [artifact.path for artifact in plan.artifacts]
    plan = plan.sealed()
    seconds = time.perf_counter() - started
    review = review_plan(plan, output)
    errors = robustness(plan.body) if robust else ()
    if json:
        print_json(_report(plan, seconds, [str(finding) for finding in review.findings], files, errors))
    else:
        _print(plan, seconds, review.rederived, len(review.findings), errors)
    if review.errors:
        raise typer.Exit(ExitCode.UNMET)
    body: ServingPlan = plan.body
    if plan.certificates[0].status is not Status.OPTIMAL or (body.replay is not None and not body.replay.met):
        raise typer.Exit(ExitCode.LIMIT)


def _engines(body: ServingPlan) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    classes = body.pools.problem.classes
    pools = zip(body.pools.problem.engines, body.pools.pools.counts, body.pools.pools.routing_per_s, strict=True)
    for engine, count, routing in pools:
        if count:
            rows.append(
                {
                    "role": engine.role.value,
                    "gpu": engine.gpu,
                    "replicas": count,
                    "gpus_each": engine.gpus,
                    "kind": body.kind_of(engine).name,
                    "shape": encode(engine.shape),
                    "max_batch": engine.batch,
                    "chunk_tokens": engine.chunk_tokens,
                    "draft_tokens": engine.draft_tokens,
                    "prefill_share": engine.prefill_share,
                    "classes": [one.name for position, one in enumerate(classes) if engine.takes(position)],
                    "requests_per_s": sum(routing),
                    "routing_per_s": {one.name: rate for one, rate in zip(classes, routing, strict=True)},
                    "ttft_s": engine.ttft_s,
                    "tpot_s": engine.tpot_s,
                    "kv_tokens": engine.kv_tokens,
                    "kv_tokens_needed": engine.kv_tokens_needed,
                    "cache_blocks": engine.cache_blocks,
                    "hit_share": engine.hit_share,
                }
            )
    return rows


def _report(
    plan: Plan, seconds: float, findings: list[str], files: list[str], errors: tuple[Robust, ...]
) -> dict[str, Any]:
    body: ServingPlan = plan.body
    certificate = plan.certificates[0]
    return {
        "kind": plan.kind,
        "id": plan.id,
        "status": certificate.status.value,
        "model": body.model,
        "times": body.times,
        "gpus": body.pools.gpus_used,
        "rate_per_s": float(body.pools.rate_per_s),
        "engines": _engines(body),
        "classes": encode(body.pools.problem.classes),
        "levels": [{**encode(level), "gap": level.gap} for level in certificate.levels],
        "replay": encode(body.replay),
        "regret": [
            {"error": one.error, "median": one.median, "worst": one.worst, "best_worst": one.counts_worst}
            | {"best_in_the_worst_case": _named(body, one.counts)}
            for one in errors
        ],
        "pareto": [
            {"price": point.price, "rate_per_s": point.rate_per_s, "gap": point.gap}
            | {"engines": _named(body, point.pools.counts)}
            for point in body.front
        ],
        "policies": encode(body.policies),
        "files": files,
        "seconds": round(seconds, 3),
        "findings": findings,
    }


def _named(body: ServingPlan, counts: tuple[int, ...]) -> dict[str, int]:
    return {engine.name: n for engine, n in zip(body.pools.problem.engines, counts, strict=True) if n}


def _print(plan: Plan, seconds: float, claims: int, findings: int, errors: tuple[Robust, ...]) -> None:
    body: ServingPlan = plan.body
    typer.echo(f"{body.model}: step times {body.times}")
    several = len(body.pools.problem.classes) > 1
    for row in _engines(body):
        chosen = f"  {' + '.join(row['classes'])}" if several else ""
        latency = f"TTFT {row['ttft_s'] * 1e3:.0f} ms  " if row["ttft_s"] else ""
        latency += f"TPOT {row['tpot_s'] * 1e3:.1f} ms" if row["tpot_s"] else ""
        typer.echo(
            f"  {row['replicas']} x {row['role']:<11} {row['gpu']} {row['kind']:<8} batch {row['max_batch']:<5} "
            f"{row['requests_per_s']:.2f} req/s  {latency}{chosen}"
        )
    typer.echo(level_line(plan.certificates[0].levels[0]))
    if body.replay is not None:
        shown = ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in body.replay.percentiles_s.items())
        if body.replay.reused_share:
            shown += f"; {body.replay.reused_share:.1%} of the prompt tokens found in caches"
        verdict = "all levels met" if body.replay.met else "LEVELS MISSED"
        typer.echo(
            f"replay of {body.replay.requests:,} requests at {body.replay.rate_per_s:.2f}/s: {shown}; "
            f"{body.replay.attainment:.1%} within all; {verdict}"
        )
    for one in errors:
        better = (
            "" if one.counts == body.pools.pools.counts else f"; {_words(body, one.counts)}: {one.counts_worst:.1%}"
        )
        loss = f"loses {one.median:.1%} (median), {one.worst:.1%} at most"
        typer.echo(f"if step times are off by {one.error:.0%}: {loss}{better}")
    unit = UNITS[price_goal(body.pools.problem)][1]
    for point in body.front:
        typer.echo(
            f"  {point.price:>10,.6g} {unit:<10}{point.rate_per_s:>10.2f} req/s   "
            f"{f'gap {point.gap:.1%}' if point.gap > SHOWN_GAP else 'proven':<10}{_words(body, point.pools.counts)}"
        )
    typer.echo(f"planned in {seconds:.2f} s, {claims} claims re-derived, {findings} findings")


def _words(body: ServingPlan, counts: tuple[int, ...]) -> str:
    return " + ".join(f"{n} x {name}" for name, n in _named(body, counts).items())
