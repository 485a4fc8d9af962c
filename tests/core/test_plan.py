"""The envelope of a plan: derived id, seal, versions, writing whole folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.core.samples import kernel_plan
from treadle.codegen.folder import write_plan
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import MalformedText, NotAPlan, UnknownName, UnreadableFile, UnsupportedVersion, UnwritablePath
from treadle.ir.plan import FORMAT, load, to_data, to_text


def test_written_plan_loads_equal(tmp_path: Path) -> None:
    written = write_plan(tmp_path / "plan", kernel_plan(), {"kernels/a.py": b"x = 1\n"})
    assert load(tmp_path / "plan") == written
    assert written.seal == written.expected_seal()
    assert [artifact.path for artifact in written.artifacts] == ["kernels/a.py"]


def test_same_inputs_give_the_same_bytes() -> None:
    assert to_text(kernel_plan().sealed()) == to_text(kernel_plan().sealed())


def test_rewriting_replaces_the_whole_folder(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan", kernel_plan(), {"old.txt": b"old"})
    write_plan(tmp_path / "plan", kernel_plan(), {"new.txt": b"new"})
    assert sorted(path.name for path in (tmp_path / "plan").iterdir()) == ["new.txt", "plan.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_a_failed_write_keeps_the_old_plan(tmp_path: Path) -> None:
    write_plan(tmp_path / "plan", kernel_plan(), {"old.txt": b"old"})
    with pytest.raises(UnwritablePath):
        write_plan(tmp_path / "plan", kernel_plan(), {"a": b"file", "a/b": b"inside a file"})
    assert (tmp_path / "plan" / "old.txt").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["plan"]


def test_foreign_folders_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    (tmp_path / "file").write_text("precious")
    for target in ("mine", "file", "file/inside"):
        with pytest.raises(UnwritablePath):
            write_plan(tmp_path / target, kernel_plan(), {})
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", MalformedText),
        ('{"format": "treadle-plan/1", ', MalformedText),
        ('{"format": NaN}', MalformedText),
        ('{"format": 1e999}', MalformedText),
        ("[" * 100_000, MalformedText),
        ("[]", NotAPlan),
        ("{}", NotAPlan),
        ('{"format": "treadle-plan/99"}', UnsupportedVersion),
        (json.dumps({**to_data(kernel_plan().sealed()), "kind": "weather"}), UnknownName),
        (json.dumps({**to_data(kernel_plan().sealed()), "surprise": 1}), TreadleError),
    ],
)
def test_unreadable_plans(tmp_path: Path, text: str, error: type[TreadleError]) -> None:
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(error):
        load(file)


def test_paths_that_hold_no_plan(tmp_path: Path) -> None:
    with pytest.raises(NotAPlan):
        load(tmp_path)
    with pytest.raises(UnreadableFile):
        load(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UnreadableFile):
        load(tmp_path / "binary")


def test_seal_covers_every_field() -> None:
    plan = kernel_plan().sealed()
    changes: list[dict[str, Any]] = [
        {"kind": "x"},
        {"options": {"a": 1}},
        {"versions": {}},
        {"parts": ("p",)},
        {"format": FORMAT + "x"},
    ]
    for change in changes:
        assert replace(plan, **change).expected_seal() != plan.seal
