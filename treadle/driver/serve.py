"""`treadle serve`: from a deployment specification to a plan of engine pools, replayed on its own traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from treadle.costmodels.machines import load_machine
from treadle.costmodels.serving_replay import rate_curve, replay_plan
from treadle.driver.engine_sizes import beyond_context
from treadle.driver.serve_request import refuse_without_levels, request_of
from treadle.driver.versions import versions
from treadle.frontends.hf import load_model
from treadle.frontends.spec import load_deployment
from treadle.ir.certificate import Certificate
from treadle.ir.codec import decode, encode, file_locator
from treadle.ir.model import ModelGraph
from treadle.ir.plan import Input as PlanInput
from treadle.ir.plan import Plan, Prediction, digest, input_from
from treadle.ir.serving.plan import Policies, ServingPlan
from treadle.ir.serving.pools import Objective
from treadle.ir.serving.tree import Tree
from treadle.ir.workload import Deployment
from treadle.solvers.serving.fleet_plan import ServingRequest, plan_serving
from treadle.solvers.serving.front import pareto_front
from treadle.solvers.serving.robust import Robust, hedged, robust_choice


def plan_deployment(
    path: Path, roofline: bool, tell: Callable[[str], None], pareto: bool = False, hedge: float = 0.0
) -> tuple[Plan, Deployment]:
    """Plan the serving of a deployment specification.

    Args:
        path: `deployment.toml` or its folder.
        roofline: take estimates where the measured tables do not cover the model.
        tell: receives progress.
        pareto: also prove the Pareto front of price and rate.
        hedge: relative error of the step times for which the plan loses least at worst; 0: the plan best without one.

    Returns: the unsealed plan, and the specification.

    Raises:
        NoMeasuredTable: tables are missing and `roofline` is false.
        TreadleError: bad input, or a request that cannot be met.
    """
    deployment = load_deployment(path)
    model = load_model(deployment.model_path, weight_dtype=deployment.weight_dtype, kv_dtype=deployment.kv_dtype)
    specification = path / "deployment.toml" if path.is_dir() else path
    return plan_loaded(deployment, model, specification, roofline, tell, pareto, hedge), deployment


def plan_loaded(
    deployment: Deployment,
    model: ModelGraph,
    specification: Path,
    roofline: bool,
    tell: Callable[[str], None],
    pareto: bool = False,
    hedge: float = 0.0,
) -> Plan:
    """Plan the serving of a specification that is loaded already; see `plan_deployment`."""
    refuse_without_levels(deployment)
    options = deployment.serving
    request = request_of(deployment, model, roofline)
    if warning := beyond_context(model, request.requests):
        tell(warning)
    policies = Policies(
        options.router,
        options.admission,
        options.batching,
        keep_s=options.keep_s,
        handover=options.handover,
        sharing=options.sharing,
    )
    body, certificate = plan_serving(request, policies, tell)
    if hedge:
        body, certificate = _hedged(body, certificate, request, hedge, tell)
    if body.replay is not None:
        curve = rate_curve(body, request.requests, body.replay.rate_per_s)
        body = replace(body, replay=replace(body.replay, curve=curve))
    if pareto:
        body = replace(body, front=pareto_front(body.pools.problem))
    machines = [load_machine(offer.gpu) for offer in options.gpus] or [load_machine(deployment.cluster.gpu)]
    inputs = (
        input_from("specification", specification),
        input_from("model", Path(deployment.model_path)),
        *(PlanInput("machine", machine.id, digest(encode(machine))) for machine in machines),
    )
    chosen = {"roofline": roofline, "pareto": pareto, "hedge": hedge}
    return Plan("serving", inputs, chosen, versions(), body, (certificate,), predictions(body, certificate))


def _hedged(
    body: ServingPlan, certificate: Certificate, request: ServingRequest, error: float, tell: Callable[[str], None]
) -> tuple[ServingPlan, Certificate]:
    """Return the plan that loses least at worst, if another one does and its replay meets what the first one's did."""
    evidence = certificate.levels[0].evidence.get("tree")
    tree = decode(Tree, evidence, file_locator("certificate")) if evidence is not None else None
    pools, changed, found = hedged(body.pools, tree, error)
    if pools.pools.counts == body.pools.pools.counts:
        tell(f"step times off by {error:.0%}: no plan loses less than {found.worst:.1%} at worst; kept")
        return body, certificate
    rate = float(pools.rate_per_s) if request.objective is Objective.MOST_REQUESTS else request.rate_per_s
    other = replace(body, pools=pools)
    figures, _ = replay_plan(other, request.requests, rate)
    if body.replay is not None and body.replay.met and not figures.met:
        tell(f"step times off by {error:.0%}: the plan best at worst misses a level in the replay; kept the first")
        return body, certificate
    tell(f"step times off by {error:.0%}: loses {found.counts_worst:.1%} at worst instead of {found.worst:.1%}")
    return replace(other, replay=figures), changed


def predictions(body: ServingPlan, certificate: Certificate) -> tuple[Prediction, ...]:
    """Return the figures that the review recomputes."""
    used = [e for e, n in zip(body.pools.problem.engines, body.pools.pools.counts, strict=True) if n]
    return (
        Prediction(certificate.levels[0].name, certificate.levels[0].value, certificate.levels[0].unit),
        Prediction("gpus used", body.pools.gpus_used, "GPUs"),
        Prediction("ttft", max((engine.ttft_s for engine in used), default=0.0), "s"),
        Prediction("tpot", max((engine.tpot_s for engine in used), default=0.0), "s"),
    )


def robustness(body: ServingPlan) -> tuple[Robust, ...]:
    """Return what the plan may lose if step times are off by 10 and 20 %, and the plan that loses least at worst."""
    return tuple(robust_choice(body.pools, error) for error in (0.1, 0.2))
