"""The verbs of the command line: name, module, one help line. A module is imported only when its verb is used.

A verb's module defines `command` (a function typer understands) or `app` (a `typer.Typer` with sub-verbs).
"""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "pack": ("treadle.cli.pack", "Place pods, prove how well, and order the steps to get there."),
    "compile": ("treadle.cli.compile", "Compile a deployment: model, workload and machine into proven kernels."),
    "kernel": ("treadle.cli.kernel", "Schedule one tile program or loop file, and emit its kernel."),
    "verify": ("treadle.cli.verify", "Re-derive every claim of a plan, without a solver."),
    "diff": ("treadle.cli.diff", "Say what changed between two plans, and which is better."),
}
