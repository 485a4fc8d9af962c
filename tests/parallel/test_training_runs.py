"""Tables of training runs: what is read, what is refused, and the benchmark on files of a stranger."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.training_fit import drawn
from benchmarks.training_reach import left_out, monotone, rising
from benchmarks.training_rows import fit_rows, read
from treadle.frontends.training_runs import BadRunValue, NotTrainingRuns, NoUsableRun, parse_runs

ROOT = Path(__file__).parents[2]
HEADER = "model,layers,hidden,heads,ffn,vocab,seq,gpu,n_gpus,tp,pp,dp,micro_batch,global_batch,iter_time_s"
RUNS = (
    "tiny,8,1024,16,4096,32000,1024,A100,8,1,1,8,2,32,0.30",
    "tiny,8,1024,16,4096,32000,1024,A100,8,2,1,4,2,32,0.40",
    "tiny,8,1024,16,4096,32000,1024,A100,8,1,2,4,2,32,0.35",
)


def written(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def run(path: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.training_runs", "--data", str(path), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


def test_a_strangers_file_gives_errors_regret_and_tau(tmp_path: Path) -> None:
    lines = [f"{line},x" for line in (f"{HEADER},weather", *RUNS)]
    lines[0] = f"{HEADER},weather,unit"
    out = tmp_path / "out.json"
    done = run(written(tmp_path, *lines), "--json", str(out))
    assert done.returncode == 0, done.stderr
    record = json.loads(out.read_text())
    (accuracy,) = record["figures"]["accuracy"].values()
    (decisions,) = record["figures"]["decisions"].values()
    assert accuracy["rows"] == 3
    assert accuracy["mape"] > 0
    assert decisions["groups"] == 1
    assert -1 <= decisions["tau"] <= 1
    assert decisions["rule_data"] == 0
    assert record["figures"]["activations_closed_form_error_percent"] < 0.1
    assert record["figures"]["groups"][0]["runs"] == 3


def test_missing_values_and_other_types_are_left_out_with_a_reason(tmp_path: Path) -> None:
    odd = (
        RUNS[0].replace("A100", "TPUv9"),
        RUNS[0].replace("32000", ""),
        RUNS[0].replace("A100,8,1,1,8", "A100,16,1,1,8"),
        RUNS[0].replace("2,32,", "3,32,"),
        RUNS[0].removesuffix("0.30"),
        RUNS[0].replace("tiny", "Mixtral-8x7B"),
        RUNS[0].replace("1024,16,4096", "1000,16,4096"),
    )
    rows, skipped = read(written(tmp_path, HEADER, RUNS[0], *odd))
    assert len(rows) == 1
    assert sum(skipped.values()) == len(odd) == len(skipped)
    assert "GPU TPUv9 has no constants" in skipped


@given(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 5)), min_size=1, max_size=7))
def test_the_nearest_rising_sequence_rises_and_keeps_the_mean(points: list[tuple[float, float]]) -> None:
    values, weights = (np.array(column) for column in zip(*points, strict=True))
    found = rising(values, weights)
    assert (np.diff(found) >= -1e-12).all()
    assert found @ weights == pytest.approx(values @ weights)
    steps = np.array([np.full(len(values), start <= np.arange(len(values))) for start in range(len(values))])
    assert all((weights * (values - found)) @ step <= 1e-9 for step in steps), "no later block wants to rise"


def test_monotone_tables_rise_along_both_axes_and_leave_what_rises() -> None:
    cells = {
        (hidden, tensor, micro): hidden * micro / tensor for hidden in (1, 2) for tensor in (1, 2) for micro in (1, 2)
    }
    same = monotone(cells, dict.fromkeys(cells, 1), (0, 2))
    assert same == pytest.approx(cells)
    odd = monotone(cells | {(1, 1, 1): 9.0}, dict.fromkeys(cells, 1), (0, 2))
    assert odd[1, 1, 1] <= min(odd[2, 1, 1], odd[1, 1, 2]) + 1e-9
    assert odd[1, 2, 1] == pytest.approx(cells[1, 2, 1])


def test_what_is_left_out_is_told_from_the_others() -> None:
    points = np.array([[float(x), float(y)] for x in range(4) for y in range(4)])
    values = 0.3 * points[:, 0] - 0.2 * points[:, 1]
    assert left_out(points, values) == pytest.approx(values, abs=0.01)


def test_a_draw_takes_a_fifth_of_each_source(tmp_path: Path) -> None:
    lines = [RUNS[0].replace("0.30", f"0.{number}") for number in range(30, 42)]
    rows, _ = read(written(tmp_path, HEADER, *lines))
    first, again, other = (drawn(rows, seed) for seed in (1, 1, 2))
    assert len(first) == 2
    assert first == again != other


def test_an_unstated_microbatch_is_the_fastest_that_fits(tmp_path: Path) -> None:
    path = written(tmp_path, f"{HEADER},recompute", RUNS[0].replace("2,32,", ",32,") + ",full")
    (row,), _ = read(path)
    assert [degrees.micro_batch for degrees in row.tuned] == [1, 2, 4]
    (other,), _ = read(written(tmp_path, HEADER, RUNS[0]))
    assert [degrees.recompute.value for degrees in other.tuned] == ["none", "selective", "full"]
    times = [row.predict().step_us]
    times += [replace(row, degrees=degrees, tuned=()).predict().step_us for degrees in row.tuned]
    assert times[0] == min(times[1:])


def test_rates_become_times(tmp_path: Path) -> None:
    header = HEADER.replace("iter_time_s", "tflops_per_gpu,params")
    (row,), _ = read(written(tmp_path, header, RUNS[0].replace("0.30", "100,2e8")))
    flops = 32 * 1024 * (6 * 2e8 + 12 * 8 * 1024 * 1024)
    assert row.measured_s == pytest.approx(flops / (8 * 100e12))


def test_fit_rows_are_at_most_a_fifth(tmp_path: Path) -> None:
    lines = [RUNS[number % 3].replace("0.3", f"0.3{number}") for number in range(17)]
    rows, _ = read(written(tmp_path, HEADER, *lines))
    chosen = fit_rows(rows)
    assert len(chosen) == 3
    assert {row.key for row in chosen} <= {row.key for row in rows}


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", NotTrainingRuns, "the file is empty"),
        ("a,b\n1,2\n", NotTrainingRuns, "no column `model`"),
        (f"{HEADER.replace('layers', 'layer')}\n{RUNS[0]}\n", NotTrainingRuns, "no column `layers`"),
        (f"{HEADER.removesuffix(',iter_time_s')}\n{RUNS[0]}\n", NotTrainingRuns, "no column `iter_time_s`"),
        (f"{HEADER}\n", NotTrainingRuns, "no line after the header"),
    ],
)
def test_other_tables_are_refused(text: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        parse_runs(text)


@pytest.mark.parametrize(
    ("old", "new"), [("1024,16", "one,16"), ("0.30", "-3"), ("0.30", "0,30"), ("8,1024", "8.5,1024")]
)
def test_cells_that_are_no_numbers_name_their_line(tmp_path: Path, old: str, new: str) -> None:
    path = written(tmp_path, HEADER, RUNS[1], RUNS[0].replace(old, new, 1))
    if new == "0,30":
        path = written(tmp_path, HEADER, RUNS[1], RUNS[0].replace("0.30", '"0,30"'))
    with pytest.raises(BadRunValue) as caught:
        read(path)
    assert caught.value.place is not None
    assert caught.value.place.line == 3


def test_a_table_without_a_usable_run_says_why(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER, RUNS[0].replace("A100", "TPUv9"))
    with pytest.raises(NoUsableRun, match="TPUv9"):
        read(path)
    done = run(path)
    assert done.returncode == 2
    assert done.stderr.startswith("error TRD612")
    assert "Traceback" not in done.stderr


def test_fitting_a_type_without_runs_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.training_fit", "--data", str(written(tmp_path, HEADER, *RUNS))]
    done = subprocess.run(
        [*command, "--gpu", "h200"], capture_output=True, text=True, timeout=120, cwd=ROOT, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error TRD613")
