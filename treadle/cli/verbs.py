"""The verbs of the command line: name, module, one help line. A module is imported only when its verb is used.

A verb's module defines `command` (a function typer understands) or `app` (a `typer.Typer` with sub-verbs).
"""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {
    "verify": ("treadle.cli.verify", "Re-derive every claim of a plan, without a solver."),
    "diff": ("treadle.cli.diff", "Say what changed between two plans, and which is better."),
}
