"""The verbs of the command line: name, module, one help line. A module is imported only when its verb is used.

A verb's module defines `command` (a function typer understands) or `app` (a `typer.Typer` with sub-verbs).
"""

from __future__ import annotations

VERBS: dict[str, tuple[str, str]] = {}
