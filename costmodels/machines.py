"""Machines as data files: load one by id or from a user's TOML, with the place of everything that is wrong.

A machine file has `id`, `name`, `vendor`, `architecture`, `traits`, a table `[sources]` (`KEY = { text, date }`) and a
table `[figures]` (`NAME = { value, unit, source, basis }`, one line each). A figure's `source` is a key of `[sources]`,
which then gives its date, or a citation in words with a `date` of its own. Dates are written `YYYY-MM-DD`.
"""

from __future__ import annotations

import math
import re
import tomllib
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from treadle.ir.codec import Locator, decode, path_text
from treadle.ir.codec import Path as CodecPath
from treadle.ir.diagnostics import Place, closest
from treadle.ir.errors import InvalidValue, MalformedText, MissingField, UnknownField, UnknownName, WrongType
from treadle.ir.machine import MAY_BE_ZERO, TRAITS, Figure, Machine
from treadle.ir.plan import read_text

_FIELDS = ("id", "name", "vendor", "architecture", "traits", "sources", "figures")
_SOURCE_FIELDS = ("text", "date")
_POSITION = re.compile(r"at line (\d+), column (\d+)")


def machine_ids() -> tuple[str, ...]:
    """Return the ids of the machines that come with treadle, sorted."""
    return tuple(
        sorted(entry.name.removesuffix(".toml") for entry in _folder().iterdir() if entry.name.endswith(".toml"))
    )


def load_machine(name: str | Path) -> Machine:
    """Return a machine by id (`"h200"`) or from a TOML file (`"./mine.toml"`).

    Raises:
        UnknownName: no machine of that id.
        UnreadableFile, MalformedText, MissingField, UnknownField, UnknownName, WrongType: the file, with line.
    """
    text = str(name)
    if isinstance(name, Path) or text.endswith(".toml") or "/" in text:
        return load_machine_file(Path(name))
    return _shipped(text)


def load_machine_file(path: Path) -> Machine:
    """Read a machine description of the user."""
    return parse_machine(read_text(path), str(path))


@cache
def _shipped(machine_id: str) -> Machine:
    known = machine_ids()
    if machine_id not in known:
        raise UnknownName(
            kind="machine",
            name=machine_id,
            expected=f"one of {', '.join(known)}, or the path of a machine file (.toml)",
            hint=closest(machine_id.lower(), known) or "`treadle machines` lists them",
        )
    entry = _folder() / f"{machine_id}.toml"
    return parse_machine(entry.read_text(encoding="utf-8"), entry.name)


def _folder() -> Any:
    return files("treadle.costmodels") / "data" / "machines"


def parse_machine(text: str, file: str) -> Machine:
    """Build a machine from the text of a machine file; `file` names it in errors."""
    locate = _locator(text, file)
    document = _parse_toml(text, file)
    _refuse_unknown(document, _FIELDS, (), locate)
    sources = _sources(document.get("sources", {}), locate)
    figures = document.get("figures")
    if not isinstance(figures, dict) or not figures:
        raise MissingField(place=locate(()), field="figures", hint="add a table `[figures]`")
    data = {key: value for key, value in document.items() if key != "sources"}
    _refuse_unknown_traits(document.get("traits"), locate)
    data["figures"] = [_figure(name, item, sources, locate) for name, item in figures.items()]
    order = list(figures)
    return decode(Machine, data, lambda path: locate(_by_name(path, order)))


def _by_name(path: CodecPath, order: list[str]) -> CodecPath:
    """Turn `figures[3]...` of the decoded list into `figures.NAME...` of the file."""
    if len(path) >= 2 and path[0] == "figures" and isinstance(path[1], int):
        return ("figures", order[path[1]], *path[2:])
    return path


