"""From a specification to what the planner needs: streams of requests, GPU types, kinds of engines with profiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from treadle.costmodels.engine import kv_capacity_tokens, profile_of
from treadle.costmodels.errors import MissingTable
from treadle.costmodels.kernel_times import KernelTimes, RooflineTimes
from treadle.costmodels.machines import load_machine
from treadle.costmodels.measured import BACKENDS, TableTimes
from treadle.costmodels.prefix_reuse import has_blocks, hit_curve
from treadle.costmodels.serving_replay import sample_requests, speed_of
from treadle.driver.engine_sizes import refuse_what_no_engine_holds, shapes_of
from treadle.frontends.serving_nodes import free_gpus
from treadle.frontends.traces import arrival_rate_per_s
from treadle.ir.errors import InvalidValue, MissingExtra
from treadle.ir.machine import Machine
from treadle.ir.model import ModelGraph
from treadle.ir.serving.errors import NoMeasuredTable, NoPrefixBlocks
from treadle.ir.serving.plan import KindOfEngine, Stream
from treadle.ir.serving.pools import GpuPool, Objective, RequestClass, Role, Shape
from treadle.ir.serving.reuse import HitCurve, TierShare
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import (
    BLOCK_TOKENS,
    CacheTier,
    Deployment,
    Goal,
    LengthClass,
    Metric,
    Request,
    ServiceLevel,
    ServingOptions,
)
from treadle.solvers.serving.fleet_plan import ServingRequest

GOALS = {
    Goal.FEWEST_GPUS: Objective.FEWEST_GPUS,
    Goal.MOST_GOODPUT: Objective.MOST_REQUESTS,
    Goal.LEAST_COST: Objective.LEAST_COST,
    Goal.LEAST_POWER: Objective.LEAST_POWER,
}
DEFAULT_GPUS = 64
"""GPUs to choose from when the specification gives no number."""


def request_of(deployment: Deployment, model: ModelGraph, roofline: bool) -> ServingRequest:
    """Gather what the planner needs.

    Raises:
        NoMeasuredTable: tables are missing and estimates are not accepted.
        TooFewGpus, LongRequests: no engine on the GPUs holds the model and its longest request.
        TreadleError: a machine or node dump that cannot be read.
    """
    workload, options = deployment.workload, deployment.serving
    rate = workload.rate_per_s or arrival_rate_per_s(workload.requests) or 1.0
    requests = workload.requests or sample_requests(workload.lengths, rate)
    offers = gpu_pools(deployment)
    refuse_what_no_engine_holds(model, offers, requests)
    lengths = Lengths.of(requests)
    reuse = _reuse_of(requests, rate, options)
    kinds: list[KindOfEngine] = []
    sources: dict[str, None] = {}
    per_token = model.kv_bytes_per_token()
    for machine, pool in offers:
        found, source = engine_kinds(model, machine, max(pool.nodes), pool.total, roofline or options.roofline)
        kinds += [variant for kind in found for variant in variants(kind, options, max(pool.nodes), per_token)]
        sources[source] = None
    classes, streams = classed(requests, deployment.service_levels, options, reuse)
    return ServingRequest(
        model.name,
        deployment.name,
        ", ".join(sources),
        per_token,
        min(machine.value("network_bandwidth_bytes_per_s") for machine, _ in offers),
        requests,
        rate,
        deployment.service_levels,
        tuple(kinds),
        tuple(pool for _, pool in offers),
        GOALS[deployment.goal],
        lengths,
        roles_of(options),
        streams,
        classes,
        reuse(requests) if reuse else None,
    )


Reuse = Callable[[Sequence[Request]], HitCurve]
"""From requests to what caches find of their prompts."""


def _reuse_of(requests: Sequence[Request], rate: float, options: ServingOptions) -> Reuse | None:
    """Return how reuse is measured; None where it is not asked for.

    Raises:
        NoPrefixBlocks: it is asked for, and no request names its blocks.
    """
    if not options.prefix_reuse:
        return None
    if not has_blocks(requests):
        raise NoPrefixBlocks()
    speed = speed_of(requests, rate)
    return lambda some: hit_curve(some, options.keep_s or inf, speed)


def roles_of(options: ServingOptions) -> tuple[Role, ...]:
    """Return the roles that the wanted kinds of pools need."""
    roles: list[Role] = []
    if {"aggregated", "split"} & set(options.pools) or set(options.pools) == {"length-separated"}:
        roles.append(Role.AGGREGATED)
    if "disaggregated" in options.pools:
        roles += [Role.PREFILL, Role.DECODE]
    return tuple(roles)


def gpu_pools(deployment: Deployment) -> list[tuple[Machine, GpuPool]]:
    """Return the GPU types with their numbers: of the node dump, of `[serving] gpus`, or of `[cluster]`."""
    cluster, offers = deployment.cluster, deployment.serving.gpus
    if not offers:
        machine = load_machine(cluster.gpu)
        watts = machine.value("tdp_w")
        if cluster.nodes_path:
            free = free_gpus(Path(cluster.nodes_path), machine.id)
            return [(machine, GpuPool(machine.id, free.per_node, watts=watts, product=free.product))]
        total = cluster.gpus or DEFAULT_GPUS
        return [(machine, GpuPool(machine.id, _nodes(total, cluster.gpus_per_node or 8), watts=watts))]
    found: list[tuple[Machine, GpuPool]] = []
    for offer in offers:
        machine = load_machine(offer.gpu)
        product, nodes = "", _nodes(offer.count, offer.per_node)
        if cluster.nodes_path:
            free = free_gpus(Path(cluster.nodes_path), machine.id)
            product, nodes = free.product, _at_most(free.per_node, offer.count)
        elif len(offers) > 1:
            product = f"NVIDIA-{machine.id.upper()}"
        watts = offer.watts or machine.value("tdp_w")
        found.append((machine, GpuPool(machine.id, nodes, offer.cost_per_hour or 1.0, watts, product)))
    return found


def _nodes(total: int, per_node: int) -> tuple[int, ...]:
    return (per_node,) * (total // per_node) + ((total % per_node,) if total % per_node else ())


def _at_most(per_node: Sequence[int], count: int) -> tuple[int, ...]:
    """Return the fullest nodes that hold at most so many GPUs together."""
    kept: list[int] = []
    for room in sorted(per_node, reverse=True):
        take = min(room, count - sum(kept))
        if take > 0:
            kept.append(take)
    return tuple(kept)


def classed(
    requests: Sequence[Request],
    levels: tuple[ServiceLevel, ...],
    options: ServingOptions,
    reuse: Reuse | None = None,
) -> tuple[tuple[RequestClass, ...], tuple[Stream, ...]]:
    """Divide requests into the classes of the options; empty where there are none.

    Returns: the classes with their shares, and a stream for every run of neighbouring classes (each class alone and all
    together when pools may not be separated by length).
    """
    sorted_by_class = _by_class(requests, options.classes)
    kept = [(one, mine) for one, mine in zip(options.classes, sorted_by_class, strict=True) if mine]
    if len(kept) < 2:
        return (), ()
    last = len(kept) - 1
    classes = tuple(
        RequestClass(
            one.name,
            float(f"{len(mine) / len(requests):.9g}"),
            max(1, round(sum(request.prompt_tokens for request in mine) / len(mine))),
            max(1, round(sum(request.output_tokens for request in mine) / len(mine))),
            one.prompt_up_to if index < last else None,
        )
        for index, (one, mine) in enumerate(kept)
    )
    runs = [(first, end) for first in range(len(kept)) for end in range(first, len(kept))]
    streams: list[Stream] = []
    for first, end in runs:
        mine = [request for _, group in kept[first : end + 1] for request in group]
        positions = tuple(range(first, end + 1))
        own = [level for one, _ in kept[first : end + 1] for level in one.levels]
        name = "+".join(one.name for one, _ in kept[first : end + 1])
        if reuse:  # blocks are found in the order of arrival
            mine.sort(key=lambda request: request.arrival_s)
        hits = reuse(mine) if reuse else None
        streams.append(Stream(name, positions, Lengths.of(mine), tightest((*levels, *own)), hits))
    return classes, tuple(streams)


def _by_class(requests: Sequence[Request], classes: Sequence[LengthClass]) -> list[list[Request]]:
    found: list[list[Request]] = [[] for _ in classes]
    ends = [one.prompt_up_to or 10**9 for one in classes]
    for request in requests if classes else ():
        found[next(index for index, end in enumerate(ends) if request.prompt_tokens <= end)].append(request)
    return found


def tightest(levels: Sequence[ServiceLevel]) -> tuple[ServiceLevel, ...]:
    """Return levels without those that another one implies: a lower limit at the same or a higher percentile."""
    kept = list(dict.fromkeys(levels))

    def implied(one: ServiceLevel) -> bool:
        return any(
            other != one
            and other.metric is one.metric
            and other.limit_s <= one.limit_s
            and other.percentile >= one.percentile
            for other in kept
        )

    order = list(Metric)
    return tuple(
        sorted((one for one in kept if not implied(one)), key=lambda one: (order.index(one.metric), one.limit_s))
    )


def variants(
    kind: KindOfEngine, options: ServingOptions, per_node: int = 8, kv_bytes_per_token: float = 1.0
) -> list[KindOfEngine]:
    """Return a kind with and without drafts, with its GPUs split between the phases, with one tier more each time."""
    found = [kind]
    if options.speculation is not None:
        chosen = options.speculation
        for length in chosen.lengths:
            accepted = float(f"{chosen.tokens_per_step(length):.9g}")
            found.append(replace(kind, profile=kind.profile.speculating(length, accepted, chosen.draft_cost)))
    if "split" in options.pools:
        found += [replace(one, prefill_share=share) for one in found for share in options.prefill_shares]
    if not {"aggregated", "disaggregated", "length-separated"} & set(options.pools):
        found = [one for one in found if one.prefill_share]
    tiers = [share for tier in options.tiers if (share := tier_share(tier, kind.gpus / per_node, kv_bytes_per_token))]
    return [replace(one, tiers=tuple(tiers[:used])) for one in found for used in range(len(tiers) + 1)]


def tier_share(tier: CacheTier, nodes: float, kv_bytes_per_token: float) -> TierShare | None:
    """Return what an engine on so many nodes (a fraction, or several) has of a tier; None when no block fits."""
    blocks = int(tier.capacity_bytes * nodes / (kv_bytes_per_token * BLOCK_TOKENS))
    read = float(f"{kv_bytes_per_token / (tier.bandwidth_bytes_per_s * nodes):.9g}")
    return TierShare(tier.name, blocks, read) if blocks else None


def engine_kinds(
    model: ModelGraph, machine: Machine, per_node: int, total: int, roofline: bool
) -> tuple[tuple[KindOfEngine, ...], str]:
    """Return the shapes whose weights fit on `total` GPUs, with profiles; and which step times they come from."""
    shapes = [
        shape
        for shape in shapes_of(model, per_node)
        if shape.tensor * shape.pipeline <= max(total, per_node) and kv_capacity_tokens(model, machine, shape) > 0
    ]
    times, source = _times(model, machine, shapes, per_node, roofline)
    kinds = [
        KindOfEngine(
            machine.id,
            shape,
            shape.tensor * shape.pipeline,
            kv_capacity_tokens(model, machine, shape),
            profile_of(model, machine, times, shape, per_node),
            machine.value("network_bandwidth_bytes_per_s"),
        )
        for shape in shapes
    ]
    return tuple(kinds), source


def _times(
    model: ModelGraph, machine: Machine, shapes: list[Shape], per_node: int, roofline: bool
) -> tuple[KernelTimes, str]:
    """Return measured times of the first framework that covers the model, or estimates if they are accepted."""
    missing: list[str] = []
    for backend in BACKENDS if shapes else ():
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
    own = [level for one in deployment.serving.classes for level in one.levels]
    if not deployment.service_levels and not own:
        raise InvalidValue(message="the specification has no `slo`; a serving plan needs at least one level")
