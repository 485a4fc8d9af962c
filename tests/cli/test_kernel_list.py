"""`treadle kernel --list`: all families, or one with everything that a command may say about it."""

from __future__ import annotations

import json

import pytest

from treadle.cli.main import main
from treadle.driver.shapes import DEFAULT_SHAPES
from treadle.frontends import programs
from treadle.ir.diagnostics import ExitCode


def test_all_families_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", "--list"]) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(programs.FAMILIES)
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize("name", list(programs.FAMILIES))
def test_what_is_listed_is_what_is_planned(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", name, "--list", "--json"]) == ExitCode.DONE
    (family,) = json.loads(capsys.readouterr().out)["families"]
    shape = {key: extent["unless_given"] for key, extent in family["shape"].items()}
    assert shape.items() >= DEFAULT_SHAPES[name].items()
    assert programs.build(name, shape).family == name
    assert main(["kernel", "--program", name, "--list"]) == ExitCode.DONE
    text = capsys.readouterr().out
    for key in (*shape, *family["tiles"], *family["switches"]):
        assert f"\n  {key} " in text


def test_an_unknown_family_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernel", "gem", "--list"]) == ExitCode.USAGE
    assert "did you mean `gemm`?" in capsys.readouterr().err
