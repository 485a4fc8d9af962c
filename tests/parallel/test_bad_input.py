"""Every kind of bad input: the code, the place, what was found, and the nearest legal value; exit status 2."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.parallel.test_cli import CONFIG
from treadle.cli.main import main
from treadle.frontends.hf import parse_model
from treadle.frontends.training_model import training_model
from treadle.ir.training.batches import nearest_batches
from treadle.ir.training.cluster import ClusterTopology, NodeGroup
from treadle.ir.training.model import TrainingModel
from treadle.ir.training.space import candidates
from treadle.ir.training.spec import Pipeline, SearchSpace, Trainer, TrainingSpec

SPEC = """model = "config.json"
[training]
global_batch = 32
sequence_tokens = 1024
[cluster]
gpu = "a100"
nodes = 4
gpus_per_node = 2
network = "25GB/s"
[search]
micro_batch = [1]
"""
MEASURED = '[[cluster.measured]]\nfile = "all_reduce.txt"\noperation = "all_reduce"\n'
RANKS = "".join(f"#  Rank  {rank} Group 0 Pid 1 on host device {rank}\n" for rank in range(2))
ROW = " 1048576 262144 float sum -1 100.0 10.0 20.0 0 1 1 1 0\n"
GROUPS = '[[cluster.groups]]\ngpu = "h100"\nnodes = 1\n[[cluster.groups]]\n'


def said(folder: Path, capsys: pytest.CaptureFixture[str], spec: str, **files: str) -> str:
    """Return what the verb says about a specification; its exit status is that of bad input."""
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
    for name, text in files.items():
        (folder / name.replace("_json", ".json").replace("_txt", ".txt")).write_text(text)
    (folder / "training.toml").write_text(spec)
    assert main(["parallel", str(folder / "training.toml")]) == 2
    return capsys.readouterr().err.replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("old", "new", "head", "hint"),
    [
        ('"a100"', '"H100"', "TRD150: training.toml:6:1: ", "did you mean `h100`?"),
        ('"a100"', '"NVIDIA A100-SXM4-40GB"', "TRD150: training.toml:6:1: ", "did you mean `a100-40gb`?"),
        ('"a100"', '"rtx4090"', "TRD150: training.toml:6:1: ", "name the nearest type"),
        ("[search]", GROUPS + 'gpu = "h20"\nnodes = 1\n[search]', "TRD150: training.toml:14:1: ", "`h200`"),
        ("[search]", GROUPS + 'gpu = "h200"\nnodes = 0\n[search]', "TRD104: training.toml:15:1: ", ""),
        ('gpu = "a100"\n', "", "TRD103: training.toml:5:1: cluster: field `cluster.gpu`", 'add `gpu = "h100"`'),
        ("nodes = 4\n", "", "TRD103: training.toml:5:1: cluster: field `cluster.nodes`", "add `nodes = 1`"),
        ("nodes = 4", "nodes = 4\nconnections = [[0, 1]]", "TRD151: training.toml:8:1: ", "add [0, 2], [0, 3] to"),
        ("[search]\n", "[search]\nexpert = [4]\n", "TRD104: training.toml:", "nearest legal: 1"),
        ("[search]\n", "[search]\nrecompute = ['ful']\n", "TRD104: training.toml:", "did you mean `full`?"),
        ("nodes = 4", "nodes = 4\nconnections = [[0, 9]]", "TRD104: training.toml:8:1: ", "the nearest is [0, 3]"),
        ("nodes = 4", "nodes = 4\nconnections = [[0, 1, 2]]", "TRD104: training.toml:8:1: ", "the nearest is [0, 1]"),
        ('"25GB/s"', '"0GB/s"', "TRD151: training.toml:9:1: ", "give `network` above 0"),
        ("nodes = 4", 'nodes = 4\nlinks = "0GB/s"', "TRD104: training.toml:8:1: ", "leave `links` out"),
        ("batch = 32", "batch = 127", "TRD152: training.toml:3:1: ", "the nearest batches are 126 and 128"),
        ("batch = 32", "batch = 1", "TRD152: training.toml:3:1: ", "the nearest batch is 2"),
        ("micro_batch = [1]", "data = [3, 5]", "TRD104: training.toml:11:1: ", "nearest legal: 2, 4 or 8"),
        ("micro_batch = [1]", "pipeline = [16]", "TRD104: training.toml:11:1: ", "nearest legal: 8"),
    ],
)
def test_cluster_and_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, head: str, hint: str
) -> None:
    assert old in SPEC
    spec = SPEC.replace(old, new, 1)
    if "TRD152" in head:
        spec += "tensor = [1]\ncontext = [2]\npipeline = [1, 2]\n" if "127" in new else "pipeline = [2]\n"
    message = said(tmp_path, capsys, spec)
    assert message.startswith(f"error {head}")
    assert "  ^" in message
    assert hint in message


@pytest.mark.parametrize(
    "missing", ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
)
def test_configuration_without_a_field(tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    config = json.dumps({name: value for name, value in CONFIG.items() if name != missing})
    message = said(tmp_path, capsys, SPEC, config_json=config)
    assert message.startswith(f"error TRD103: config.json: field `{missing}` is missing")
    assert f"hint: add `{missing}` as published with the model" in message


@pytest.mark.parametrize(
    ("config", "head", "hint"),
    [
        ({}, "TRD103: config.json: field `model_type` is missing", "add `model_type`"),
        ({**CONFIG, "num_attention_heads": 15}, "TRD104: config.json:9:2: ", "the nearest are 8 and 16"),
        ({**CONFIG, "num_key_value_heads": 3}, "TRD104: config.json:10:2: ", "the nearest are 2 and 4"),
        ({**CONFIG, "hidden_size": -1}, "TRD104: config.json:6:2: ", "a whole number from 1 to"),
        (
            {("hiden_size" if name == "hidden_size" else name): value for name, value in CONFIG.items()},
            "TRD103: config.json: field `hidden_size`",
            "write `hiden_size` as `hidden_size`",
        ),
    ],
)
def test_configuration_with_other_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], config: dict[str, object], head: str, hint: str
) -> None:
    message = said(tmp_path, capsys, SPEC, config_json=json.dumps(config, indent=1))
    assert message.startswith(f"error {head}")
    assert hint in message


@pytest.mark.parametrize(
    ("text", "head", "words"),
    [
        ("size,busbw\n1024,5\n", "TRD153: all_reduce.txt:1:1: ", "the first line says `size,busbw`"),
        ('{"results": []}', "TRD153: all_reduce.txt:1:1: ", "one line per rank"),
        ("", "TRD153: all_reduce.txt: ", "the file is empty"),
        (RANKS, "TRD153: all_reduce.txt: ", "rows of 13 columns"),
        (RANKS + " 1024 256 float sum\n", "TRD153: all_reduce.txt:3:1: ", "a row of 4 columns"),
        (RANKS + ROW.replace("10.0", "n/a"), "TRD153: all_reduce.txt:3:1: ", "column 7 of a row is `n/a`"),
        (
            "# Collective test starting: all_gather_perf\n" + RANKS + ROW,
            "TRD153: all_reduce.txt:1:1: ",
            'write operation = "all_gather"',
        ),
    ],
)
def test_measurements_of_another_format(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, head: str, words: str
) -> None:
    message = said(tmp_path, capsys, SPEC + MEASURED, all_reduce_txt=text)
    assert message.startswith(f"error {head}")
    assert words in message
    assert "hint: " in message


@pytest.mark.parametrize(
    ("old", "new", "head", "words"),
    [
        ('operation = "all_reduce"', 'operation = "allreduce"', "TRD007: training.toml:14:1: ", "`all_reduce`?"),
        ("all_reduce.txt", "nowhere.txt", "TRD001: training.toml:13:1: ", "nowhere.txt"),
        ("[[cluster.measured]]", "[[cluster.measured]]\nnodes = 3", "TRD153: all_reduce.txt: ", "nodes = 1 or 2"),
    ],
)
def test_measurements_described_wrongly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, head: str, words: str
) -> None:
    message = said(tmp_path, capsys, SPEC + MEASURED.replace(old, new, 1), all_reduce_txt=RANKS + ROW)
    assert message.startswith(f"error {head}")
    assert words in message


@pytest.fixture(scope="module")
def model() -> TrainingModel:
    return training_model(parse_model(json.dumps(CONFIG)))


def _some(values: tuple[int, ...]) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.sampled_from(values), max_size=2, unique=True).map(tuple)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from((4, 6, 8)),
    st.integers(1, 40),
    st.fixed_dictionaries(
        {
            "data": _some((1, 2, 3, 4)),
            "tensor": _some((1, 2)),
            "context": _some((1, 2)),
            "pipeline": _some((1, 2, 4)),
            "micro_batch": _some((1, 2, 3)),
            "trainer": st.sampled_from((Trainer.ANY, Trainer.DEEPSPEED, Trainer.TORCHTITAN)),
            "schedule": st.lists(st.sampled_from(tuple(Pipeline)), min_size=1, max_size=2, unique=True).map(tuple),
        }
    ),
)
def test_nearest_batches_are_those_of_brute_force(
    model: TrainingModel, gpus: int, batch: int, allowed: dict[str, Any]
) -> None:
    """Legality of every batch up to twice the largest multiple that any choice asks for, one after the other."""
    search = SearchSpace(**allowed, zero=(0,), most_virtual=2)
    cluster, spec = ClusterTopology((NodeGroup("a100", 1, gpus),)), TrainingSpec(batch, 1024, search=search)
    legal = [
        size
        for size in range(1, 41 + 2 * 8 * 3)
        if next(candidates(model, cluster, replace(spec, global_batch=size)), None) is not None
    ]
    found = nearest_batches(model, cluster, spec)
    if batch in legal or not legal:
        assert found is None
    else:
        assert found is not None
        below, above = [size for size in legal if size < batch], [size for size in legal if size > batch]
        assert (found.below, found.above) == (max(below, default=0), min(above))
