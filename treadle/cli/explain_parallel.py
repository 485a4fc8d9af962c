"""How `treadle explain` prints a training plan."""

from __future__ import annotations

from treadle.cli.output import console, print_json
from treadle.driver.explain_parallel import Change, ParallelExplanation
from treadle.ir.codec import encode


def show_parallel(explanation: ParallelExplanation, json: bool) -> None:
    """Print where the step goes, what is fullest, and what changes would do, each with its own best plan."""
    if json:
        print_json(encode(explanation))
        return
    out = console()
    out.print(f"{explanation.name}: {_speed(explanation.step_us, explanation.tokens_per_gpu_s)}", markup=False)
    out.print(f"  {explanation.plan}", markup=False)
    shares = ", ".join(f"{name} {share:.1%}" for name, share in explanation.shares.items())
    out.print(f"  binds: {explanation.binds}; busiest is rank {explanation.rank}: {shares}", markup=False)
    fullest = f"stage {explanation.fullest_stage} takes {explanation.fullest_share:.0%} of what is allowed"
    out.print(f"  memory: {fullest}", markup=False)
    width = max(len(change.change) for change in explanation.changes)
    for change in explanation.changes:
        out.print(f"    {change.change:<{width}}  {_effect(explanation, change)}", markup=False)


def _speed(step_us: float, tokens_per_gpu_s: float) -> str:
    return f"{step_us / 1e6:.4g} s a step, {tokens_per_gpu_s:,.0f} tokens/s/GPU"


def _effect(explanation: ParallelExplanation, change: Change) -> str:
    if not change.plan:
        return f"{'-':>9} nothing fits"
    gain = change.tokens_per_gpu_s / explanation.tokens_per_gpu_s - 1
    other = "" if change.plan == explanation.plan else f"  ({change.plan})"
    effect = "no change" if abs(gain) < 5e-5 else f"{gain:+.1%}"
    return f"{change.tokens_per_gpu_s:>9,.0f} tokens/s/GPU  {effect}{other}"
