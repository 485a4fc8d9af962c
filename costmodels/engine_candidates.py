"""From an engine's profile to candidates: which batch and chunk meet the latencies, and what rate that sustains.

Prefill engines are M/G/1 queues of whole prompts. Decode engines hold the largest batch whose step meets the time per
token. Aggregated engines interleave: a share of steps carries a prompt chunk. The share, the batch (Little's law) and
the mean step time form a fixed point per request rate; the highest rate that meets all limits is kept. These are
estimates for the search; the event replay judges them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from treadle.costmodels.queues import largest_load, wait_quantile_mg1
from treadle.ir.serving.plan import KindOfEngine
from treadle.ir.serving.pools import Engine, Role
from treadle.ir.serving.profile import Profile
from treadle.ir.serving.traffic import Lengths
from treadle.ir.workload import Metric, ServiceLevel

BATCHES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 1024)
"""Batches of decode engines that are tried."""

CHUNKS = (512, 2048, 8192)
"""Token budgets of a step that are tried for aggregated engines."""

PREFILL_TOKENS = 16384
"""Tokens of a step of a prefill engine: a prompt up to this length is one step."""


def kind_name(kind: KindOfEngine) -> str:
    """Return the short name of a shape: `tp4`, `tp8-ep8`."""
    expert = f"-ep{kind.shape.expert}" if kind.shape.expert > 1 else ""
    stages = f"-pp{kind.shape.pipeline}" if kind.shape.pipeline > 1 else ""
    return f"tp{kind.shape.tensor}{stages}{expert}"


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


def candidates(
    kind: KindOfEngine, lengths: Lengths, limits: Limits, kv_bytes_per_token: float, link_bytes_per_s: float
) -> tuple[Engine, ...]:
    """Return the candidates of one kind of engine, at most one per role and chunk."""
    transfer = lengths.prompt_at(limits.ttft_share) * kv_bytes_per_token / link_bytes_per_s
    found = [_prefill(kind, lengths, limits, transfer), _decode(kind, lengths, limits)]
    aggregated = [_aggregated(kind, lengths, limits, chunk) for chunk in CHUNKS]
    kept = [engine for engine in aggregated if engine is not None]
    if kept:
        found.append(min(kept, key=lambda engine: engine.seconds[0]))
    return tuple(engine for engine in found if engine is not None)


def prompt_s(profile: Profile, tokens: int, chunk: int, batch: int = 0, context: float = 0.0) -> float:
    """Return the time a prompt takes alone in steps of `chunk` tokens, beside `batch` decoding sequences."""
    time, done = 0.0, 0
    while done < tokens:
        take = min(chunk, tokens - done)
        time += profile.step_s(take, done, batch, context)
        done += take
    return time


def _prefill(kind: KindOfEngine, lengths: Lengths, limits: Limits, transfer_s: float) -> Engine | None:
    times = [prompt_s(kind.profile, prompt, PREFILL_TOKENS) for prompt in lengths.prompts]
    mean, second = _moments(times)
    own = prompt_s(kind.profile, lengths.prompt_at(limits.ttft_share), PREFILL_TOKENS)
    need = lengths.batch_tokens(1)
    if own + transfer_s > limits.ttft_s or need > kind.kv_tokens:
        return None
    load = largest_load(mean, second, limits.ttft_share, limits.ttft_s - own - transfer_s)
    if load < 0.02:
        return None
    wait = wait_quantile_mg1(load / mean, mean, second, limits.ttft_share)
    return _engine(kind, Role.PREFILL, 1, mean / load, PREFILL_TOKENS, own + wait, 0.0, need)


def _decode(kind: KindOfEngine, lengths: Lengths, limits: Limits) -> Engine | None:
    best: Engine | None = None
    for batch in BATCHES:
        step = kind.profile.step_s(0, 0, batch, batch * lengths.mean_context)
        need = lengths.batch_tokens(batch)
        late = step * lengths.output_at(limits.e2e_share) > limits.e2e_s
        if step > limits.tpot_s or need > kind.kv_tokens or late:
            break
        seconds = lengths.mean_output * step / batch
        if best is None or seconds < best.seconds[0]:
            best = _engine(kind, Role.DECODE, batch, seconds, batch, 0.0, step, need)
    return best


def _aggregated(kind: KindOfEngine, lengths: Lengths, limits: Limits, chunk: int) -> Engine | None:
    low, high = 0.0, 1.0 / (prompt_s(kind.profile, ceil(lengths.mean_prompt), chunk) + 1e-9)
    best = None
    for _ in range(16):
        middle = (low + high) / 2
        engine = _aggregated_at(kind, lengths, limits, chunk, middle)
        if engine is None:
            high = middle
        else:
            low, best = middle, engine
    return best


def _aggregated_at(kind: KindOfEngine, lengths: Lengths, limits: Limits, chunk: int, rate: float) -> Engine | None:
    """Return the candidate at a request rate, None when a limit breaks."""
    profile, batch, step = kind.profile, 1.0, 0.0
    prompt = min(chunk, ceil(lengths.mean_prompt))
    load = 0.0
    for _ in range(30):
        context = batch * lengths.mean_context
        plain = profile.step_s(0, 0, max(1, round(batch)), context)
        mixed = profile.step_s(prompt, 0.5 * max(0.0, lengths.mean_prompt - prompt), round(batch), context)
        load = rate * mixed * lengths.mean_prompt / prompt
        if load >= 0.98:
            return None
        step = 1.0 / ((1 - load) / plain + load / mixed)
        updated = rate * lengths.mean_output * step
        if updated > 2048:
            return None
        if abs(updated - batch) < 1e-3 * batch:
            break
        batch = 0.5 * (batch + updated)
    peak = ceil(batch + 2 * batch**0.5)  # a Poisson stream holds about this many at its 97th percentile
    need = lengths.batch_tokens(peak)
    if step > limits.tpot_s or need > kind.kv_tokens:
        return None
    ttft = _aggregated_ttft(kind, lengths, limits, chunk, batch, load)
    if ttft > limits.ttft_s or ttft + step * lengths.output_at(limits.e2e_share) > limits.e2e_s:
        return None
    return _engine(kind, Role.AGGREGATED, peak, 1.0 / rate, chunk, ttft, step, need)


def _aggregated_ttft(
    kind: KindOfEngine, lengths: Lengths, limits: Limits, chunk: int, batch: float, load: float
) -> float:
    """Time to first token of prompts that queue for chunks beside a decoding batch; every fourth length suffices."""
    context = batch * lengths.mean_context
    whole = max(1, ceil(batch))
    times = [prompt_s(kind.profile, length, chunk, whole, context) for length in lengths.prompts[1::4]]
    mean, second = _moments(times)
    own = times[min(len(times) - 1, int(limits.ttft_share * len(times)))]
    return own + wait_quantile_mg1(min(load, 0.979) / mean, mean, second, limits.ttft_share)


def _engine(
    kind: KindOfEngine, role: Role, batch: int, seconds: float, chunk: int, ttft_s: float, tpot_s: float, need: int
) -> Engine:
    return Engine(
        f"{role.value} {kind.gpu} {kind_name(kind)}",
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
    )


def _moments(times: list[float]) -> tuple[float, float]:
    return sum(times) / len(times), sum(time * time for time in times) / len(times)
