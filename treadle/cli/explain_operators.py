"""Prints what binds an overlap plan or a cut into sections."""

from __future__ import annotations

import sys

from treadle.cli.output import number, print_json
from treadle.driver.explain_operators import OperatorExplanation
from treadle.ir.codec import encode


def show_operators(explanation: OperatorExplanation, as_json: bool) -> None:
    """Print an explanation, or its JSON."""
    if as_json:
        print_json(encode(explanation))
        return
    out = sys.stdout
    out.write(f"{explanation.name}: {number(explanation.time_us)} us\n")
    for sentence in explanation.binds:
        out.write(f"  binds: {sentence}\n")
    out.write("  busy: " + ", ".join(f"{name} {share:.0%}" for name, share in explanation.busy.items()) + "\n")
    width = max(map(len, explanation.with_a_quarter_more_us), default=0)
    for name, time_us in explanation.with_a_quarter_more_us.items():
        gain = explanation.time_us / time_us - 1
        out.write(f"    25 % more {name:<{width}}  {number(time_us)} us  {gain:+.1%}\n")
