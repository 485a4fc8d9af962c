"""What the lengths of requests demand: moments, tails, and the memory of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, sqrt

from treadle.ir.workload import Request

_Z99 = 2.326
"""Standard normal quantile at 99 %."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Moments and quantiles of prompt and output lengths, in tokens.

    `prompts` and `outputs` are lengths at the midpoints of equal shares of requests, each sorted: enough to integrate
    any function of one length.
    """

    prompts: tuple[int, ...]
    outputs: tuple[int, ...]
    mean_prompt: float
    mean_output: float
    total_mean: float
    total_deviation: float
    total_p99: int

    @classmethod
    def of(cls, requests: Sequence[Request], shares: int = 100) -> Lengths:
        """Summarise requests."""
        count = len(requests)
        prompts = sorted(request.prompt_tokens for request in requests)
        outputs = sorted(request.output_tokens for request in requests)
        # A sequence holds its prompt and, on average over its life, half its output; at its end all of it.
        totals = sorted(request.prompt_tokens + request.output_tokens for request in requests)
        mean = sum(totals) / count
        middle = [(2 * share + 1) * count // (2 * shares) for share in range(shares)]
        return cls(
            tuple(prompts[index] for index in middle),
            tuple(outputs[index] for index in middle),
            sum(prompts) / count,
            sum(outputs) / count,
            mean,
            sqrt(sum((total - mean) ** 2 for total in totals) / count),
            totals[min(count - 1, ceil(0.99 * count))],
        )

    def prompt_at(self, share: float) -> int:
        """Return the prompt length that the share of requests does not exceed."""
        return self.prompts[min(len(self.prompts) - 1, int(share * len(self.prompts)))]

    def output_at(self, share: float) -> int:
        """Return the output length that the share of requests does not exceed."""
        return self.outputs[min(len(self.outputs) - 1, int(share * len(self.outputs)))]

    @property
    def mean_context(self) -> float:
        """Mean tokens in the cache of a decoding sequence: lengths weighted by how long they stay."""
        return self.mean_prompt + _mean_inside(self.outputs)

    def batch_tokens(self, batch: int) -> int:
        """Return the cache tokens that `batch` whole sequences exceed in 1 of 100 cases, at least one at its P99."""
        usual = batch * self.total_mean + _Z99 * sqrt(batch) * self.total_deviation
        return max(ceil(usual), min(batch, 1) * self.total_p99)


@lru_cache(maxsize=64)
def _mean_inside(outputs: tuple[int, ...]) -> float:
    """Return the mean output so far, over sequences weighted by how long they stay."""
    return sum(output * output / 2 for output in outputs) / sum(outputs)
