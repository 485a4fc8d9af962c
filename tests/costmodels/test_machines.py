import json
import tomllib
from contextlib import suppress
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.cli.main import main
from treadle.costmodels.kernel_estimates import CALIBRATED
from treadle.costmodels.machines import load_machine, machine_ids, parse_machine
from treadle.costmodels.rules import rules
from treadle.ir.codec import decode, encode, file_locator
from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import (
    InvalidValue,
    MalformedText,
    MissingField,
    UnknownField,
    UnknownName,
    UnreadableFile,
    WrongType,
)
from treadle.ir.machine import Basis, Machine, MissingFigure

MACHINES = ("a100", "b200", "h100", "h200", "mi300x")

SMALL = """\
id = "toy"
name = "Toy"
vendor = "nobody"
architecture = "toy_1"
traits = ["tma"]

[sources]
paper = { text = "A paper, table 1", date = "2026-01-02" }

[figures]
sm_count = { value = 4, unit = "SM", source = "paper", basis = "vendor" }
clock_boost_ghz = { value = 1.5, unit = "GHz", source = "in words", date = 2026-03-04, basis = "measured" }
"""


def broken(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new, 1)


def test_shipped_machines() -> None:
    assert machine_ids() == MACHINES


@pytest.mark.parametrize("machine_id", MACHINES)
def test_every_figure_has_all_attributes(machine_id: str) -> None:
    machine = load_machine(machine_id)
    assert machine.id == machine_id
    assert len(machine.figures) >= 60
    for figure in machine.figures:
        assert figure.value > 0, figure.name
        assert figure.unit
        assert len(figure.source) > 10, figure.name
        assert date(2020, 1, 1) < date.fromisoformat(figure.date) < date(2100, 1, 1)
        assert isinstance(figure.basis, Basis)


@pytest.mark.parametrize("machine_id", MACHINES)
def test_units_follow_names(machine_id: str) -> None:
    endings = {"_ghz": "GHz", "_us": "us", "_w": "W", "_latency_cycles": "cycle", "_bytes_per_s": "B/s"}
    for figure in load_machine(machine_id).figures:
        for ending, unit in endings.items():
            if figure.name.endswith(ending):
                assert figure.unit.startswith(unit), figure.name


@pytest.mark.parametrize("machine_id", MACHINES)
def test_matrix_rates_agree_with_the_peaks(machine_id: str) -> None:
    machine = load_machine(machine_id)
    for dtype in ("float16", "bfloat16", "tfloat32", "int8"):
        rate = machine.value(f"tensor_fma_per_cycle_{dtype}")
        peak = 2 * rate * machine.value("sm_count") * machine.value("clock_boost_ghz") * 1e9
        assert peak == pytest.approx(machine.value(f"peak_flops_{dtype}"), rel=0.03)


@pytest.mark.parametrize("machine_id", MACHINES)
def test_sustained_figures_stay_below_the_peaks(machine_id: str) -> None:
    machine = load_machine(machine_id)
    assert machine.value("clock_sustained_ghz") < machine.value("clock_boost_ghz") <= machine.value("clock_max_ghz")
    sustained = machine.value("memory_bandwidth_sustained_bytes_per_s")
    assert sustained < machine.value("memory_bandwidth_bytes_per_s")
    assert machine.value("shared_capacity_bytes") <= machine.value("shared_capacity_per_sm_bytes")


@pytest.mark.parametrize("machine_id", MACHINES)
def test_json_round_trip(machine_id: str) -> None:
    machine = load_machine(machine_id)
    data = json.loads(json.dumps(encode(machine), allow_nan=False))
    assert decode(Machine, data, file_locator("m.json")) == machine


def test_at_most_eight_calibrated_constants() -> None:
    assert len(CALIBRATED) <= 8
    for machine_id in ("a100", "h100", "h200", "b200"):
        for name in CALIBRATED:
            assert load_machine(machine_id).figure(name).basis is Basis.DERIVED


def test_architecture_rules_are_data() -> None:
    amd, ampere, hopper, blackwell = (rules(load_machine(m)) for m in ("mi300x", "a100", "h100", "b200"))
    assert not amd.register_reallocation
    assert not amd.async_mma
    assert not ampere.async_mma
    assert hopper.async_mma
    assert hopper.register_reallocation
    assert not hopper.tensor_memory
    assert blackwell.tensor_memory
    assert blackwell.tensor_bytes == 256 * 1024
    assert blackwell.handoff_cycles(1024) == 78
    assert hopper.even_registers(12) == 168
    assert amd.warp_size == 64


def test_loading_is_cached() -> None:
    assert load_machine("h200") is load_machine("h200")


