"""`treadle show PLAN`: open the report, draw a kernel in the terminal, or print the plan as text."""

from __future__ import annotations

import shutil
import sys
from typing import Annotated

import typer

from treadle.cli.options import JsonFlag, PlanPath
from treadle.cli.output import console, level_line, number, print_json, say
from treadle.driver.pages import drawn_kernel, drawn_rows, kernel_of, plan_text, report_page
from treadle.ir.codec import encode
from treadle.ir.plan import load
from treadle.ir.tile.kernel import KernelPlan

_STAGE_STYLES = ("blue", "yellow", "green", "magenta", "cyan", "red", "white", "bright_black")


def command(
    plan: PlanPath,
    kernel: Annotated[str, typer.Option(help="Draw this kernel's timeline in the terminal.", metavar="NAME")] = "",
    text: Annotated[bool, typer.Option("--text", help="Print the plan in the text form.")] = False,
    browser: Annotated[bool, typer.Option(help="Open the report in a browser.")] = True,
    json: JsonFlag = False,
) -> None:
    """Open the report of PLAN in a browser; its path goes to stdout.

    Exit status 0: shown. 2: not a readable plan, or no such kernel.
    """
    found = load(plan)
    if text:
        sys.stdout.write(plan_text(found))
    elif kernel and json:
        print_json(encode(kernel_of(found, kernel)))
    elif kernel:
        _draw(drawn_kernel(kernel_of(found, kernel)))
    else:
        page = report_page(plan, found).resolve()
        _print_path(str(page), json)
        if browser and not json:
            _open(page.as_uri())


def _print_path(page: str, json: bool) -> None:
    if json:
        print_json({"report": page})
    else:
        sys.stdout.write(page + "\n")


def _open(uri: str) -> None:
    import webbrowser

    if not webbrowser.open(uri):
        say("no browser found; open the page above yourself, or use --kernel NAME for a drawing here")


def _draw(kernel: KernelPlan) -> None:
    from rich.text import Text

    schedule = kernel.schedule
    rows = drawn_rows(kernel, _columns() - _label_width(kernel) - 2)
    out = console()
    out.print(
        f"{kernel.name}: two intervals of {number(schedule.ii_cycles)} cycles, {schedule.stages} stages, "
        f"length {number(schedule.length_cycles)}",
        markup=False,
    )
    for row in rows:
        line = Text(row.name.rjust(_label_width(kernel)) + "  ")
        start = len(line)
        for bar in row.bars:
            line.append(" " * (start + bar.column - len(line)))
            line.append(bar.text, style=_STAGE_STYLES[bar.stage % len(_STAGE_STYLES)])
        out.print(line)
    for level in kernel.certificate.levels:
        out.print(level_line(level), markup=False)


def _columns() -> int:
    return shutil.get_terminal_size((110, 24)).columns


def _label_width(kernel: KernelPlan) -> int:
    return max(len(unit.name) for unit in kernel.loop.units) + 3
