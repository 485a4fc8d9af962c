"""`treadle diff OLD NEW`: what changed between two plans, and which is better, level by level."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from treadle.cli.options import JsonFlag
from treadle.cli.output import print_json, print_table, say
from treadle.driver.difference import difference
from treadle.ir.codec import encode
from treadle.ir.diagnostics import ExitCode
from treadle.ir.plan import load


def command(
    old: Annotated[Path, typer.Argument(help="The plan to compare with.", metavar="OLD")],
    new: Annotated[Path, typer.Argument(help="The plan that may be better.", metavar="NEW")],
    json: JsonFlag = False,
) -> None:
    """Say what changed from OLD to NEW: inputs, options, versions, certificate levels, predictions.

    Exit status 0: the same. 1: they differ. 2: not readable, or plans of different kinds.
    """
    changes = difference(load(old), load(new))
    if json:
        print_json({"changes": encode(changes)})
    elif changes:
        print_table(("where", "old", "new", ""), ((c.where, c.old, c.new, c.verdict) for c in changes))
    else:
        say("the plans say the same")
    if changes:
        raise typer.Exit(ExitCode.UNMET)
