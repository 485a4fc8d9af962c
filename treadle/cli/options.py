"""Options that several verbs share, defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

PlanPath = Annotated[Path, typer.Argument(help="Plan folder, or a plan.json.", metavar="PLAN")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON on stdout.")]
OutputFolder = Annotated[Path | None, typer.Option("-o", "--output", help="Plan folder to write.", metavar="FOLDER")]
ResumeFlag = Annotated[bool, typer.Option("--resume", help="Continue from the plan that is in the output folder.")]
