"""`treadle serve`: specification -> model, traffic, engine kinds -> pools, replay -> plan and deployment files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from treadle.costmodels.engine import kv_capacity_tokens, profile_of
from treadle.costmodels.errors import MissingTable
from treadle.costmodels.kernel_times import KernelTimes, RooflineTimes
from treadle.costmodels.machines import load_machine
from treadle.costmodels.measured import BACKENDS, TableTimes
from treadle.costmodels.serving_replay import sample_requests
from treadle.driver.versions import versions
from treadle.frontends.hf import load_model
from treadle.frontends.serving_nodes import free_gpus
from treadle.frontends.spec import load_deployment
from treadle.frontends.traces import arrival_rate_per_s
from treadle.ir.certificate import Certificate
from treadle.ir.codec import encode
from treadle.ir.errors import InvalidValue, MissingExtra
from treadle.ir.machine import Machine
from treadle.ir.model import GroupedGemm, ModelGraph
from treadle.ir.plan import Input as PlanInput
from treadle.ir.plan import Plan, Prediction, digest, input_from
from treadle.ir.serving.errors import NoMeasuredTable
from treadle.ir.serving.plan import KindOfEngine, ServingPlan
from treadle.ir.serving.pools import GpuPool, Objective, Shape
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import ClusterRequest, Deployment, Goal
from treadle.solvers.serving.fleet_plan import ServingRequest, plan_serving

_GOALS = {
    Goal.FEWEST_GPUS: Objective.FEWEST_GPUS,
    Goal.MOST_GOODPUT: Objective.MOST_REQUESTS,
    Goal.LEAST_COST: Objective.LEAST_COST,
}
DEFAULT_GPUS = 64
"""GPUs to choose from when the specification gives no number."""


def plan_deployment(path: Path, roofline: bool, tell: Callable[[str], None]) -> tuple[Plan, Deployment]:
    """Plan the serving of a deployment specification.

    Args:
        path: `deployment.toml` or its folder.
        roofline: take estimates where the measured tables do not cover the model.
        tell: receives progress.

    Returns: the unsealed plan, and the specification.

    Raises:
        NoMeasuredTable: tables are missing and `roofline` is false.
        TreadleError: bad input, or a request that cannot be met.
    """
    deployment = load_deployment(path)
    model = load_model(deployment.model_path, weight_dtype=deployment.weight_dtype, kv_dtype=deployment.kv_dtype)
    specification = path / "deployment.toml" if path.is_dir() else path
    return plan_loaded(deployment, model, specification, roofline, tell), deployment


def plan_loaded(
    deployment: Deployment, model: ModelGraph, specification: Path, roofline: bool, tell: Callable[[str], None]
) -> Plan:
    """Plan the serving of a specification that is loaded already; see `plan_deployment`."""
    refuse_without_levels(deployment)
    machine = load_machine(deployment.cluster.gpu)
    request = request_of(deployment, model, machine, roofline)
    body, certificate = plan_serving(request, tell=tell)
    inputs = (
        input_from("specification", specification),
        input_from("model", Path(deployment.model_path)),
        PlanInput("machine", machine.id, digest(encode(machine))),
    )
    options = {"roofline": roofline}
    return Plan("serving", inputs, options, versions(), body, (certificate,), predictions(body, certificate))


def predictions(body: ServingPlan, certificate: Certificate) -> tuple[Prediction, ...]:
    """Return the figures that the review recomputes."""
    used = [e for e, n in zip(body.pools.problem.engines, body.pools.pools.counts, strict=True) if n]
    return (
        Prediction(certificate.levels[0].name, certificate.levels[0].value, certificate.levels[0].unit),
        Prediction("gpus used", body.pools.gpus_used, "GPUs"),
        Prediction("ttft", max((engine.ttft_s for engine in used), default=0.0), "s"),
        Prediction("tpot", max((engine.tpot_s for engine in used), default=0.0), "s"),
    )


def request_of(deployment: Deployment, model: ModelGraph, machine: Machine, roofline: bool) -> ServingRequest:
    """Gather what the planner needs."""
    workload, cluster = deployment.workload, deployment.cluster
    rate = workload.rate_per_s or arrival_rate_per_s(workload.requests) or 1.0
    requests = workload.requests or sample_requests(workload.lengths, rate)
    pool = _pool(cluster, machine)
    lengths = Lengths.of(requests)
    kinds, source = engine_kinds(model, machine, max(pool.nodes), pool.total, lengths, roofline)
    return ServingRequest(
        model.name,
        deployment.name,
        source,
        model.kv_bytes_per_token(),
        machine.value("network_bandwidth_bytes_per_s"),
        requests,
        rate,
        deployment.service_levels,
        kinds,
        (pool,),
        _GOALS[deployment.goal],
        lengths,
    )


def _pool(cluster: ClusterRequest, machine: Machine) -> GpuPool:
    """Return the GPUs of the specification: those free in its node dump, else as many as it names."""
    watts = machine.value("tdp_w")
    if cluster.nodes_path:
        free = free_gpus(Path(cluster.nodes_path), machine.id)
        return GpuPool(machine.id, free.per_node, watts=watts, product=free.product)
    per_node = cluster.gpus_per_node or 8
    total = cluster.gpus or DEFAULT_GPUS
    nodes = (per_node,) * (total // per_node) + ((total % per_node,) if total % per_node else ())
    return GpuPool(machine.id, nodes, watts=watts)


def engine_kinds(
    model: ModelGraph, machine: Machine, per_node: int, total: int, lengths: Lengths, roofline: bool
) -> tuple[tuple[KindOfEngine, ...], str]:
    """Return the shapes whose weights fit, with profiles; and which step times they come from."""
    shapes = [shape for shape in _shapes(model, per_node) if kv_capacity_tokens(model, machine, shape) > 0]
    times, source = _times(model, machine, shapes, per_node, roofline)
    kinds = [
        KindOfEngine(
            machine.id,
            shape,
            shape.tensor * shape.pipeline,
            kv_capacity_tokens(model, machine, shape),
            profile_of(model, machine, times, shape, per_node),
        )
        for shape in shapes
    ]
    return tuple(kinds), source


def _shapes(model: ModelGraph, per_node: int) -> list[Shape]:
    """Tensor degrees that divide the heads; within a node, and over two nodes for models beyond one."""
    experts = any(isinstance(o.detail, GroupedGemm) for layer, _ in model.forward() for o in layer.operators)
    heads = [detail.heads for _, _, detail, _ in model.attentions()]
    shapes: list[Shape] = []
    degree = 1
    while degree <= 2 * per_node:
        divides = all(count % degree == 0 for count in heads)
        if divides and (degree <= per_node or degree % per_node == 0):
            shapes.append(Shape(degree, 1, 1, degree if experts else 1))
        degree *= 2
    return shapes


def _times(
    model: ModelGraph, machine: Machine, shapes: list[Shape], per_node: int, roofline: bool
) -> tuple[KernelTimes, str]:
    """Return measured times of the first framework that covers the model, or estimates if they are accepted."""
    missing: list[str] = []
    for backend in () if roofline or not shapes else BACKENDS:
        times = TableTimes(machine, backend)
        try:
            profile_of(model, machine, times, shapes[-1], per_node)
        except (MissingTable, MissingExtra) as error:
            missing.append(str(error))
            continue
        except KeyError as error:
            missing.append(f"{backend}: no table for {error}")
            continue
        return times, f"measured ({backend})"
    if missing and not roofline:
        raise NoMeasuredTable(what=f"{model.name} on {machine.id}", missing="; ".join(dict.fromkeys(missing)))
    return RooflineTimes(machine), "roofline"


def refuse_without_levels(deployment: Deployment) -> None:
    """A serving plan needs at least one level; raises InvalidValue."""
    if not deployment.service_levels:
        raise InvalidValue(message="the specification has no `slo`; a serving plan needs at least one level")
