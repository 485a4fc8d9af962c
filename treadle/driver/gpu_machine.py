"""A machine file from what was measured: the figures of a known machine, with measured ones in their place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from treadle.costmodels.machines import load_machine, parse_machine
from treadle.ir.errors import InvalidValue, UnwritablePath
from treadle.ir.machine import Basis, Figure, Machine


def write_machine(found: Mapping[str, Any], base: str, file: Path) -> Machine:
    """Write a machine file from a record of `treadle.driver.gpu.machine.measure`.

    Args:
        found: the record.
        base: id of the machine that gives what was not measured.
        file: the target, with the suffix `.toml`.

    Returns: the machine as it reads back.

    Raises:
        InvalidValue: the GPU is of another architecture than the base. UnwritablePath. TreadleError: unknown base.
    """
    machine = measured_machine(found, load_machine(base))
    text = machine_text(machine)
    parsed = parse_machine(text, str(file))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        raise UnwritablePath(path=str(file), reason=error.strerror or str(error)) from None
    return parsed


def measured_machine(found: Mapping[str, Any], base: Machine) -> Machine:
    """Return the base machine with measured figures in the place of its own; raises InvalidValue."""
    environment = found["environment"]
    architecture = f"sm_{environment['capability'][0]}{environment['capability'][1]}"
    if architecture != base.architecture:
        raise InvalidValue(
            message=f"this GPU, {environment['gpu']}, is {architecture}; `{base.id}` is {base.architecture}",
            hint="name the machine of the same architecture with --machine",
        )
    source = (
        f"`treadle bench --machine-file` on {environment['gpu']}, driver {environment.get('driver_version', '?')}, "
        f"torch {environment['torch']}, triton {environment['triton']}"
    )
    figures = tuple(
        _taken_over(figure, found["figures"].get(figure.name), source, environment) for figure in base.figures
    )
    return replace(base, id=f"{base.id}-measured", name=f"{environment['gpu']} (measured)", figures=figures)


def _taken_over(
    figure: Figure, measured: Mapping[str, Any] | None, source: str, environment: Mapping[str, Any]
) -> Figure:
    if measured is None:
        return figure
    return replace(
        figure, value=float(measured["value"]), source=source, date=environment["date"], basis=Basis.MEASURED
    )


def machine_text(machine: Machine) -> str:
    """Return a machine as TOML; every figure cites its source in words."""
    lines = [f"{key} = {_quoted(getattr(machine, key))}" for key in ("id", "name", "vendor", "architecture")]
    lines += [f"traits = [{', '.join(_quoted(trait) for trait in machine.traits)}]", "", "[figures]"]
    for figure in machine.figures:
        value = int(figure.value) if float(figure.value).is_integer() else figure.value
        lines.append(
            f"{figure.name} = {{ value = {value}, unit = {_quoted(figure.unit)}, source = {_quoted(figure.source)}, "
            f"date = {_quoted(figure.date)}, basis = {_quoted(figure.basis.value)} }}"
        )
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """TOML's basic strings escape as JSON's do."""
    return json.dumps(text, ensure_ascii=False)
