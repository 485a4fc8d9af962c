"""`treadle serve SPEC.toml`: engine pools for a workload, proven and replayed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from treadle.cli.options import JsonFlag, OutputFolder
from treadle.cli.output import level_line, print_json, say
from treadle.codegen.folder import write_plan
from treadle.codegen.serving.files import serving_files
from treadle.costmodels.serving_regret import Regret, regret_of
from treadle.driver.serve import plan_deployment
from treadle.ir.certificate import Status
from treadle.ir.codec import encode
from treadle.ir.diagnostics import ExitCode
from treadle.ir.plan import Plan
from treadle.ir.serving.plan import ServingPlan
from treadle.verification.core import review_plan

Specification = Annotated[Path, typer.Argument(help="deployment.toml, or its folder.", metavar="SPEC")]
Roofline = Annotated[bool, typer.Option("--roofline", help="Accept estimated step times where none are measured.")]


def command(
    specification: Specification, roofline: Roofline = False, output: OutputFolder = None, json: JsonFlag = False
) -> None:
    """Choose engine pools for a workload under its latency levels, prove the choice, replay it, write its manifests.

    Exit status 0: proven, and the replay meets the levels. 3: proven in the cost model, but the replay misses a level,
    or stopped at a limit. 1: the request cannot be met. 2: bad input.
    """
    started = time.perf_counter()
    plan, deployment = plan_deployment(specification, roofline, say)
    files = serving_files(plan.body, deployment.cluster.namespace)
    plan = write_plan(output, plan, files) if output is not None else plan.sealed()
    seconds = time.perf_counter() - started
    review = review_plan(plan, output)
    if json:
        print_json(_report(plan, seconds, [str(finding) for finding in review.findings], sorted(files)))
    else:
        _print(plan, seconds, review.rederived, len(review.findings))
    if review.findings:
        raise typer.Exit(ExitCode.UNMET)
    body: ServingPlan = plan.body
    if plan.certificates[0].status is not Status.OPTIMAL or (body.replay is not None and not body.replay.met):
        raise typer.Exit(ExitCode.LIMIT)


def _regrets(body: ServingPlan) -> list[Regret]:
    found = [regret_of(body.pools, error) for error in (0.1, 0.2)]
    return [one for one in found if one is not None]


def _engines(body: ServingPlan) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    pools = zip(body.pools.problem.engines, body.pools.pools.counts, body.pools.pools.routing_per_s, strict=True)
    for engine, count, routing in pools:
        if count:
            rows.append(
                {
                    "role": engine.role.value,
                    "gpu": engine.gpu,
                    "replicas": count,
                    "gpus_each": engine.gpus,
                    "shape": encode(engine.shape),
                    "max_batch": engine.batch,
                    "chunk_tokens": engine.chunk_tokens,
                    "requests_per_s": sum(routing),
                    "ttft_s": engine.ttft_s,
                    "tpot_s": engine.tpot_s,
                    "kv_tokens": engine.kv_tokens,
                    "kv_tokens_needed": engine.kv_tokens_needed,
                }
            )
    return rows


def _report(plan: Plan, seconds: float, findings: list[str], files: list[str]) -> dict[str, Any]:
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
        "levels": [{**encode(level), "gap": level.gap} for level in certificate.levels],
        "replay": encode(body.replay),
        "regret": [encode(one) for one in _regrets(body)],
        "policies": encode(body.policies),
        "files": files,
        "seconds": round(seconds, 3),
        "findings": findings,
    }


def _print(plan: Plan, seconds: float, claims: int, findings: int) -> None:
    body: ServingPlan = plan.body
    typer.echo(f"{body.model}: step times {body.times}")
    for row in _engines(body):
        typer.echo(
            f"  {row['replicas']} x {row['role']:<11} {row['gpu']} x {row['gpus_each']}  batch {row['max_batch']:<5} "
            f"{row['requests_per_s']:.2f} req/s  TTFT {row['ttft_s'] * 1e3:.0f} ms  TPOT {row['tpot_s'] * 1e3:.1f} ms"
        )
    typer.echo(level_line(plan.certificates[0].levels[0]))
    if body.replay is not None:
        shown = ", ".join(f"{name} {value * 1e3:.1f} ms" for name, value in body.replay.percentiles_s.items())
        verdict = "all levels met" if body.replay.met else "LEVELS MISSED"
        typer.echo(
            f"replay of {body.replay.requests:,} requests at {body.replay.rate_per_s:.2f}/s: {shown}; "
            f"{body.replay.attainment:.1%} within all; {verdict}"
        )
    for one in _regrets(body):
        typer.echo(
            f"if step times are off by {one.error:.0%}: loses {one.median:.1%} (median), {one.worst:.1%} at most"
        )
    typer.echo(f"planned in {seconds:.2f} s, {claims} claims re-derived, {findings} findings")