def test_users_machine(tmp_path: Path) -> None:
    file = tmp_path / "toy.toml"
    file.write_text(SMALL)
    machine = load_machine(file)
    assert machine.figure("sm_count").source == "A paper, table 1"
    assert machine.figure("sm_count").date == "2026-01-02"
    assert machine.figure("clock_boost_ghz").date == "2026-03-04"
    assert load_machine(str(file)) == machine


def test_missing_figure_names_the_nearest() -> None:
    with pytest.raises(MissingFigure) as caught:
        load_machine("h200").value("sm_cuont")
    assert "sm_count" in caught.value.next_step


def test_unknown_machine() -> None:
    with pytest.raises(UnknownName) as caught:
        load_machine("h20")
    assert "h200" in caught.value.next_step


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile):
        load_machine(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("text", "error", "line", "word"),
    [
        (broken('unit = "SM", ', ""), MissingField, 11, "unit"),
        (broken(', source = "paper"', ""), MissingField, 11, "source"),
        (broken(', basis = "vendor"', ""), MissingField, 11, "basis"),
        (broken("value = 4, ", ""), MissingField, 11, "value"),
        (broken(", date = 2026-03-04", ""), MissingField, 12, "date"),
        (broken('"vendor" }', '"vendr" }'), WrongType, 11, "vendr"),
        (broken("2026-03-04", '"4 March"'), WrongType, 12, "4 March"),
        (broken("value = 4", 'value = "4"'), WrongType, 11, "4"),
        (broken("value = 4", "value = inf"), WrongType, 11, "inf"),
        (broken('{ value = 4, unit = "SM", source = "paper", basis = "vendor" }', "4"), WrongType, 11, "4"),
        (broken("value = 4", "valeu = 4"), UnknownField, 11, "valeu"),
        (broken("traits", "trais"), UnknownField, 5, "trais"),
        (broken('["tma"]', '["tna"]'), UnknownName, 5, "did you mean `tma`?"),
        (broken("value = 4", "value = 0"), InvalidValue, 11, "rates and counts are above zero"),
        (broken('name = "Toy"\n', ""), MissingField, 0, "name"),
        (broken(', date = "2026-01-02"', ""), MissingField, 8, "date"),
        (broken("[figures]", "[figures"), MalformedText, 10, "TOML"),
        (broken("sm_count", "clock_boost_ghz"), MalformedText, 12, "TOML"),
        (SMALL.partition("[figures]")[0], MissingField, 0, "figures"),
    ],
)
def test_faults_have_places(text: str, error: type[TreadleError], line: int, word: str) -> None:
    with pytest.raises(error) as caught:
        parse_machine(text, "toy.toml")
    assert caught.value.place is not None
    assert caught.value.place.file == "toy.toml"
    assert caught.value.place.line == line
    assert word in caught.value.render()


def test_negative_and_empty_values_are_refused() -> None:
    for text in (
        broken("value = 4", "value = -4"),
        broken('unit = "SM"', 'unit = ""'),
        broken("value = 4", "value = nan"),
    ):
        with pytest.raises(TreadleError):
            parse_machine(text, "toy.toml")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_files_never_crash(data: st.DataObject) -> None:
    text = SMALL
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 4)) :]
        if not text:
            return
    with suppress(TreadleError):
        assert parse_machine(text, "toy.toml").figures


def test_machine_files_keep_one_figure_per_line() -> None:
    folder = Path(__file__).parents[2] / "costmodels" / "data" / "machines"
    for file in folder.glob("*.toml"):
        document = tomllib.loads(file.read_text())
        starts = {line.partition(" =")[0] for line in file.read_text().splitlines()}
        assert set(document["figures"]) <= starts
        used = {figure["source"] for figure in document["figures"].values()}
        assert used == set(document["sources"]), f"{file.name}: sources without a figure, or figures without a source"


def test_verb_lists_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machines"]) == 0
    out = capsys.readouterr().out
    assert all(machine_id in out for machine_id in MACHINES)
    assert main(["machines", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["machines"]
    for row in rows:
        assert row["figures"] == sum(row[basis.value] for basis in Basis)


def test_verb_shows_one_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machines", "h200"]) == 0
    out = capsys.readouterr().out
    for figure in load_machine("h200").figures:
        assert figure.name in out
        assert figure.source in out
    assert main(["machines", "h200", "--json"]) == 0
    assert decode(Machine, json.loads(capsys.readouterr().out), file_locator("x")) == load_machine("h200")


def test_verb_refuses_unknown_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machines", "h20"]) == 2
    assert "TRD007" in capsys.readouterr().err
