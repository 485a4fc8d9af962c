"""Times of prompts that run through an engine in chunks: all chunks but the last are alike; pairs in closed form."""

from __future__ import annotations

from functools import lru_cache

from treadle.ir.serving.profile import Profile
from treadle.ir.serving.traffic import Lengths

PREFILL_TOKENS = 16384
"""Tokens of a step of a prefill engine: a prompt up to this length is one step."""

Cut = tuple[int, int, float]
"""Whole chunks, tokens of the last one (0: none), and query-key pairs of the prompt."""


def cut(tokens: int, chunk: int, found: int = 0) -> Cut:
    """Cut a prompt, of which `found` tokens are in a cache, into chunks."""
    whole, rest = divmod(tokens - found, chunk)
    return whole, rest, 0.5 * (tokens - found) * (tokens + found)


def prompt_times(
    profile: Profile, cuts: tuple[Cut, ...], chunk: int, batch: int = 0, context: float = 0.0
) -> list[float]:
    """Return the seconds that each prompt takes alone, beside `batch` decoding sequences with `context` cached tokens.

    The same as the sum of `Profile.step_s` over its chunks.
    """
    beside = batch * (1 + profile.draft_tokens)
    base = profile.overhead_s
    if batch:
        base += profile.decode_s_per_token * context + profile.decode_s_per_sequence * batch + profile.draft_s
    step, linear, per_pair = base + profile.linear(chunk + beside), profile.linear, profile.prefill_s_per_pair
    return [
        whole * step + (base + linear(rest + beside) if rest else 0.0) + per_pair * pairs for whole, rest, pairs in cuts
    ]


def prompt_s(profile: Profile, tokens: int, chunk: int) -> float:
    """Return the seconds that one prompt takes alone in steps of `chunk` tokens."""
    return prompt_times(profile, (cut(tokens, chunk),), chunk)[0]


@lru_cache(maxsize=256)
def some_cuts(prompts: tuple[int, ...], chunk: int) -> tuple[Cut, ...]:
    """Return every fourth prompt, cut: enough for moments and a high percentile."""
    return tuple(cut(tokens, chunk) for tokens in prompts[1::4])


def moments(times: list[float]) -> tuple[float, float]:
    """Return the first and second moment."""
    return sum(times) / len(times), sum(time * time for time in times) / len(times)


def prefill_moments(profile: Profile, lengths: Lengths, found_share: float = 0.0) -> tuple[float, float]:
    """Return the moments of whole prompts of a prefill engine, of which caches find a share."""
    own = (profile.tokens, profile.linear_s, profile.prefill_s_per_pair, profile.overhead_s)
    return _moments(own, lengths.prompts, found_share)


@lru_cache(maxsize=4096)  # engines with other drafts, cache tiers or splits run the same prompts
def _moments(
    own: tuple[tuple[int, ...], tuple[float, ...], float, float], prompts: tuple[int, ...], found_share: float
) -> tuple[float, float]:
    tokens, linear_s, per_pair, overhead_s = own
    profile = Profile(tokens, linear_s, per_pair, 0.0, overhead_s=overhead_s)
    cuts = tuple(cut(prompt, PREFILL_TOKENS, int(found_share * prompt)) for prompt in prompts)
    return moments(prompt_times(profile, cuts, PREFILL_TOKENS))
