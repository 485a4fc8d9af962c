"""How `treadle explain` prints a packing."""

from __future__ import annotations

from treadle.cli.output import console, level_line, print_json
from treadle.driver.explain_packing import PackingExplanation
from treadle.ir.codec import encode


def show_packing(explanation: PackingExplanation, json: bool) -> None:
    """Print the levels, how full resources are, the pods left out and why, and what one more node would do."""
    if json:
        print_json(encode(explanation))
        return
    out = console()
    for level in explanation.levels:
        out.print(f"{level_line(level)}", markup=False)
    for one in explanation.resources:
        asked, placed = (100 * amount / max(1, one.capacity) for amount in (one.asked, one.placed))
        share = f"asked {asked:.1f}%, placed {placed:.1f}%, fullest node {one.fullest_percent:g}%"
        out.print(f"  {one.resource}: {share}", markup=False)
    for left in explanation.left_out:
        reasons = ", ".join(f"{count} nodes: {reason}" for reason, count in left.reasons.items())
        out.print(f"  left out: {left.pods} x {left.shape} (priority {left.priority}): {reasons}", markup=False)
        if left.nearest:
            out.print(f"    nearest: {left.nearest}", markup=False)
    for change in explanation.changes:
        proven = "" if change.proven else " (not proven most)"
        out.print(f"  {change.change}: {change.placed - change.was:+d} pods{proven}", markup=False)
