"""What a dump says that the model does not honour: each fact once, with how many objects it concerns and which."""

from __future__ import annotations

_NAMED = 3


class Remarks:
    """Facts in the order in which they are found."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def add(self, fact: str, name: str = "") -> None:
        """Add a fact, and the object that it concerns."""
        names = self._found.setdefault(fact, [])
        if name:
            names.append(name)

    def lines(self) -> tuple[str, ...]:
        """Return the facts, each with the first few of its objects."""
        return tuple(f"{len(names)} {fact}{_of(names)}" if names else fact for fact, names in self._found.items())


def _of(names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f": {', '.join(names[:_NAMED])}{more}"