def _figure(name: str, item: Any, sources: dict[str, dict[str, str]], locate: Locator) -> Any:
    """Return a figure's data with its source resolved; what is no table is left for the decoder to refuse."""
    path: CodecPath = ("figures", name)
    if not isinstance(item, dict):
        raise WrongType(
            place=locate(path),
            field=name,
            found=f"`{item}`",
            reason="a figure is a table",
            expected='`{ value = ..., unit = "...", source = "...", date = "YYYY-MM-DD", basis = "..." }`',
        )
    fields: dict[str, Any] = dict(item)
    if isinstance(fields.get("value"), float) and not math.isfinite(fields["value"]):
        raise WrongType(
            place=locate(path), field=name, found=f"`{fields['value']}`", reason="figures are finite numbers"
        )
    source = fields.get("source")
    if isinstance(source, str) and source in sources:
        fields["source"] = sources[source]["text"]
        fields.setdefault("date", sources[source]["date"])
    elif isinstance(source, str) and "date" not in fields:
        raise MissingField(
            place=locate(path),
            field=f"{path_text(path)}.date",
            expected="a `date` beside a source in words, or a `source` of the table `[sources]`",
            hint=closest(source, list(sources)),
        )
    if "date" in fields:
        fields["date"] = _date(fields["date"], (*path, "date"), locate)
    figure = decode(Figure, {"name": name, **fields}, lambda inner: locate((*path, *inner)))
    if figure.value == 0 and not figure.unit.startswith(MAY_BE_ZERO):
        raise InvalidValue(
            place=locate(path),
            message=f"figure `{name}` is 0 {figure.unit}; rates and counts are above zero",
            hint="leave out the figure of what the machine has not",
        )
    return {"name": name, **fields}


def _sources(table: Any, locate: Locator) -> dict[str, dict[str, str]]:
    if not isinstance(table, dict):
        raise WrongType(place=locate(("sources",)), field="sources", found=f"`{table}`", reason="expected a table")
    found: dict[str, dict[str, str]] = {}
    for key, item in table.items():
        path: CodecPath = ("sources", key)
        if not isinstance(item, dict):
            raise WrongType(place=locate(path), field=key, found=f"`{item}`", reason="a source is `{ text, date }`")
        _refuse_unknown(item, _SOURCE_FIELDS, path, locate)
        for field in _SOURCE_FIELDS:
            if field not in item:
                raise MissingField(place=locate(path), field=f"{path_text(path)}.{field}", hint=f"add `{field}`")
        text = item["text"]
        if not isinstance(text, str) or not text.strip():
            raise WrongType(place=locate(path), field=f"{key}.text", found=f"`{text}`", reason="expected a citation")
        found[key] = {"text": text, "date": _date(item["date"], (*path, "date"), locate)}
    return found


def _date(value: Any, path: CodecPath, locate: Locator) -> str:
    if isinstance(value, date):
        return value.isoformat()[:10]
    try:
        return date.fromisoformat(str(value)).isoformat()
    except ValueError:
        raise WrongType(
            place=locate(path), field=path_text(path), found=f"`{value}`", reason="not a date", expected="`YYYY-MM-DD`"
        ) from None


def _refuse_unknown(table: dict[str, Any], allowed: tuple[str, ...], path: CodecPath, locate: Locator) -> None:
    for key in table:
        if key not in allowed:
            raise UnknownField(
                place=locate((*path, key)),
                field=key,
                expected=f"one of {', '.join(allowed)}",
                hint=closest(key, allowed),
            )


def _refuse_unknown_traits(traits: Any, locate: Locator) -> None:
    """Refuse a trait no rule knows: misspelt, it would quietly describe another machine."""
    for trait in traits if isinstance(traits, list) else ():
        if trait not in TRAITS:
            known = f"among {', '.join(TRAITS)}"
            hint = closest(str(trait), TRAITS)
            raise UnknownName(place=locate(("traits",)), kind="trait", name=trait, expected=known, hint=hint)


def _parse_toml(text: str, file: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        line, column = (int(position[1]), int(position[2])) if position else (0, 0)
        lines = text.splitlines()
        shown = lines[line - 1][:200] if 0 < line <= len(lines) else ""
        raise MalformedText(
            place=Place(file, line, min(column, 200), text=shown),
            message=f"not TOML: {str(error).partition(' (at ')[0]}",
        ) from None
    except RecursionError:
        raise MalformedText(place=Place(file), message="not TOML: nested too deeply") from None


def _locator(text: str, file: str) -> Locator:
    """Return a locator that finds the line of a key: the deepest step of the path that starts a line of its table."""
    lines: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = stripped.strip("[] ")
            head, _, last = table.rpartition(".")
            lines.setdefault((head, last), number)
        elif "=" in stripped and not stripped.startswith("#"):
            lines.setdefault((table, stripped.partition("=")[0].strip().strip('"')), number)

    def locate(path: CodecPath) -> Place:
        for depth in range(len(path), 0, -1):
            key = (".".join(map(str, path[: depth - 1])), str(path[depth - 1]))
            if key in lines:
                return Place(file, lines[key], path=path_text(path))
        return Place(file, path=path_text(path))

    return locate
