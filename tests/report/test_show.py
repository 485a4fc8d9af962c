"""`treadle show`: the page's path, a drawing, the text form, and what it refuses."""

from __future__ import annotations

import json
import webbrowser
from dataclasses import replace
from pathlib import Path

import pytest

from tests.report.sample import KERNEL, PLAN
from treadle.cli.main import main
from treadle.codegen.folder import write_plan
from treadle.ir.plan import Plan, load
from treadle.ir.text.documents import parse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_plan(tmp_path / "plan", replace(PLAN, artifacts=()), {"report.html": b"<html>", "kernels/flash.py": b"pass"})
    return tmp_path / "plan"


def test_prints_the_path_and_opens_the_browser(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def refuse(uri: str) -> bool:
        opened.append(uri)
        return False

    monkeypatch.setattr(webbrowser, "open", refuse)
    assert main(["show", str(folder)]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() == str(folder / "report.html")
    assert opened == [(folder / "report.html").as_uri()]
    assert "no browser found" in printed.err


def test_makes_a_page_for_a_plan_without_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "report.html").unlink()
    assert main(["show", str(folder), "--no-browser"]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page.parent != folder
    assert "Demonstration GPU" in page.read_text()


def test_draws_a_kernel(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(folder), "--kernel", "flash"]) == 0
    printed = capsys.readouterr().out
    assert "two intervals of 512 cycles" in printed
    assert "[scores" in printed


def test_prints_text_that_reads_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(folder), "--text"]) == 0
    assert parse(capsys.readouterr().out) == [load(folder)]


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"report": str(folder / "report.html")}
    assert main(["show", str(folder), "--kernel", "flash", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == KERNEL.name


def test_refuses_unknown_kernels_and_plans_without_any(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(folder), "--kernel", "flush"]) == 2
    assert "did you mean `flash`?" in capsys.readouterr().err
    assert main(["show", str(tmp_path / "nothing"), "--no-browser"]) == 2
    assert "error TRD001" in capsys.readouterr().err
    assert isinstance(load(folder), Plan)
