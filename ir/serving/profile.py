"""Step times of one serving engine as data.

A step processes `n` new tokens (prefill chunk and decode tokens together) and attends to cached context:

    step = linear(n) + prefill_s_per_pair * pairs + decode_s_per_token * context + decode_s_per_sequence * batch

`linear` interpolates sampled times of everything that depends on the number of new tokens alone (matrix products,
experts, elementwise traffic, collectives). A prefill of `n` tokens after `c` cached ones has n*c + n*n/2 pairs.

With speculation every sequence brings `1 + draft_tokens` new tokens to a step and leaves with `accepted_tokens` on
average. A step that carries prompt tokens too is counted as one output token: prompts cut into runs of drafts.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import pairwise

from treadle.ir.errors import InvalidValue

SATURATING_SHARE = 0.5
"""Share of the multiprocessors that saturates memory bandwidth (assumed: about half on A100 to H200)."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The compact profile; also what users write who have fitted their own engine."""

    tokens: tuple[int, ...]
    linear_s: tuple[float, ...]
    prefill_s_per_pair: float
    decode_s_per_token: float
    decode_s_per_sequence: float = 0.0
    overhead_s: float = 0.0
    draft_tokens: int = 0
    accepted_tokens: float = 1.0
    draft_s: float = 0.0

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.linear_s) or not self.tokens:
            raise InvalidValue(message="a profile needs one time per token count, and at least one")
        if any(later <= earlier for earlier, later in pairwise(self.tokens)) or self.tokens[0] < 1:
            raise InvalidValue(message="the token counts of a profile must rise")
        if min(*self.linear_s, self.prefill_s_per_pair, self.decode_s_per_token, self.overhead_s) < 0:
            raise InvalidValue(message="a profile has a negative time")
        if self.draft_tokens < 0 or not 1 <= self.accepted_tokens <= 1 + self.draft_tokens or self.draft_s < 0:
            raise InvalidValue(message=f"{self.accepted_tokens} tokens of a step with {self.draft_tokens} drafts")

    def linear(self, tokens: float) -> float:
        """Return the time of everything but attention for so many new tokens; proportional beyond the samples."""
        position = bisect_left(self.tokens, tokens)
        if position == 0:
            return self.linear_s[0]
        if position == len(self.tokens):
            return self.linear_s[-1] * tokens / self.tokens[-1]
        low, high = self.tokens[position - 1], self.tokens[position]
        share = (tokens - low) / (high - low)
        return self.linear_s[position - 1] + share * (self.linear_s[position] - self.linear_s[position - 1])

    def step_s(self, prefill_tokens: int, prefill_context: float, batch: float, context_tokens: float) -> float:
        """Return the time of a step in seconds.

        Args:
            prefill_tokens: new prompt tokens in the step.
            prefill_context: tokens cached before them (their mean, when several prompts share a step).
            batch: sequences that decode one token (a mean need not be whole).
            context_tokens: cached tokens of all those sequences together.
        """
        time = self.overhead_s + self.linear(prefill_tokens + batch * (1 + self.draft_tokens))
        if batch:
            time += self.decode_s_per_token * context_tokens + self.decode_s_per_sequence * batch + self.draft_s
        if prefill_tokens:
            return time + self.prefill_s_per_pair * prefill_tokens * (prefill_context + 0.5 * prefill_tokens)
        return time / self.accepted_tokens

    def growth_s(self, batch: int) -> float:
        """Return by how much each further output token takes longer while a batch of sequences grows."""
        return self.decode_s_per_token * batch / self.accepted_tokens

    def faster(self, factor: float) -> Profile:
        """Return the profile with all times divided by a factor: one of so many equal stages."""
        if factor == 1:
            return self
        return replace(
            self,
            linear_s=tuple(time / factor for time in self.linear_s),
            prefill_s_per_pair=self.prefill_s_per_pair / factor,
            decode_s_per_token=self.decode_s_per_token / factor,
            decode_s_per_sequence=self.decode_s_per_sequence / factor,
            overhead_s=self.overhead_s / factor,
            draft_s=self.draft_s / factor,
        )

    def speculating(self, draft_tokens: int, accepted_tokens: float, draft_cost: float) -> Profile:
        """Return the profile with drafts of a length; drafting a token takes `draft_cost` of a one-token step."""
        draft_s = draft_tokens * draft_cost * (self.overhead_s + self.linear_s[0])
        return replace(self, draft_tokens=draft_tokens, accepted_tokens=accepted_tokens, draft_s=draft_s)

    def on_share(self, share: float) -> Profile:
        """Return the profile on a share of the multiprocessors of each GPU.

        What grows with tokens is arithmetic and slows by the share; what a single token takes is reading weights, and
        reading the cache: both need `SATURATING_SHARE` of the multiprocessors for the full bandwidth.
        """
        reading = min(1.0, share / SATURATING_SHARE)
        floor = self.linear_s[0]
        return replace(
            self,
            linear_s=tuple(floor / reading + (time - floor) / share for time in self.linear_s),
            prefill_s_per_pair=self.prefill_s_per_pair / share,
            decode_s_per_token=self.decode_s_per_token / reading,
            decode_s_per_sequence=self.decode_s_per_sequence / share,
        )
