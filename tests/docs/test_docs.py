"""Examples of the documentation run and say what the pages say; generated pages are up to date (TREADLE_ACCEPT=1)."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT, blocks, commands, matches, text_form_page
from treadle.cli.catalogue import findings, page
from treadle.cli.verbs import VERBS
from treadle.ir.text.documents import parse

PAGES = sorted([*DOCS.glob("*.md"), *(DOCS / "verbs").glob("*.md")])
CONSOLE = [path for path in PAGES if blocks(path, "console")]
PYTHON = [path for path in PAGES if blocks(path, "python")]


def name(path: Path) -> str:
    return str(path.relative_to(DOCS))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "110"}


@pytest.mark.parametrize("path", CONSOLE, ids=name)
def test_console_examples(path: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for command in (command for block in blocks(path, "console") for command in commands(block)):
        words = shlex.split(command.line)
        run = [sys.executable, "-m", *words] if words[0] == "treadle" else words
        done = subprocess.run(
            run,
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == command.status, f"$ {command.line}\n{done.stdout}"
        if command.output or command.status:
            assert matches(command.output, done.stdout), f"$ {command.line}\n{done.stdout}"


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_python_examples(path: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    code = "\n".join(blocks(path, "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def current(path: Path, wanted: str) -> str:
    """Return what a generated page says, after writing it when asked to."""
    if os.environ.get("TREADLE_ACCEPT") == "1":
        path.write_text(wanted)
    return path.read_text()


OUTDATED = "out of date: run the tests with TREADLE_ACCEPT=1"


def test_error_catalogue_is_up_to_date() -> None:
    wanted = page()
    assert current(DOCS / "errors.md", wanted) == wanted, OUTDATED


def test_text_form_tables_are_up_to_date() -> None:
    path = DOCS / "text-form.md"
    wanted = text_form_page(path.read_text())
    assert current(path, wanted) == wanted, OUTDATED


def test_text_form_example_parses() -> None:
    example = (DOCS / "text-form.md").read_text().split("```text\n")[1].split("```")[0]
    assert [loop.name for loop in parse(example)] == ["dot"]


def test_main_verbs_have_a_page() -> None:
    pages = {path.stem for path in (DOCS / "verbs").glob("*.md")}
    assert {"compile", "kernel", "verify", "explain", "show", "diff", "machines"} <= pages & set(VERBS)


def test_findings_say_something() -> None:
    found = findings()
    assert {"TRD401", "TRD403", "TRD490", "TRD492"} <= set(found)
    assert found["TRD403"][0]
