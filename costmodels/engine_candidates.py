"""From an engine's profile to candidates: which batch and chunk meet the latencies, and what rate that sustains.

Prefill engines are M/G/1 queues of whole prompts. Decode engines hold the largest batch whose step meets the time per
token. Aggregated engines interleave: a share of steps carries a prompt chunk. Their batch gives the request rate, the
share and the mean step (`engine_balance.py`); of the batches that meet all limits, the one of the highest rate is kept.
These are estimates for the search; the event replay judges them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import ceil, sqrt

from treadle.costmodels.engine_balance import (
    LEAST_BATCH,
    MOST_BATCH,
    Running,
    Traffic,
    cached,
    peak_of,
    running_with,
)
from treadle.costmodels.prompt_times import (
    PREFILL_TOKENS,
    moments,
    prefill_moments,
    prompt_s,
    prompt_times,
    some_cuts,
)
from treadle.costmodels.queues import largest_load, wait_quantile_mg1
from treadle.ir.serving.plan import KindOfEngine, ServingPlan, Stream
from treadle.ir.serving.pools import Engine, Role
from treadle.ir.serving.reuse import HitCurve
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import Metric, ServiceLevel

BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024)
"""Batches of decode engines that are tried."""

CHUNKS = (512, 2048, 8192)
"""Token budgets of a step that are tried for aggregated engines."""

DECODE_RESERVE = 0.92
"""Share of its rate that a decode phase is loaded with when it is planned for (the peer's usual reserve)."""

BATCH_ROUNDS = 16
"""Halvings of the range of an aggregated engine's batch: to one part in five thousand."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Latency limits in seconds with the share of requests they hold for; infinity where none is asked."""

    ttft_s: float = float("inf")
    ttft_share: float = 0.9
    tpot_s: float = float("inf")
    tpot_share: float = 0.9
    e2e_s: float = float("inf")
    e2e_share: float = 0.9

    @classmethod
    def of(cls, levels: tuple[ServiceLevel, ...], ttft_margin: float = 1.0, tpot_margin: float = 1.0) -> Limits:
        """Return the tightest level of each metric, multiplied by its margin."""
        found: dict[str, float] = {}
        margins = {Metric.TTFT: ttft_margin, Metric.TPOT: tpot_margin, Metric.E2E: min(ttft_margin, tpot_margin)}
        for level in sorted(levels, key=lambda one: -one.limit_s):
            word = level.metric.value
            found[f"{word}_s"] = level.limit_s * margins[level.metric]
            found[f"{word}_share"] = min(level.percentile / 100, 0.999)
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Setting:
    """What all candidates of a plan share: roles that may be used, margins, cache size, classes in all."""

    roles: tuple[Role, ...] = tuple(Role)
    ttft_margin: float = 1.0
    tpot_margin: float = 1.0
    kv_bytes_per_token: float = 0.0
    link_bytes_per_s: float = float("inf")
    classes: int = 1


def setting_of(plan: ServingPlan) -> Setting:
    """Return the setting of a plan's candidates."""
    return Setting(
        plan.roles,
        plan.policies.ttft_margin,
        plan.policies.tpot_margin,
        plan.kv_bytes_per_token,
        plan.link_bytes_per_s,
        len(plan.class_streams),
    )


def all_candidates(kinds: Sequence[KindOfEngine], streams: Sequence[Stream], setting: Setting) -> tuple[Engine, ...]:
    """Return the candidates of all kinds for all streams; of several streams, only those worth having."""
    return _all_candidates(tuple(kinds), tuple(streams), setting)


@lru_cache(maxsize=4)  # the rounds of a planner ask for the same ones with another load margin
def _all_candidates(
    kinds: tuple[KindOfEngine, ...], streams: tuple[Stream, ...], setting: Setting
) -> tuple[Engine, ...]:
    found: list[Engine] = []
    for stream in streams:
        for kind in kinds:
            found += candidates(kind, stream, setting)
    return undominated(found) if len(streams) > 1 else tuple(found)


def undominated(engines: Sequence[Engine]) -> tuple[Engine, ...]:
    """Leave out an engine whose work some number of a smaller kind do on the same GPUs, wherever it fits."""

    def better(one: Engine, other: Engine) -> bool:
        copies, rest = divmod(other.gpus, one.gpus)
        if rest:
            return False
        gain = other.seconds[0] * copies - one.seconds[0]
        return gain > 0 or (gain == 0 and one.name < other.name)

    alike: dict[object, list[Engine]] = {}
    for engine in engines:
        alike.setdefault(_work(engine), []).append(engine)
    return tuple(engine for engine in engines if not any(better(other, engine) for other in alike[_work(engine)]))


def _work(engine: Engine) -> object:
    """Return what engines have in common that can replace one another."""
    return engine.gpu, engine.role, engine.serves, engine.pool


def candidates(kind: KindOfEngine, stream: Stream, setting: Setting) -> tuple[Engine, ...]:
    """Return the candidates of one kind of engine for one stream, at most one per role."""
    lengths = stream.lengths
    limits = Limits.of(stream.levels, setting.ttft_margin, setting.tpot_margin)
    link = kind.link_bytes_per_s or setting.link_bytes_per_s
    transfer = lengths.prompt_at(limits.ttft_share) * setting.kv_bytes_per_token / link
    found: list[Engine | None] = []
    if Role.AGGREGATED in setting.roles:
        best = _split if kind.prefill_share else _best_aggregated
        found.append(best(kind, lengths, limits, stream.hits))
    if not kind.prefill_share:
        # Every request's cache crosses the network: engines are not faster than their links.
        floor = lengths.mean_prompt * setting.kv_bytes_per_token / (link * kind.gpus)
        both = (_prefill(kind, lengths, limits, transfer, stream.hits), _decode(kind, lengths, limits))
        found += [_no_faster(one, floor) for one in both if one is not None and one.role in setting.roles]
    return tuple(_for_stream(engine, stream, setting.classes) for engine in found if engine is not None)


def _best_aggregated(kind: KindOfEngine, lengths: Lengths, limits: Limits, hits: HitCurve | None) -> Engine | None:
    """Return the candidate of the highest rate among all chunks.

    First tokens are what takes time to compute: without their limit each chunk has a rate that it cannot exceed.
    """
    context = lengths.mean_context
    without: list[tuple[Traffic, Running]] = []
    for chunk in CHUNKS:
        traffic = Traffic(lengths, context, hits, chunk)
        if most := _busiest(partial(_within_step, kind, traffic, limits), MOST_BATCH):
            without.append((traffic, most))
    best: tuple[Traffic, Running] | None = None
    for traffic, most in sorted(without, key=lambda one: -one[1].rate_per_s):
        if best is not None and most.rate_per_s <= best[1].rate_per_s:
            break
        running = _in_time(kind, traffic, limits, most)
        if running is not None and (best is None or running.rate_per_s > best[1].rate_per_s):
            best = traffic, running
    return _aggregated(kind, limits, *best) if best is not None else None


def _no_faster(engine: Engine, seconds: float) -> Engine:
    return replace(engine, seconds=(max(engine.seconds[0], float(f"{seconds:.9g}")),))


def _for_stream(engine: Engine, stream: Stream, classes: int) -> Engine:
    """Name the stream, and give every class the time of the mix."""
    if not stream.classes:
        return engine
    name = f"{engine.name} {stream.name}"
    serves = stream.classes if len(stream.classes) < classes else ()
    return replace(engine, name=name, seconds=engine.seconds * classes, serves=serves)


def _split(kind: KindOfEngine, lengths: Lengths, limits: Limits, hits: HitCurve | None) -> Engine | None:
    """Both phases side by side on shares of each GPU, one cache: the slower phase sets the rate (semi-PD, Nexus)."""
    first, second = _on_share(kind, kind.prefill_share), _on_share(kind, 1 - kind.prefill_share)
    decode = _decode(second, lengths, limits)
    prefill = _prefill(first, lengths, limits, 0.0, hits, decode.kv_tokens_needed) if decode is not None else None
    if prefill is None or decode is None:
        return None
    seconds = max(prefill.seconds[0], decode.seconds[0] / DECODE_RESERVE)
    need = decode.kv_tokens_needed
    split = _engine(kind, Role.AGGREGATED, decode.batch, seconds, PREFILL_TOKENS, prefill.ttft_s, decode.tpot_s, need)
    return replace(split, cache_blocks=prefill.cache_blocks, hit_share=prefill.hit_share)


@lru_cache(maxsize=4096)  # for every stream alike
def _on_share(kind: KindOfEngine, share: float) -> KindOfEngine:
    return replace(kind, profile=kind.profile.on_share(share), prefill_share=0.0)


def _prefill(
    kind: KindOfEngine,
    lengths: Lengths,
    limits: Limits,
    transfer_s: float,
    hits: HitCurve | None,
    needed_tokens: int = 0,
) -> Engine | None:
    """Prompts in the order of arrival.

    What caches find shortens the mean; the prompt at the limit's percentile, and the ratio of the moments, stay those
    without: whole prompts are found or missed.
    """
    need = lengths.batch_tokens(1)
    reuse, blocks = cached(kind, hits, max(need, needed_tokens))
    mean, second = prefill_moments(kind.profile, lengths)
    if reuse.share:
        whole = mean
        mean = prefill_moments(kind.profile, lengths, reuse.share)[0] + reuse.read_s_per_token * lengths.mean_prompt
        second *= mean / whole
    own = prompt_s(kind.profile, lengths.prompt_at(limits.ttft_share), PREFILL_TOKENS)
    if own + transfer_s > limits.ttft_s or need > kind.kv_tokens:
        return None
    load = largest_load(mean, second, limits.ttft_share, limits.ttft_s - own - transfer_s)
    if load < 0.02:
        return None
    wait = wait_quantile_mg1(load / mean, mean, second, limits.ttft_share)
    engine = _engine(kind, Role.PREFILL, 1, mean / load, PREFILL_TOKENS, own + wait, 0.0, need)
    return replace(engine, cache_blocks=blocks, hit_share=reuse.share)


def _decode(kind: KindOfEngine, lengths: Lengths, limits: Limits) -> Engine | None:
    context, longest = lengths.mean_context, lengths.output_at(limits.e2e_share)
    most_step = min(limits.tpot_s, limits.e2e_s / longest)
    best: tuple[float, int, float, int] | None = None
    for batch in BATCHES:
        step, need = kind.profile.step_s(0, 0, batch, batch * context), lengths.batch_tokens(batch)
        if step > most_step or need > kind.kv_tokens:
            break
        if best is None or step / batch < best[0]:
            best = step / batch, batch, step, need
    if best is None:
        return None
    per_token, batch, step, need = best
    return _engine(kind, Role.DECODE, batch, lengths.mean_output * per_token, batch, 0.0, step, need)


def _busiest(state: Callable[[float], Running | None], high: float) -> Running | None:
    """Return the state of the highest rate on the way to the largest batch that has one, by bisection in logarithms."""
    low, best = LEAST_BATCH, None
    for _ in range(BATCH_ROUNDS):
        middle = sqrt(low * high)
        running = state(middle)
        if running is None:
            high = middle
            continue
        low = middle
        if best is None or running.rate_per_s > best.rate_per_s:
            best = running
    return best


def _within_step(kind: KindOfEngine, traffic: Traffic, limits: Limits, batch: float) -> Running | None:
    """Return the state with a batch; None where it takes too long for a token or for all, or does not fit the cache."""
    lengths = traffic.lengths
    if lengths.batch_tokens(peak_of(batch)) > kind.kv_tokens:
        return None
    running = running_with(kind, traffic, batch)
    if running is None or running.step_s > limits.tpot_s:
        return None
    return running if running.step_s * lengths.output_at(limits.e2e_share) <= limits.e2e_s else None


def _in_time(kind: KindOfEngine, traffic: Traffic, limits: Limits, most: Running) -> Running | None:
    """Return the busiest state, up to `most`, whose first tokens (and so whole answers) are in time."""

    def timely(running: Running | None) -> Running | None:
        if running is None:
            return None
        ttft = _aggregated_ttft(kind, traffic, limits, running)
        whole = ttft + running.step_s * traffic.lengths.output_at(limits.e2e_share)
        return running if ttft <= limits.ttft_s and whole <= limits.e2e_s else None

    return timely(most) or _busiest(lambda batch: timely(_within_step(kind, traffic, limits, batch)), most.batch)


def _aggregated(kind: KindOfEngine, limits: Limits, traffic: Traffic, running: Running) -> Engine:
    """Return the candidate in a state."""
    peak = peak_of(running.batch)
    ttft, need = _aggregated_ttft(kind, traffic, limits, running), traffic.lengths.batch_tokens(peak)
    engine = _engine(kind, Role.AGGREGATED, peak, 1.0 / running.rate_per_s, traffic.chunk, ttft, running.step_s, need)
    return replace(engine, cache_blocks=running.blocks, hit_share=running.reuse.share)


def _aggregated_ttft(kind: KindOfEngine, traffic: Traffic, limits: Limits, running: Running) -> float:
    """Time to first token of prompts that queue for chunks beside a decoding batch."""
    context = running.batch * traffic.mean_context
    cuts = some_cuts(traffic.lengths.prompts, traffic.chunk)
    times = prompt_times(kind.profile, cuts, traffic.chunk, max(1, ceil(running.batch)), context)
    mean, second = moments(times)
    own = times[min(len(times) - 1, int(limits.ttft_share * len(times)))]
    if running.reuse.share:
        mean, second = mean * (1 - running.reuse.share), second * (1 - running.reuse.share)
    return own + wait_quantile_mg1(min(running.load, 0.979) / mean, mean, second, limits.ttft_share)


def _engine(
    kind: KindOfEngine, role: Role, batch: int, seconds: float, chunk: int, ttft_s: float, tpot_s: float, need: int
) -> Engine:
    return Engine(
        f"{role.value} {kind.gpu} {kind.name}",
        role,
        kind.gpu,
        kind.gpus,
        kind.shape,
        batch,
        (float(f"{seconds:.9g}"),),
        "",
        chunk,
        float(f"{ttft_s:.9g}"),
        float(f"{tpot_s:.9g}"),
        kind.kv_tokens,
        need,
        draft_tokens=kind.profile.draft_tokens,
        prefill_share=kind.prefill_share,
    )
