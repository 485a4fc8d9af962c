"""Triton IR as text -> operations with their regions; as much of MLIR's syntax as Triton's printer uses.

Every operation is one line, but those with a region (`scf.for`, `tt.reduce`), which end at the brace that closes it.
Trailing locations name the line of the user's source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from treadle.frontends.ttir.errors import UnreadableIr
from treadle.ir.diagnostics import Place

_RESULT = re.compile(r"^(%[\w$.#-]+(?::\d+)?(?:, %[\w$.#-]+)*) = (.*)$")
_NAME = re.compile(r'^"?([a-z_][\w]*\.[\w.]+)"?(.*)$', re.IGNORECASE)
_VALUE = re.compile(r"%[\w$.-]+(?:#\d+)?")
_LOCATION = re.compile(r" loc\((.*)\)$")
_ALIAS = re.compile(r"^(#loc\d*) = loc\((.*)\)$")
_SOURCE = re.compile(r'"([^"]+)":(\d+):(\d+)')
_LEAF = re.compile(r"#loc\d*")


@dataclass(slots=True)
class Op:
    """One operation: `text` is what stands behind its name, without location; `line` is that of the IR."""

    name: str
    results: list[str]
    text: str
    line: int
    location: str = ""
    region: list[Op] = field(default_factory=list["Op"])
    closing: str = ""

    @property
    def operands(self) -> list[str]:
        """Values read, in the order of the text."""
        return _VALUE.findall(self.text)

    @property
    def types(self) -> str:
        """The types at the end of the text: what stands behind the last lone colon."""
        text = self.closing or self.text
        return text.rpartition(" : ")[2] if " : " in text else text.rpartition(") : ")[2]

    @property
    def result_type(self) -> str:
        """The type of the (only) result."""
        types = self.types
        for arrow in (" -> ", " to "):
            if arrow in types:
                return types.rpartition(arrow)[2].strip()
        return types.strip()

    def walk(self) -> Iterator[Op]:
        """Return the operations of the region, those of inner regions included."""
        for inner in self.region:
            yield inner
            yield from inner.walk()


@dataclass(slots=True)
class Kernel:
    """A function of the module with its arguments (value -> type) and operations."""

    name: str
    arguments: dict[str, str]
    operations: list[Op]
    file: str
    aliases: dict[str, str]

    def place(self, op: Op) -> Place:
        """Return where an operation stands in the user's source, of inlined ones the caller; or else in the IR."""
        pending, seen = [op.location], set[str]()
        while pending:
            text = pending.pop(0)
            source = _SOURCE.search(text)
            if source:
                return Place(source[1], int(source[2]), int(source[3]))
            leaves = [name for name in _LEAF.findall(text) if name not in seen]
            seen.update(leaves)
            # `callsite(CALLEE at CALLER)`: the caller, which is what the user wrote, is followed to its end first.
            pending = [self.aliases[name] for name in reversed(leaves) if name in self.aliases] + pending
        return Place(self.file, op.line)


def read_kernels(text: str, file: str) -> list[Kernel]:
    """Return the public functions of a module.

    Raises:
        UnreadableIr: the text is something else.
    """
    lines = text.splitlines()
    aliases = {match[1]: match[2] for line in lines if (match := _ALIAS.match(line.strip()))}
    kernels: list[Kernel] = []
    position = 0
    while position < len(lines):
        if "tt.func" in lines[position]:
            kernel, position = _function(lines, position, file, aliases)
            kernels.append(kernel)
        position += 1
    if not kernels:
        raise UnreadableIr(reason="there is no `tt.func`", place=Place(file, 1))
    return kernels


def _function(lines: list[str], position: int, file: str, aliases: dict[str, str]) -> tuple[Kernel, int]:
    match = re.search(r"@(\w+)\((.*)\)", lines[position])
    if match is None:
        raise UnreadableIr(reason="a `tt.func` without a name", place=Place(file, position + 1))
    arguments = dict(re.findall(r"(%[\w$.-]+): (!?[\w.]+(?:<(?:[^<>]|<[^<>]*>)*>)?)", match[2]))
    operations, end = _region(lines, position + 1, file)
    return Kernel(match[1], arguments, operations, file, aliases), end


def _region(lines: list[str], position: int, file: str) -> tuple[list[Op], int]:
    """Return the operations up to the brace that closes the region, and that line's position."""
    found: list[Op] = []
    while position < len(lines):
        line = lines[position].strip()
        if line.startswith("}"):
            return found, position
        if line and not line.startswith(("^", "//", "#")):
            op = _operation(line, position + 1, file)
            if _LOCATION.sub("", line).endswith("{") or line.endswith("({"):
                op.region, position = _region(lines, position + 1, file)
                ending = lines[position].strip()
                if ending.startswith(("} else", "} do")):
                    other, position = _region(lines, position + 1, file)
                    op.region += other
                    ending = lines[position].strip()
                location = _LOCATION.search(ending)
                op.location = location[1] if location else op.location
                op.closing = _LOCATION.sub("", ending).lstrip("})").strip() if op.text.endswith("({") else ""
            found.append(op)
        position += 1
    raise UnreadableIr(reason="a region is not closed", place=Place(file, len(lines)))


def _operation(line: str, number: int, file: str) -> Op:
    location = _LOCATION.search(line)
    bare = _LOCATION.sub("", line)
    results: list[str] = []
    match = _RESULT.match(bare)
    if match:
        results, bare = _results(match[1]), match[2]
    name = _NAME.match(bare)
    if name is None:
        raise UnreadableIr(reason=f"`{line[:60]}` is no operation", place=Place(file, number))
    return Op(name[1], results, name[2].strip(), number, location[1] if location else "")


def _results(text: str) -> list[str]:
    base, _, count = text.partition(":")
    if count:
        return [f"{base}#{position}" for position in range(int(count))]
    return text.split(", ")
