"""A dump as a stream of objects: parsed one at a time, each with its line, so that large files stay small in memory.

Read are a `List` (kubectl), typed lists whose items have no `kind` (`kubectl get --raw`), lists inside lists, single
objects, and several such documents one after another.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from treadle.ir.cluster.errors import NotACluster
from treadle.ir.diagnostics import Place, TreadleError
from treadle.ir.errors import MalformedText, UnreadableFile
from treadle.ir.plan import read_bytes

Data = dict[str, Any]

_SPACE = re.compile(r"[ \t\n\r]*")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
"""Byte order marks: Windows shells write UTF-16 when `kubectl` is redirected."""
_SHOWN = 200
"""Characters of a source line that are shown."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of a dump, its place, and where in the text it begins and ends (-1: not known)."""

    data: Data
    place: Place
    text: str = ""
    at: int = -1
    end: int = -1


def read_entries(path: Path) -> Iterator[Entry]:
    """Yield the objects of a file; raises UnreadableFile, and what `entries_of_text` raises."""
    content = read_bytes(path)
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        raise UnreadableFile(path=str(path), reason="not UTF-8 text") from None
    del content
    yield from entries_of_text(text, str(path))


def entries_of_text(text: str, file: str) -> Iterator[Entry]:
    """Yield the objects of a JSON text.

    Raises:
        MalformedText: no JSON, or JSON that ends early.
        NotACluster: JSON that holds no objects.
    """
    stream = _Stream(text, file)
    try:
        yield from stream.entries()
    except JSONDecodeError as error:
        raise _malformed(error, file, stream.last) from None
    except TreadleError:
        raise
    except (RecursionError, ValueError) as error:
        raise MalformedText(place=Place(file), message=f"not JSON: {error}") from None


def entries_of(document: object, file: str) -> Iterator[Entry]:
    """Yield the objects of a document that is parsed already; raises NotACluster."""
    if not isinstance(document, dict) or not isinstance(document.get("items"), list):
        raise NotACluster(place=Place(file), reason="it is not a List with `items`")
    for index, item in enumerate(document["items"]):
        yield from _objects(Entry(item, Place(file, path=f"items[{index}]")), _kind_of_items(document))


def _objects(entry: Entry, kind: str) -> Iterator[Entry]:
    """Yield an item of a list, or the items of the list it is; `kind` is that of items which do not say theirs."""
    item: Any = entry.data
    if not isinstance(item, dict) or not isinstance(item.get("kind", kind or None), str):
        raise NotACluster(place=entry.place, reason="an item has no `kind`")
    if isinstance(item.get("items"), list) and str(item.get("kind", "")).endswith("List"):
        for index, inner in enumerate(item["items"]):
            place = replace(entry.place, path=f"{entry.place.path}.items[{index}]")
            yield from _objects(replace(entry, data=inner, place=place), _kind_of_items(item))
    else:
        yield entry if "kind" in item else replace(entry, data={"kind": kind, **item})


def _kind_of_items(document: Data) -> str:
    kind = document.get("kind")
    return kind.removesuffix("List") if isinstance(kind, str) else ""


class _Stream:
    """Walks the members of the outermost objects; everything below `items` is decoded one item at a time."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.decoder = json.JSONDecoder(parse_constant=self._refuse, parse_float=self._finite)
        self.at, self.line, self.counted = 0, 1, 0
        self.last = ""
        """The last object that was read whole."""

    def entries(self) -> Iterator[Entry]:
        """Yield the objects of all documents."""
        self._skip()
        if self.at == len(self.text):
            raise NotACluster(place=Place(self.file), reason="the file is empty")
        while self.at < len(self.text):
            if self.text[self.at] != "{":
                self.decoder.raw_decode(self.text, self.at)
                raise NotACluster(place=Place(self.file), reason="it is not a List with `items`")
            yield from self._document()
            self._skip()

    def _document(self) -> Iterator[Entry]:
        """Yield the objects of one document; items that do not say their kind wait for the document's."""
        began, listed, waiting = self._entry(""), False, list[Entry]()
        fields: Data = {}
        self.at += 1
        while self._next_of("}", first=self.text[self.at - 1] == "{"):
            key = self._decode()
            if not isinstance(key, str):
                raise JSONDecodeError("Expecting property name enclosed in double quotes", self.text, self.at)
            self._expect(":")
            if key == "items" and self.text.startswith("[", self._skip()):
                listed = True
                for entry in self._items():
                    if "kind" in entry.data:
                        yield from _objects(entry, "")
                    else:
                        waiting.append(entry)
            else:
                fields[key] = self._decode()
        for entry in waiting:
            yield from _objects(entry, _kind_of_items(fields))
        if not listed:
            if not isinstance(fields.get("kind"), str) or str(fields["kind"]).endswith("List"):
                raise NotACluster(place=began.place, reason="it is not a List with `items`")
            yield replace(began, data=fields, end=self.at)

    def _items(self) -> Iterator[Entry]:
        self.at += 1
        index = 0
        while self._next_of("]", first=index == 0):
            entry = self._entry(f"items[{index}]")
            data = self._decode()
            if not isinstance(data, dict):
                raise NotACluster(place=entry.place, reason="an item has no `kind`")
            self.last = _told(data, entry.place.path)
            yield replace(entry, data=data, end=self.at)
            index += 1

    def _entry(self, path: str) -> Entry:
        """Return an empty entry that begins here; lines are counted on from the last one."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return Entry({}, Place(self.file, self.line, path=path), self.text, self.at)

    def _next_of(self, end: str, *, first: bool) -> bool:
        """Go to the next member or item; False at the end."""
        if self.text.startswith(end, self._skip()):
            self.at += 1
            return False
        if not first:
            self._expect(",")
            self._skip()
        return True

    def _expect(self, mark: str) -> None:
        if not self.text.startswith(mark, self._skip()):
            raise JSONDecodeError(f"Expecting '{mark}' delimiter", self.text, self.at)
        self.at += 1

    def _skip(self) -> int:
        found = _SPACE.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.at

    def _decode(self) -> Any:
        value, self.at = self.decoder.raw_decode(self.text, self._skip())
        return value

    def _refuse(self, word: str) -> float:
        raise MalformedText(place=Place(self.file), message=f"`{word}` is not a JSON number")

    def _finite(self, text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise MalformedText(place=Place(self.file), message=f"`{text}` is too large for a number")
        return value


def _told(data: Data, path: str) -> str:
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return f"{path} ({data.get('kind')} {name})" if name else path


def _malformed(error: JSONDecodeError, file: str, last: str) -> MalformedText:
    """Return the error for text that is no JSON; one that ends early says after which object."""
    begin = error.doc.rfind("\n", 0, error.pos) + 1
    end = error.doc.find("\n", error.pos)
    line = error.doc[begin : end if end >= 0 else None][:_SHOWN]
    place = Place(file, error.lineno, min(error.colno, _SHOWN), text=line)
    early = not error.doc[error.pos :].strip() or error.msg.startswith("Unterminated")
    after = f"; it ends after {last}" if early and last else ""
    return MalformedText(
        place=place,
        message=f"not JSON: {error.msg}{after}",
        expected="a complete JSON document",
        hint="the file ends early: run `kubectl get ... -o json` again" if early else "write it with `kubectl -o json`",
    )
