"""A machine file from what was measured: the figures of a known machine, with measured ones in their place."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from treadle.costmodels.machines import load_machine, parse_machine
from treadle.ir.codec import decode, file_locator
from treadle.ir.diagnostics import Place, TreadleError
from treadle.ir.errors import InvalidValue, UnwritablePath
from treadle.ir.machine import Basis, Figure, Machine
from treadle.ir.plan import parse_json, read_text

FAR_OFF = 2.0
"""A figure more than so many times another machine's is said: the measurement may be wrong."""


class UnfitRecord(TreadleError):
    """A record of measurements that no machine file can be made of."""

    code = "TRD560"
    template = "{record} is no record of a machine: {reason}"
    hint = "`python SUITE/run.py --machine --out FOLDER` writes FOLDER/machine.json on a machine with a GPU"


@dataclass(frozen=True, slots=True)
class Taken:
    """A measured figure."""

    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class MachineRecord:
    """What `treadle.driver.gpu.machine.measure` found: where (`environment`), figures, and why others are missing."""

    environment: dict[str, Any]
    figures: dict[str, Taken]
    failed: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Change:
    """A figure of a machine that a measurement replaces."""

    name: str
    unit: str
    before: float
    after: float

    @property
    def is_far_off(self) -> bool:
        """Whether the measurement is hard to believe beside what was known."""
        return self.before > 0 and not 1 / FAR_OFF <= self.after / self.before <= FAR_OFF


def read_record(path: Path) -> MachineRecord:
    """Return the record in a file; raises UnreadableFile, MalformedText, UnfitRecord and what the codec raises."""
    data = parse_json(read_text(path), str(path))
    if not isinstance(data, dict) or "figures" not in data or "environment" not in data:
        raise UnfitRecord(record=path, reason="it has no `environment` and `figures`")
    return checked_record(data, str(path))


def checked_record(data: object, file: str) -> MachineRecord:
    """Return a record from JSON data; raises UnfitRecord and what the codec raises, with the place in the file."""
    record = decode(MachineRecord, data, file_locator(file))
    for name in ("gpu", "capability", "torch", "triton", "date"):
        if not record.environment.get(name):
            raise UnfitRecord(
                record=file, reason=f"`environment.{name}` is missing", place=Place(file, path="environment")
            )
    capability = record.environment["capability"]
    if not (isinstance(capability, list) and len(capability) == 2 and all(isinstance(n, int) for n in capability)):
        raise UnfitRecord(record=file, reason=f"`environment.capability` is {capability}; expected two whole numbers")
    for name, taken in record.figures.items():
        if not (isfinite(taken.value) and taken.value > 0):
            reason = f"`figures.{name}` is {taken.value}; expected more than 0"
            raise UnfitRecord(record=file, reason=reason, place=Place(file, path=f"figures.{name}"))
    if not record.figures:
        why = "; ".join(f"{name}: {reason}" for name, reason in list(record.failed.items())[:2])
        raise UnfitRecord(record=file, reason=f"nothing could be measured{': ' + why if why else ''}")
    return record


def write_machine(found: MachineRecord, base: str, file: Path) -> tuple[Machine, tuple[Change, ...]]:
    """Write a machine file from a record.

    Args:
        found: the record.
        base: id of the machine that gives what was not measured, or its file.
        file: the target, with the suffix `.toml`.

    Returns: the machine as it reads back, and what was replaced.

    Raises:
        InvalidValue: the GPU is of another architecture than the base, a figure has another unit, or the target no
            `.toml`. UnwritablePath. TreadleError: unknown base.
    """
    if file.suffix != ".toml":
        raise InvalidValue(message=f"`{file}` is no name for a machine file", expected="a name that ends in .toml")
    known = load_machine(base)
    machine = measured_machine(found, known)
    text = machine_text(machine)
    parsed = parse_machine(text, str(file))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    except OSError as error:
        raise UnwritablePath(path=str(file), reason=error.strerror or str(error)) from None
    changes = (
        Change(figure.name, figure.unit, figure.value, found.figures[figure.name].value)
        for figure in known.figures
        if figure.name in found.figures
    )
    return parsed, tuple(changes)


def measured_machine(found: MachineRecord, base: Machine) -> Machine:
    """Return the base machine with measured figures in the place of its own; raises InvalidValue."""
    environment = found.environment
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
    date = environment["date"]
    figures = tuple(_taken_over(figure, found.figures.get(figure.name), source, date) for figure in base.figures)
    name = f"{base.id.removesuffix('-measured')}-measured"
    return replace(base, id=name, name=f"{environment['gpu']} (measured)", figures=figures)


def _taken_over(figure: Figure, measured: Taken | None, source: str, date: str) -> Figure:
    if measured is None:
        return figure
    if measured.unit != figure.unit:
        raise InvalidValue(
            message=f"figure `{figure.name}` was measured in {measured.unit}; the machine has it in {figure.unit}"
        )
    return replace(figure, value=measured.value, source=source, date=date, basis=Basis.MEASURED)


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
