"""Leaves out of a DRCP proof what its conclusion does not rest on."""

from __future__ import annotations

from collections.abc import Iterable


def trimmed(text: str) -> str:
    """Return the proof with only the steps, and the names of atoms, that the last nogood needs."""
    lines = [line.split() for line in text.splitlines()]
    conclusion = next((words for words in reversed(lines) if words[0] == "n"), None)
    if conclusion is None:
        return text
    needed = {conclusion[1]}
    atoms: set[str] = set()
    kept: list[list[str]] = []
    for words in reversed(lines):
        if words[0] in ("i", "n") and words[1] in needed:
            needed.update(_names(words))
            atoms.update(word.lstrip("-") for word in _atoms(words))
            kept.append(words)
    used = [words for words in lines if words[0] == "a" and words[1] in atoms]
    return "\n".join(" ".join(words) for words in [*used, *reversed(kept), ["c", "UNSAT"]]) + "\n"


def _names(words: list[str]) -> Iterable[str]:
    """Return the steps a line names: behind the zero of a nogood, by `c:` in an inference."""
    if words[0] == "n":
        return words[words.index("0", 2) + 1 :]
    return [word[2:] for word in words if word.startswith("c:")]


def _atoms(words: list[str]) -> Iterable[str]:
    end = words.index("0", 2)
    yield from words[2:end]
    if words[0] == "i":
        yield from (word for word in words[end + 1 :] if not word.startswith(("c:", "l:")))
