"""What treadle says when something is wrong: places, findings and coded errors.

A *finding* is a fact about a plan or an input (the checker returns lists of them). An *error* stops the request; each
situation is one subclass of `TreadleError` with a stable code, a message template and a hint, and the error catalogue
in the documentation is generated from these classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """Exit status of every verb."""

    DONE = 0
    UNMET = 1
    """The request cannot be met, or verification found something."""
    USAGE = 2
    """Bad input or bad usage."""
    LIMIT = 3
    """Stopped at a limit with a plan and a gap."""
    INTERNAL = 101


@dataclass(frozen=True, slots=True)
class Place:
    """Where something was found: a file, optionally a 1-based line and column, and a path inside the document."""

    file: str
    line: int = 0
    column: int = 0
    path: str = ""
    text: str = ""
    """The source line, when there is one to show."""

    def __str__(self) -> str:
        position = "".join(f":{number}" for number in (self.line, self.column) if number)
        inside = f": {self.path}" if self.path else ""
        return f"{self.file}{position}{inside}"

    def caret(self) -> str:
        """Return the source line with a caret under the column, or an empty string."""
        if not self.text or not self.column:
            return ""
        return f"  {self.text}\n  {' ' * (self.column - 1)}^"


class Severity(Enum):
    """How bad a finding is; any `ERROR` makes a plan illegal."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """One fact found by a checker: which rule (`code`), where, what was expected and what is there."""

    code: str
    where: str
    message: str
    expected: str = ""
    found: str = ""
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        contrast = f" (expected {self.expected}, found {self.found})" if self.expected or self.found else ""
        return f"{self.severity.value} {self.code}: {self.where}: {self.message}{contrast}"


class TreadleError(Exception):
    """Base of all coded errors: what is wrong, where, what was expected, what to do next.

    Subclasses set `code` (`TRDnnn`, unique), `template` (formatted with the keyword arguments) and `hint`.
    Codes: 0xx general, 1xx inputs, 2xx machines and cost models, 3xx requests no plan meets, 4xx findings of the
    checker, 5xx kernels and generated files.
    """

    code: ClassVar[str] = "TRD000"
    template: ClassVar[str] = "{message}"
    hint: ClassVar[str] = ""
    exit_code: ClassVar[ExitCode] = ExitCode.USAGE

    def __init__(self, *, place: Place | None = None, expected: str = "", hint: str = "", **fields: object) -> None:
        self.place = place
        self.expected = expected
        self.fields = fields
        self.next_step = hint or self.hint.format_map(_Shown(fields))
        super().__init__(self.template.format_map(_Shown(fields)))

    def render(self) -> str:
        """Return the message as people see it: code, place, message, source line with caret, expectation, hint."""
        head = f"error {self.code}: " + (f"{self.place}: " if self.place else "") + str(self)
        lines = [head]
        if self.place and (caret := self.place.caret()):
            lines.append(caret)
        if self.expected:
            lines.append(f"  expected {self.expected}")
        if self.next_step:
            lines.append(f"  hint: {self.next_step}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """Return the error as a JSON-ready dictionary (`--json`)."""
        return {
            "code": self.code,
            "message": str(self),
            "place": str(self.place) if self.place else None,
            "expected": self.expected or None,
            "hint": self.next_step or None,
        }


class _Shown(dict[str, object]):
    """Fields for a template; a missing one is a defect of ours and shows as such rather than as a traceback."""

    def __missing__(self, key: str) -> str:
        return f"<{key}>"


def catalogue() -> list[type[TreadleError]]:
    """Return every loaded error class by code (import the modules that declare them first)."""
    found: list[type[TreadleError]] = []
    queue = list(TreadleError.__subclasses__())
    while queue:
        error = queue.pop()
        found.append(error)
        queue.extend(error.__subclasses__())
    return sorted(found, key=lambda error: error.code)


def closest(word: str, allowed: list[str] | tuple[str, ...]) -> str:
    """Return ``did you mean `x`?`` for the nearest allowed word, or an empty string."""
    from difflib import get_close_matches

    matches = get_close_matches(word, list(allowed), n=1, cutoff=0.6)
    return f"did you mean `{matches[0]}`?" if matches else ""
