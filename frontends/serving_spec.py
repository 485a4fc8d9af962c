"""The `[serving]` table of a specification: pools, classes by length, GPU types, speculation, policies."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from pydantic import Field

from treadle.costmodels.replay.batching import BATCHINGS
from treadle.costmodels.replay.phases import HANDOVERS, SHARINGS
from treadle.costmodels.replay.policies import ADMISSIONS, ROUTERS
from treadle.frontends.errors import BadSpecification
from treadle.frontends.toml_files import Table
from treadle.ir.errors import InvalidValue
from treadle.ir.units import parse_quantity
from treadle.ir.workload import (
    POOL_KINDS,
    CacheTier,
    GpuOffer,
    LengthClass,
    LengthQuantiles,
    ServiceLevel,
    ServingOptions,
    Speculation,
)

if TYPE_CHECKING:
    from treadle.frontends.spec import Resolver

MOST_CLASSES = 4
"""Length classes at most: every run of neighbouring ones may get pools of its own."""


class ClassTable(Table):
    """A class of requests by prompt length, with levels of its own."""

    name: str
    prompt_up_to: int | None = Field(default=None, ge=1)
    slo: dict[str, str] = Field(default_factory=dict)


class GpusTable(Table):
    """GPUs of one type; prices in any currency per GPU and hour."""

    gpu: str
    count: int = Field(ge=1, le=10**7)
    per_node: int = Field(default=8, ge=1, le=10**4)
    cost_per_hour: float = Field(default=0.0, ge=0)
    watts: float = Field(default=0.0, ge=0)


class SpeculationTable(Table):
    """Speculative decoding: what is known of the draft."""

    acceptance: float
    draft_cost: float = 0.05
    lengths: list[int] = Field(default=[1, 2, 3, 4], max_length=16)


class TierTable(Table):
    """A cache tier of each node, shared evenly by its GPUs; the order is that of use."""

    name: str
    capacity: str
    bandwidth: str


class ServingTable(Table):
    """The whole table."""

    roofline: bool = False
    pools: list[str] = Field(default=["aggregated", "disaggregated", "length-separated"])
    classes: int | list[ClassTable] = Field(default=0)
    gpus: list[GpusTable] = Field(default=[])
    speculation: SpeculationTable | None = None
    prefill_shares: list[float] = Field(default=[0.3, 0.5, 0.7], max_length=8)
    tiers: list[TierTable] = Field(default=[], max_length=4)
    prefix_reuse: bool = False
    keep: str = ""
    router: str = ""
    admission: str = "prompt-fits"
    batching: str = "chunked"
    handover: str = "push"
    sharing: str = "fixed"


POLICIES = {
    "router": tuple(ROUTERS),
    "admission": tuple(ADMISSIONS),
    "batching": tuple(BATCHINGS),
    "handover": tuple(HANDOVERS),
    "sharing": tuple(SHARINGS),
}
"""Runtime policies by field, with the names the replay knows."""


def serving_options(table: ServingTable, lengths: LengthQuantiles, resolver: Resolver) -> ServingOptions:
    """Return the checked options; raises coded errors with the place in the specification."""
    for pool in table.pools:
        resolver.one_of(pool, list(POOL_KINDS), "kind of pool", "serving", "pools")
    router = table.router or ("prefix-affinity" if table.prefix_reuse else "least-loaded")
    chosen = (router, table.admission, table.batching, table.handover, table.sharing)
    for field, word in zip(POLICIES, chosen, strict=True):
        resolver.one_of(word, list(POLICIES[field]), field, "serving", field)
    keep = float(parse_quantity(table.keep, "time", resolver.place("serving", "keep"))) if table.keep else None
    try:
        return ServingOptions(
            table.roofline,
            tuple(table.pools),
            _classes(table, lengths, resolver),
            tuple(_offer(one, resolver) for one in table.gpus),
            _speculation(table.speculation),
            tuple(table.prefill_shares),
            tuple(_tier(one, resolver) for one in table.tiers),
            router,
            table.admission,
            table.batching,
            table.prefix_reuse,
            keep,
            table.handover,
            table.sharing,
        )
    except InvalidValue as error:
        error.place = resolver.place("serving")
        raise


def _classes(table: ServingTable, lengths: LengthQuantiles, resolver: Resolver) -> tuple[LengthClass, ...]:
    if isinstance(table.classes, int):
        if not 0 <= table.classes <= MOST_CLASSES:
            raise BadSpecification(
                place=resolver.place("serving", "classes"), message=f"{table.classes} classes; at most {MOST_CLASSES}"
            )
        return classes_by_tokens(lengths, table.classes)
    if len(table.classes) > MOST_CLASSES:
        raise BadSpecification(
            place=resolver.place("serving", "classes"), message=f"{len(table.classes)} classes; at most {MOST_CLASSES}"
        )
    return tuple(LengthClass(one.name, one.prompt_up_to, _levels(one, resolver)) for one in table.classes)


def _levels(one: ClassTable, resolver: Resolver) -> tuple[ServiceLevel, ...]:
    return tuple(resolver.service_level(name, limit, "serving", "classes") for name, limit in one.slo.items())


def classes_by_tokens(lengths: LengthQuantiles, count: int) -> tuple[LengthClass, ...]:
    """Return classes that hold about equal shares of all prompt tokens (none for fewer than two)."""
    if count < 2:
        return ()
    prompts = [lengths.prompt((step + 0.5) / 200) for step in range(200)]
    whole, ends, so_far = sum(prompts), list[int](), 0
    for prompt in prompts:
        so_far += prompt
        if len(ends) < count - 1 and so_far >= whole * (len(ends) + 1) / count and prompt < prompts[-1]:
            ends.append(max(prompt, 1))
    ends = sorted(set(ends))
    named = [LengthClass(f"to-{ceil(end)}", end) for end in ends]
    return (*named, LengthClass("longer", None)) if ends else ()


def _offer(table: GpusTable, resolver: Resolver) -> GpuOffer:
    gpu = resolver.machine(table.gpu, "serving", "gpus")
    return GpuOffer(gpu, table.count, table.per_node, table.cost_per_hour, table.watts)


def _speculation(table: SpeculationTable | None) -> Speculation | None:
    return Speculation(table.acceptance, table.draft_cost, tuple(table.lengths)) if table else None


def _tier(table: TierTable, resolver: Resolver) -> CacheTier:
    place = resolver.place("serving", "tiers")
    capacity = float(parse_quantity(table.capacity, "memory", place))
    bandwidth = float(parse_quantity(table.bandwidth, "bandwidth", place))
    return CacheTier(table.name, capacity, bandwidth)
