"""What a model is asked to do: requests, length quantiles, service levels - and the hot loops that follow from them.

No symbolic algebra here: planners and code generators that need only numbers import this module cheaply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from treadle.ir.errors import InvalidValue


class Phase(Enum):
    """The two phases of serving a request."""

    PREFILL = "prefill"
    """All prompt tokens at once."""
    DECODE = "decode"
    """One new token a step."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a trace.

    `arrival_s` counts from the trace's first request. `block_hashes` name the prompt's blocks of
    `BLOCK_TOKENS` tokens: equal hashes are equal prefixes (empty when the trace does not say).
    """

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    block_hashes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not (self.arrival_s >= 0 and math.isfinite(self.arrival_s)):
            raise InvalidValue(message=f"a request arrives at {self.arrival_s} s; expected 0 or later")
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise InvalidValue(
                message=f"a request has {self.prompt_tokens} prompt and {self.output_tokens} output tokens; "
                "expected at least 1 of each"
            )


BLOCK_TOKENS = 512
"""Tokens of a hashed prompt block (Mooncake trace format)."""


@dataclass(frozen=True, slots=True)
class QuantilePoint:
    """Prompt and output length that the share `probability` of requests does not exceed (each on its own)."""

    probability: float
    prompt_tokens: int
    output_tokens: int

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise InvalidValue(message=f"quantile probability {self.probability} is not between 0 and 1")
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise InvalidValue(message=f"quantile {self.probability} has a length below 1 token")


@dataclass(frozen=True, slots=True)
class LengthQuantiles:
    """Marginal quantiles of prompt and output lengths, from `requests` requests of `source` (0: not known)."""

    points: tuple[QuantilePoint, ...]
    source: str
    licence: str = ""
    date: str = ""
    requests: int = 0

    def __post_init__(self) -> None:
        if not self.points:
            raise InvalidValue(message="a length distribution needs at least one quantile")
        for lower, upper in zip(self.points, self.points[1:], strict=False):
            if upper.probability <= lower.probability:
                raise InvalidValue(message=f"quantile {upper.probability} stands after {lower.probability}")
            if upper.prompt_tokens < lower.prompt_tokens or upper.output_tokens < lower.output_tokens:
                raise InvalidValue(
                    message=f"the lengths at quantile {upper.probability} are below those at {lower.probability}"
                )

    def prompt(self, probability: float) -> int:
        """Return the prompt length in tokens at a quantile, interpolated linearly and rounded up."""
        return self._at(probability, [point.prompt_tokens for point in self.points])

    def output(self, probability: float) -> int:
        """Return the output length in tokens at a quantile, interpolated linearly and rounded up."""
        return self._at(probability, [point.output_tokens for point in self.points])

    def _at(self, probability: float, lengths: Sequence[int]) -> int:
        known = [point.probability for point in self.points]
        if probability <= known[0]:
            return lengths[0]
        for index in range(1, len(known)):
            if probability <= known[index]:
                share = (probability - known[index - 1]) / (known[index] - known[index - 1])
                return math.ceil(lengths[index - 1] + share * (lengths[index] - lengths[index - 1]) - 1e-9)
        return lengths[-1]


@dataclass(frozen=True, slots=True)
class Workload:
    """What arrives: lengths, requests per second (None: the trace's own), and the trace where there is one."""

    lengths: LengthQuantiles
    rate_per_s: float | None = None
    requests: tuple[Request, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        if self.rate_per_s is not None and not (self.rate_per_s > 0 and math.isfinite(self.rate_per_s)):
            raise InvalidValue(message=f"the rate is {self.rate_per_s} requests per second; expected more than 0")


class Metric(Enum):
    """A latency that a service level bounds."""

    TTFT = "ttft"
    """Time to first token."""
    TPOT = "tpot"
    """Time per output token after the first."""
    E2E = "e2e"
    """Arrival to last token."""


@dataclass(frozen=True, slots=True)
class ServiceLevel:
    """The share `percentile`/100 of requests has `metric` within `limit_s` seconds."""

    metric: Metric
    percentile: float
    limit_s: float

    def __post_init__(self) -> None:
        if not 0 < self.percentile <= 100 or not self.limit_s > 0:
            raise InvalidValue(
                message=f"service level {self.metric.value} p{self.percentile:g} <= {self.limit_s} s; "
                "expected a percentile in (0, 100] and a positive time"
            )


class Goal(Enum):
    """What the serving plan optimizes under its service levels."""

    FEWEST_GPUS = "fewest-gpus"
    MOST_GOODPUT = "most-goodput"
    LEAST_COST = "least-cost"
    LEAST_POWER = "least-power"


@dataclass(frozen=True, slots=True)
class LengthClass:
    """Requests with prompts of up to `prompt_up_to` tokens (beyond the class before; None: all longer ones).

    `levels` hold for its requests beside those that hold for all.
    """

    name: str
    prompt_up_to: int | None
    levels: tuple[ServiceLevel, ...] = ()

    def __post_init__(self) -> None:
        if self.prompt_up_to is not None and self.prompt_up_to < 1:
            raise InvalidValue(message=f"class `{self.name}` ends at {self.prompt_up_to} prompt tokens")


@dataclass(frozen=True, slots=True)
class GpuOffer:
    """GPUs that may be used: machine id or file, how many, how many a node has, price and power per GPU (0: known)."""

    gpu: str
    count: int
    per_node: int = 8
    cost_per_hour: float = 0.0
    watts: float = 0.0


@dataclass(frozen=True, slots=True)
class Speculation:
    """Speculative decoding: chance that a drafted token is accepted, draft time over step time, lengths to try."""

    acceptance: float
    draft_cost: float = 0.05
    lengths: tuple[int, ...] = (1, 2, 3, 4)

    def __post_init__(self) -> None:
        whole = all(length >= 1 for length in self.lengths)
        if not 0 < self.acceptance < 1 or not 0 <= self.draft_cost < 1 or not whole or not self.lengths:
            raise InvalidValue(
                message=f"speculation with acceptance {self.acceptance}, draft cost {self.draft_cost}, lengths "
                f"{self.lengths}; expected shares below 1 and lengths of at least 1"
            )

    def tokens_per_step(self, length: int) -> float:
        """Return the expected tokens of a step: 1 + a + ... + a^length (Leviathan et al. 2023, equation 1)."""
        return (1 - self.acceptance ** (length + 1)) / (1 - self.acceptance)


@dataclass(frozen=True, slots=True)
class CacheTier:
    """Memory behind the GPUs' own that keeps prefixes: capacity per node, and the rate at which it is read back."""

    name: str
    capacity_bytes: float
    bandwidth_bytes_per_s: float

    def __post_init__(self) -> None:
        if min(self.capacity_bytes, self.bandwidth_bytes_per_s) <= 0:
            raise InvalidValue(message=f"cache tier `{self.name}` needs a capacity and a bandwidth above zero")


POOL_KINDS = ("aggregated", "disaggregated", "length-separated", "split")
"""Kinds of pools: engines for both phases, for one each, for some prompt lengths, with phases side by side."""


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """The `[serving]` table: what the planner may choose from, and the runtime policies it assumes."""

    roofline: bool = False
    pools: tuple[str, ...] = ("aggregated", "disaggregated", "length-separated")
    classes: tuple[LengthClass, ...] = ()
    gpus: tuple[GpuOffer, ...] = ()
    speculation: Speculation | None = None
    prefill_shares: tuple[float, ...] = (0.3, 0.5, 0.7)
    tiers: tuple[CacheTier, ...] = ()
    router: str = "least-loaded"
    admission: str = "prompt-fits"
    batching: str = "chunked"
    prefix_reuse: bool = False
    """Whether engines keep prompt blocks for later requests."""
    keep_s: float | None = None
    """Seconds after which a kept block that nobody asked for is dropped; None: by recency alone."""
    handover: str = "push"
    sharing: str = "fixed"

    def __post_init__(self) -> None:
        ends = [one.prompt_up_to for one in self.classes]
        if self.classes and (ends[-1] is not None or None in ends[:-1]):
            raise InvalidValue(message="every length class but the last has `prompt_up_to`, the last has none")
        limits = [end for end in ends if end is not None]
        if limits != sorted(set(limits)) or len({one.name for one in self.classes}) != len(self.classes):
            raise InvalidValue(message="length classes have rising `prompt_up_to` and different names")
        if (self.tiers or self.keep_s is not None) and not self.prefix_reuse:
            raise InvalidValue(message="`tiers` and `keep` are for prefixes; they need `prefix_reuse = true`")
        if len({tier.name for tier in self.tiers}) != len(self.tiers):
            raise InvalidValue(message="two cache tiers have the same name")
        if not all(0 < share < 1 for share in self.prefill_shares):
            raise InvalidValue(message="the prefill shares of a split GPU are between 0 and 1")


@dataclass(frozen=True, slots=True)
class ClusterRequest:
    """Where to serve: a GPU type by machine id, and a node dump or a count of GPUs (both optional)."""

    gpu: str
    gpus: int | None = None
    gpus_per_node: int | None = None
    nodes_path: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A resolved deployment specification: every path exists, every quantity is in base units."""

    name: str
    model_path: str
    workload: Workload
    cluster: ClusterRequest
    service_levels: tuple[ServiceLevel, ...] = ()
    goal: Goal = Goal.FEWEST_GPUS
    weight_dtype: str = ""
    """Empty: as the model's configuration says."""
    kv_dtype: str = ""
    decode_batch: int = 64
    """Sequences of a decode step for which kernels are scheduled."""
    serving: ServingOptions = ServingOptions()


FAMILIES: dict[str, tuple[str, ...]] = {
    "attention_fwd": ("batch", "heads", "kv_heads", "seq", "kv_seq", "qk_head_dim", "v_head_dim", "causal", "window"),
    "attention_decode": ("batch", "heads", "kv_heads", "seq", "kv_seq", "qk_head_dim", "v_head_dim", "window"),
    "gemm": ("m", "n", "k"),
    "swiglu": ("m", "n", "k"),
    "grouped_gemm": ("experts", "tokens", "top_k", "n", "k"),
    "rms_norm": ("rows", "columns"),
}
"""Program families and the keys of their shapes; every key is always there.

attention_fwd
    q (batch, heads, seq, qk_head_dim), k (batch, kv_heads, kv_seq, qk_head_dim), v (batch, kv_heads, kv_seq,
    v_head_dim); `causal` 0 or 1, the last query row aligned with the last key; `window` keys seen at most, 0 for all.
attention_decode
    as `attention_fwd` with `seq` new tokens (1 without speculation); bound by reading the cache. In MLA the cache is
    shared: kv_heads 1, qk_head_dim 576 and v_head_dim 512 for DeepSeek-V3, v being the first 512 columns of k.
gemm
    (m, k) x (k, n) -> (m, n).
swiglu
    x (m, k), gate and up weights (k, n) each -> silu(x gate) * (x up) of (m, n).
grouped_gemm
    `tokens` rows, each sent to `top_k` of `experts` weights (k, n); tokens * top_k result rows.
rms_norm
    (rows, columns), normalized over columns.
"""


@dataclass(frozen=True, slots=True)
class HotLoop:
    """A loop worth its own kernel: `family` and `shape` (keys in `FAMILIES`), run `calls` times in one forward pass.

    `operators` are the operators of the model graph that it covers, as `layer.operator`.
    """

    name: str
    family: str
    shape: dict[str, int]
    dtype: str
    phase: Phase
    calls: int
    operators: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise InvalidValue(message=f"hot loop `{self.name}` has the unknown family `{self.family}`")
        if set(self.shape) != set(FAMILIES[self.family]):
            raise InvalidValue(
                message=f"hot loop `{self.name}` has the shape keys {', '.join(self.shape)}; "
                f"expected {', '.join(FAMILIES[self.family])}"
            )
        low = [key for key, extent in self.shape.items() if extent < (0 if key in ("causal", "window") else 1)]
        if low or self.calls < 1:
            raise InvalidValue(message=f"hot loop `{self.name}` has {low[0] if low else 'calls'} below its least value")
