"""What the parser makes of a text: plain data in which every value remembers its token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from treadle.ir.codec import Locator, Path, path_text
from treadle.ir.diagnostics import Place
from treadle.ir.text.lexer import Source, Token

Scalar = str | int | float | bool | None


@dataclass(slots=True)
class Node:
    """A scalar, a list or a record, and the token it starts with."""

    value: Scalar | list[Node] | dict[str, Node]
    token: Token

    def data(self) -> Any:
        """Return the value as JSON data."""
        if isinstance(self.value, list):
            return [node.data() for node in self.value]
        if isinstance(self.value, dict):
            return {name: node.data() for name, node in self.value.items()}
        return self.value

    def at(self, path: Path) -> Node:
        """Return the node at `path`, or the nearest one above it."""
        node = self
        for step in path:
            if isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
            elif isinstance(node.value, dict) and step in node.value:
                node = node.value[str(step)]
            else:
                break
        return node


def locator(root: Node, source: Source) -> Locator:
    """Return the locator of a parsed document: line, column and source line of the value at a path."""

    def locate(path: Path) -> Place:
        place = source.place_of(root.at(path).token)
        return Place(place.file, place.line, place.column, path_text(path), place.text)

    return locate
