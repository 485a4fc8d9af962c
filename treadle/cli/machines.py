"""`treadle machines [MACHINE]`: the machines treadle knows, and every figure of one with where it comes from."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import typer

from treadle.cli.options import JsonFlag
from treadle.cli.output import number, print_json, print_table, say
from treadle.costmodels.machines import load_machine, machine_ids
from treadle.ir.codec import encode
from treadle.ir.machine import Basis, Machine


def command(
    machine: Annotated[
        str | None, typer.Argument(help="A machine id such as h200, or a machine file (.toml).", metavar="MACHINE")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """List the machines, or show every figure of MACHINE with unit, basis, date and source.

    Exit status 2: no such machine, or a machine file with a fault in it.
    """
    if machine is None:
        _list([load_machine(name) for name in machine_ids()], json)
    else:
        _show(load_machine(machine), json)


def _list(machines: list[Machine], json: bool) -> None:
    if json:
        print_json({"machines": [_summary(machine) for machine in machines]})
        return
    header = ("id", "name", "architecture", "figures", *(basis.value for basis in Basis))
    rows: list[tuple[str, ...]] = []
    for machine in machines:
        counts = _counts(machine)
        figures = (str(len(machine.figures)), *(str(counts[basis]) for basis in Basis))
        rows.append((machine.id, machine.name, machine.architecture, *figures))
    print_table(header, rows)
    say("`treadle machines ID` shows every figure with its source")


def _show(machine: Machine, json: bool) -> None:
    if json:
        print_json(encode(machine))
        return
    say(f"{machine.name} ({machine.architecture}); traits: {', '.join(machine.traits) or 'none'}")
    rows = (
        (figure.name, number(figure.value), figure.unit, figure.basis.value, figure.date, figure.source)
        for figure in machine.figures
    )
    print_table(("figure", "value", "unit", "basis", "date", "source"), rows)


def _summary(machine: Machine) -> dict[str, object]:
    return {
        "id": machine.id,
        "name": machine.name,
        "architecture": machine.architecture,
        "traits": list(machine.traits),
        "figures": len(machine.figures),
        **{basis.value: count for basis, count in _counts(machine).items()},
    }


def _counts(machine: Machine) -> dict[Basis, int]:
    found = Counter(figure.basis for figure in machine.figures)
    return {basis: found[basis] for basis in Basis}
