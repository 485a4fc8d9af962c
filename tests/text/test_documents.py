"""Text in, text out: `RUN`/`CHECK` lines in documents/*.trd, `ERROR` lines in errors/*.trd.

`# RUN: print` parses the file and prints it again; each `CHECK` must match a line of the output after the last match,
`CHECK-NEXT` the very next line, `CHECK-NOT` no line at all. `# ERROR: CODE: LINE:COLUMN: MESSAGE` says which error
reading the file ends with; `ERROR-HINT` and `ERROR-EXPECTED` are parts of what it adds.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from treadle.ir.diagnostics import TreadleError
from treadle.ir.text.documents import parse_file, print_document

HERE = Path(__file__).parent
_DIRECTIVE = re.compile(r"^# (RUN|CHECK(?:-NEXT|-NOT)?|ERROR(?:-HINT|-EXPECTED)?):\s*(.*?)\s*$", re.MULTILINE)


def directives(path: Path) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = _DIRECTIVE.findall(path.read_text())
    assert found, f"{path} checks nothing"
    return found


def check(output: list[str], wanted: list[tuple[str, str]]) -> None:
    position = 0
    for kind, text in wanted:
        if kind == "CHECK-NOT":
            assert not [line for line in output if text in line]
        elif kind == "CHECK-NEXT":
            assert text in output[position], f"line {position + 1} is {output[position]!r}, not {text!r}"
            position += 1
        elif kind == "CHECK":
            matching = [index for index in range(position, len(output)) if text in output[index]]
            assert matching, f"no {text!r} after line {position} of\n" + "\n".join(output)
            position = matching[0] + 1


@pytest.mark.parametrize("path", sorted((HERE / "documents").glob("*.trd")), ids=lambda path: path.stem)
def test_document(path: Path) -> None:
    wanted = directives(path)
    assert wanted[0] == ("RUN", "print")
    objects = parse_file(path)
    text = print_document(objects)
    check([line.strip() for line in text.splitlines()], [(kind, line) for kind, line in wanted[1:]])
    again = HERE / "documents" / path.name
    assert print_document(parse_file(again)) == text


@pytest.mark.parametrize("path", sorted((HERE / "errors").glob("*.trd")), ids=lambda path: path.stem)
def test_error(path: Path) -> None:
    with pytest.raises(TreadleError) as caught:
        parse_file(path)
    error = caught.value
    assert error.place is not None
    assert error.place.file == str(path)
    lines = path.read_text().split("\n")
    for kind, text in directives(path):
        if kind == "ERROR":
            code, _, rest = text.partition(": ")
            assert error.code == code
            assert f"{error.place}: {error}".startswith(f"{path}:{rest}")
            assert error.place.text == lines[error.place.line - 1]
            assert error.place.caret().endswith("^")
        elif kind == "ERROR-HINT":
            assert text in error.next_step
        elif kind == "ERROR-EXPECTED":
            assert text in error.expected
