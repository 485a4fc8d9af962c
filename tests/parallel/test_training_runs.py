"""Tables of training runs: what is read, what is refused, and the benchmark on files of a stranger."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.training_fit import drawn
from benchmarks.training_reach import dealt_anew, left_out, monotone, odd_cells, rising, without_bias
from benchmarks.training_rows import even_layout, fit_rows, read, reasons_of
from treadle.frontends.training_runs import NotTrainingRuns, NoUsableRun, parse_runs

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


def test_runs_that_cannot_be_told_are_left_out_with_a_code_and_their_line(tmp_path: Path) -> None:
    odd = {
        RUNS[0].replace("A100", "TPUv9"): "TRD654",
        RUNS[0].replace("A100", "H100 PCIe"): "TRD654",
        RUNS[0].replace("32000", ""): "TRD652",
        RUNS[0].replace("A100,8,1,1,8", "A100,16,1,1,8"): "TRD653",
        RUNS[0].replace("A100,8,1,1,8", "A100,16,3,1,"): "TRD653",
        RUNS[0].replace("2,32,", "3,32,"): "TRD653",
        RUNS[0].removesuffix("0.30"): "TRD652",
        RUNS[0].replace("tiny", "Nobody-20B-A3B"): "TRD651",
        RUNS[0].replace("1024,16,4096", "1000,16,4096"): "TRD653",
        RUNS[0].replace("8,1024,16", "one,1024,16"): "TRD611",
        RUNS[0].replace("0.30", "-3"): "TRD611",
        RUNS[0].replace("8,1024,16", "8.5,1024,16"): "TRD611",
        RUNS[0].replace("0.30", '"0,30"'): "TRD611",
    }
    rows, left = read(written(tmp_path, HEADER, RUNS[0], *odd))
    assert len(rows) == 1
    assert [(item.line, item.code) for item in left] == list(enumerate(odd.values(), 3))
    assert "GPU TPUv9 has no constants" in left[0].reason
    assert sum(reasons_of(left).values()) == len(odd)


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("NVIDIA H100 SXM5 80GB", "h100"),
        ("A100-SXM4-40GB", "a100-40gb"),
        ("a100_80gb", "a100"),
        ("B300", "b300"),
        ("AMD Instinct MI300X", "mi300x"),
    ],
)
def test_gpus_are_known_by_several_names(tmp_path: Path, name: str, id_: str) -> None:
    (row,), _ = read(written(tmp_path, HEADER, RUNS[0].replace("A100", name)))
    assert row.gpu == id_


def test_data_ranks_that_are_not_named_are_what_is_left(tmp_path: Path) -> None:
    (row,), _ = read(written(tmp_path, HEADER, RUNS[1].replace("A100,8,2,1,4", "A100,8,2,,")))
    assert (row.degrees.data, row.degrees.tensor, row.degrees.pipeline) == (4, 2, 1)


@pytest.mark.parametrize(
    ("zero", "stage"), [("FSDP2", 3), ("ZeRO-2-like, no reshard", 2), ("1", 1), ("", 1), ("distributed optimizer", 1)]
)
def test_sharding_is_read_from_digits_and_words(tmp_path: Path, zero: str, stage: int) -> None:
    (row,), _ = read(written(tmp_path, f"{HEADER},zero", f'{RUNS[0]},"{zero}"'))
    assert row.degrees.zero == stage


@pytest.mark.parametrize(
    ("text", "mode"), [("full+SP", "full"), ("selective+SP", "selective"), ("core_attn", "selective"), ("off", "none")]
)
def test_recomputation_is_read_from_words(tmp_path: Path, text: str, mode: str) -> None:
    (row,), _ = read(written(tmp_path, f"{HEADER},recompute", f"{RUNS[0]},{text}"))
    assert row.degrees.recompute.value == mode
    assert row.tuned == ()


def test_experts_come_from_the_published_configuration(tmp_path: Path) -> None:
    line = "Qwen3_30B_a3B,48,2048,32,768 expert,151936,4096,H100,16,1,2,8,1,1024,28.9,8,4"
    (row,), _ = read(written(tmp_path, f"{HEADER},ep,kv_heads", line))
    experts = row.model.kinds[0].experts
    assert experts is not None
    assert (experts.count, experts.top_k, row.degrees.expert) == (128, 8, 8)
    assert row.model.parameters == pytest.approx(30.5e9, rel=0.01)
    assert row.source.endswith(", experts")
    assert row.predict().step_us > 0
    assert fit_rows([row] * 10) == []


def test_a_recomputation_that_stops_early_leaves_out_the_last_product(tmp_path: Path) -> None:
    (whole, early), _ = read(written(tmp_path, f"{HEADER},recompute,zero", f"{RUNS[0]},full,1", f"{RUNS[0]},full,FSDP"))
    assert (whole.spec.early_stop, early.spec.early_stop) == (False, True)
    same = replace(early, degrees=whole.degrees)
    assert same.predict().step_us < whole.predict().step_us


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


FULL = "source,params,gpus_per_node,vpp,cp,ep,kv_heads,precision,recompute,zero,tflops_per_gpu,notes"
CELLS = (
    "",
    " ",
    "0",
    "-1",
    "1e999",
    "nan",
    "3",
    "7",
    "8.5",
    "16",
    "1e12",
    "none",
    "full",
    "FSDP",
    "fp8",
    "é|\t",
    "Qwen3_30B_a3B",
)


@given(st.dictionaries(st.integers(0, 26), st.sampled_from(CELLS), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cells_give_a_time_or_a_coded_reason(tmp_path: Path, changed: dict[int, str]) -> None:
    cells = [*RUNS[1].split(","), "a report", "1e8", "8", "", "1", "1", "", "bf16", "full", "1", "", ""]
    cells = [changed.get(number, cell) for number, cell in enumerate(cells)]
    rows, left = read(written(tmp_path, f"{HEADER},{FULL}", f"{RUNS[0]},,,,,,,,,,,,", ",".join(cells)))
    assert len(rows) + len(left) == 2
    assert all(item.code.startswith("TRD") and item.line == 3 for item in left)
    assert all(0 < row.predict().step_us < float("inf") for row in rows)


def test_errors_dealt_anew_leave_each_tensor_degree_its_own(tmp_path: Path) -> None:
    lines = [
        RUNS[0].replace("8,1,1,8,2,32,0.30", f"8,{tensor},1,{8 // tensor},1,32,0.{time}") for tensor, time in PAIRS
    ]
    rows, _ = read(written(tmp_path, HEADER, *lines))
    told = {row.key: row.predict().step_us / 1e6 for row in rows}
    known = without_bias(rows, told)
    for tensor in (1, 2):
        ratios = sorted(row.measured_s / known[row.key] for row in rows if row.degrees.tensor == tensor)
        assert ratios[1] == pytest.approx(1), "the median error of three is gone"
    dealt = dealt_anew(rows, known)
    assert -1 <= dealt["tau"] <= 1
    exact = [replace(row, measured_s=told[row.key]) for row in rows]
    assert dealt_anew(exact, told)["mape"] == pytest.approx(0)


PAIRS = ((1, 30), (1, 35), (1, 41), (2, 36), (2, 44), (2, 52))


def test_an_odd_cell_is_faster_than_less_work() -> None:
    cells = {
        (hidden, tensor, micro): float(hidden * micro) for hidden in (1, 2) for tensor in (1, 8) for micro in (1, 2)
    }
    weights = dict.fromkeys(cells, 1)
    assert odd_cells(cells, weights) == frozenset()
    assert odd_cells(cells | {(2, 1, 2): 1.0}, weights) == {(2, 1, 2)}
    assert odd_cells(cells | {(2, 8, 2): 1.0}, weights) == frozenset(), "two heads a rank: the softmax is a reason"


def test_a_narrowed_row_tells_the_same_time(tmp_path: Path) -> None:
    (row,), _ = read(written(tmp_path, HEADER, RUNS[0].replace("2,32,", ",32,")))
    short = row.narrowed()
    assert len(short.tuned) < len(row.tuned)
    assert short.predict().step_us == row.predict().step_us


def test_unstated_chunks_are_the_fastest_that_split_evenly(tmp_path: Path) -> None:
    line = "LLAMA3_70B,80,8192,64,28672,128256,8192,GB300,64,1,4,16,2,256,6.83,Megatron-Bridge"
    (row,), _ = read(written(tmp_path, f"{HEADER},source", line))
    assert {degrees.virtual for degrees in row.tuned} == {1, 2, 4, 5}
    fixed = replace(row, tuned=tuple(one for one in row.tuned if one.virtual == 1))
    assert row.predict().step_us < fixed.predict().step_us
    (other,), _ = read(written(tmp_path, f"{HEADER},source", line.replace("Megatron-Bridge", "a report")))
    assert {degrees.virtual for degrees in other.tuned} == {1}


@given(st.integers(1, 130), st.integers(1, 64), st.integers(0, 2))
def test_an_even_layout_has_all_layers_and_leaves_room_for_predictors(layers: int, slots: int, predictors: int) -> None:
    counts = even_layout(layers, slots, predictors).layers
    assert (len(counts), sum(counts)) == (slots, layers)
    assert min(counts) >= 0
    assert max(counts) - min(counts) <= 1 + 2 * predictors
    assert not predictors or counts[-1] == min(counts)
