"""Blocks of the documentation pages: what runs, and what is generated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from treadle.ir.text.forms import DOCUMENTS, FORMS, NAMED

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
_BLOCK = re.compile(r"^```(\w+) run\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, the lines that must follow it, and its exit status."""

    line: str
    output: tuple[str, ...]
    status: int


def blocks(page: Path, language: str) -> list[str]:
    """Return the blocks of a page that are marked to run."""
    return [body for kind, body in _BLOCK.findall(page.read_text()) if kind == language]


def commands(block: str) -> list[Command]:
    """Return the commands of a console block; `# exit N` behind a command is its expected status."""
    found: list[Command] = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, *output = part.rstrip("\n").split("\n")
        line, _, remark = line.partition("    # exit ")
        found.append(Command(line, tuple(output), int(remark or 0)))
    return found


def matches(wanted: tuple[str, ...], output: str) -> bool:
    """Whether the output is the wanted lines, `...` standing for any text within a line or for any lines."""
    pattern = ""
    for line in wanted:
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(piece.rstrip()) for piece in line.split("...")) + r"[ ]*\n"
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in output.splitlines())) is not None


def text_form_page(page: str) -> str:
    """Return the page of the text form with its generated tables."""
    kinds = [f"| `{word}` | {_type(name)} | {_named(name)} |" for word, name in sorted(DOCUMENTS.items())]
    forms = [f"| {_type(name)} | `{_cell(grammar)}` |" for name, grammar in sorted(FORMS.items())]
    head, _, rest = page.partition("<!-- documents -->\n")
    _, _, rest = rest.partition("## One-line forms")
    middle, _, _ = rest.partition("<!-- forms -->\n")
    return "\n".join(
        [
            head + "<!-- documents -->",
            "| starts with | holds | name is the field |",
            "| --- | --- | --- |",
            *kinds,
            "",
            "## One-line forms" + middle + "<!-- forms -->",
            "| type | form |",
            "| --- | --- |",
            *forms,
            "",
        ]
    )


def _type(name: str) -> str:
    return f"`{name.rpartition(':')[2]}`"


def _named(name: str) -> str:
    return f"`{NAMED[name]}`" if name in NAMED else ""


def _cell(grammar: str) -> str:
    return grammar.replace("|", "\\|")
