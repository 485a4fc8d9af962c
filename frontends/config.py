"""A model configuration with located, checked access: every wrong value is an error that names its line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from treadle.frontends.located import json_place
from treadle.ir.codec import Path as Steps
from treadle.ir.diagnostics import Place
from treadle.ir.errors import MalformedText, MissingField, WrongType
from treadle.ir.plan import read_text

T = TypeVar("T")

MOST_LAYERS = 4096
_MOST = 10**9


@dataclass(frozen=True, slots=True)
class Config:
    """A table of a `config.json`, with the text it came from."""

    fields: dict[str, Any]
    text: str = ""
    file: str = "config.json"
    steps: Steps = ()

    def place(self, name: str = "") -> Place:
        """Return where a field stands."""
        return json_place(self.text, self.file, (*self.steps, name) if name else self.steps)

    def has(self, *names: str) -> bool:
        """Whether one of the fields is there and not null."""
        return any(self.fields.get(name) is not None for name in names)

    def integer(self, *names: str, default: int | None = None, least: int = 1, most: int = _MOST) -> int:
        """Return the first present field of `names`; raises MissingField without a default, WrongType."""
        name, value = self._first(names, default)
        if type(value) is not int:
            raise self.wrong(name, "not a whole number", f"a whole number from {least} to {most}")
        if not least <= value <= most:
            raise self.wrong(name, "out of range", f"a whole number from {least} to {most}")
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """Return the first present field of `names` as a finite number; raises MissingField, WrongType."""
        name, value = self._first(names, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.wrong(name, "not a finite number", "a number")
        return float(value)

    def flag(self, *names: str, default: bool = False) -> bool:
        """Return the first present field of `names` as a truth value; raises WrongType."""
        name, value = self._first(names, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "not a truth value", "true or false")
        return value

    def word(self, *names: str, default: str | None = None) -> str:
        """Return the first present field of `names` as text; raises MissingField, WrongType."""
        name, value = self._first(names, default)
        if not isinstance(value, str):
            raise self.wrong(name, "not text", "text")
        return value

    def choices(self, name: str, allowed: Sequence[T], length: int) -> list[T]:
        """Return a list field with one allowed value per layer; raises MissingField, WrongType."""
        _, value = self._first((name,), None)
        if not isinstance(value, list):
            raise self.wrong(name, "not a list", f"a list of {length} values")
        if len(value) < length:
            raise self.wrong(name, f"a list of {len(value)}", f"one value for each of {length} layers")
        for item in value[:length]:
            if not any(type(item) is type(word) and item == word for word in allowed):
                wanted = ", ".join(map(str, allowed))
                raise self.wrong(name, f"`{str(item)[:40]}` is not one of {wanted}", f"values out of {wanted}")
        return value[:length]

    def integers(self, name: str, *, default: Sequence[int] | None = None, least: int = 1) -> tuple[int, ...]:
        """Return a list of whole numbers; raises MissingField without a default, WrongType."""
        _, value = self._first((name,), default)
        if not isinstance(value, list | tuple) or any(type(item) is not int or item < least for item in value):
            raise self.wrong(name, "not a list of whole numbers", f"whole numbers from {least}")
        return tuple(value)

    def uniform_integer(self, *names: str, length: int, default: int | None = None) -> int:
        """Return a whole number given once, or as a list with the same value for each of `length` layers."""
        name, value = self._first(names, default)
        if not isinstance(value, list):
            return self.integer(name, default=default)
        if len(value) < length or len(set(map(str, value[:length]))) != 1 or type(value[0]) is not int or value[0] < 1:
            raise self.wrong(name, "differs between layers", f"one number, or {length} equal ones")
        return value[0]

    def tables(self, name: str, length: int) -> list[Config]:
        """Return a list of `length` tables; raises MissingField, WrongType."""
        _, value = self._first((name,), None)
        if not isinstance(value, list) or len(value) != length or not all(isinstance(item, dict) for item in value):
            raise self.wrong(name, "not a table for each layer", f"a list of {length} tables")
        return [Config(item, self.text, self.file, (*self.steps, name, index)) for index, item in enumerate(value)]

    def section(self, name: str) -> Config:
        """Return a table inside this one; raises MissingField, WrongType."""
        _, value = self._first((name,), None)
        if not isinstance(value, dict):
            raise self.wrong(name, "not a table", "a table of fields")
        return Config(value, self.text, self.file, (*self.steps, name))

    def layers(self) -> int:
        """Return the number of layers, bounded."""
        return self.integer("num_hidden_layers", "n_layer", "num_layers", "n_layers", most=MOST_LAYERS)

    def layers_or_length(self, name: str) -> int:
        """Return the number of layers, or the length of a list with one entry a layer where the number is not given."""
        value = self.fields.get(name)
        if self.has("num_hidden_layers") or not isinstance(value, list) or not 0 < len(value) <= MOST_LAYERS:
            return self.layers()
        return len(value)

    def wrong(self, name: str, reason: str, expected: str = "", hint: str = "") -> WrongType:
        """Return the error for a field's value."""
        shown = json.dumps(self.fields.get(name))
        found = f"`{shown if len(shown) <= 60 else shown[:57] + '...'}`"
        return WrongType(place=self.place(name), field=name, found=found, reason=reason, expected=expected, hint=hint)

    def _first(self, names: tuple[str, ...], default: object) -> tuple[str, Any]:
        for name in names:
            if self.fields.get(name) is not None:
                return name, self.fields[name]
        if default is None:
            raise MissingField(
                place=self.place(),
                field=names[0],
                expected=" or ".join(f"`{name}`" for name in names),
                hint=_misspelt(names[0], self.fields) or f"add `{names[0]}` as published with the model",
            )
        return names[0], default


def _misspelt(name: str, fields: Iterable[str]) -> str:
    """Return what to write for a field written nearly like `name`; `hidden_act` is not nearly `hidden_size`."""
    near = get_close_matches(name, list(fields), n=1, cutoff=0.8)
    return f"write `{near[0]}` as `{name}`" if near else ""


def read_config(path: Path) -> Config:
    """Read a `config.json`; raises UnreadableFile, MalformedText."""
    file = path / "config.json" if path.is_dir() else path
    return config_from(read_text(file), str(file))


def config_from(text: str, file: str) -> Config:
    """Parse the text of a `config.json`. Python's `Infinity` and `NaN` occur in published files and are accepted."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        lines = text.splitlines()
        line = lines[error.lineno - 1][:200] if error.lineno <= len(lines) else ""
        raise MalformedText(
            place=Place(file, error.lineno, min(error.colno, 200), text=line),
            message=f"not JSON: {error.msg}",
            expected="a complete JSON document",
        ) from None
    except (RecursionError, ValueError) as error:
        raise MalformedText(place=Place(file), message=f"not JSON: {error}") from None
    if not isinstance(data, dict):
        raise MalformedText(place=Place(file, 1), message="not a table of fields", expected="a JSON object")
    return Config(data, text, file)
