"""Programs of torch.export as models: the same training view as the configuration, and refusals by name."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parallel.test_cli import CONFIG, SPEC
from treadle.cli.main import main
from treadle.frontends.exported_model import NoLayers, NotExported, UnsupportedOperator, read_exported
from treadle.frontends.hf import load_model
from treadle.frontends.training_model import training_model
from treadle.ir.errors import UnreadableFile
from treadle.ir.training.model import Shard, TrainingModel

pytest.importorskip("torch")

MODEL = """
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, hidden, heads, kv_heads, ffn, activation):
        super().__init__()
        self.heads, self.kv_heads, self.dim, self.activation = heads, kv_heads, hidden // heads, activation
        self.norm1, self.norm2 = nn.RMSNorm(hidden, eps=1e-5), nn.RMSNorm(hidden, eps=1e-5)
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.k_proj = nn.Linear(hidden, kv_heads * self.dim, bias=False)
        self.v_proj = nn.Linear(hidden, kv_heads * self.dim, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)
        self.gate_proj = nn.Linear(hidden, ffn, bias=False)
        self.up_proj = nn.Linear(hidden, ffn, bias=False)
        self.down_proj = nn.Linear(ffn, hidden, bias=False)

    def rotated(self, x):
        angles = torch.arange(x.shape[-2], device=x.device)[:, None] * torch.ones(self.dim, device=x.device)
        half = torch.cat((-x[..., self.dim // 2 :], x[..., : self.dim // 2]), -1)
        return x * angles.cos() + half * angles.sin()

    def forward(self, x):
        batch, tokens, hidden = x.shape
        y = self.norm1(x)
        q = self.q_proj(y).view(batch, tokens, self.heads, self.dim).transpose(1, 2)
        k = self.k_proj(y).view(batch, tokens, self.kv_heads, self.dim).transpose(1, 2)
        v = self.v_proj(y).view(batch, tokens, self.kv_heads, self.dim).transpose(1, 2)
        out = F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v, is_causal=True, enable_gqa=True)
        x = x + self.o_proj(out.transpose(1, 2).reshape(batch, tokens, hidden))
        y = self.norm2(x)
        return x + self.down_proj(self.activation(self.gate_proj(y)) * self.up_proj(y))


class Model(nn.Module):
    def __init__(self, layers=8, hidden=1024, heads=16, kv_heads=4, ffn=4096, vocabulary=32000, activation=F.silu):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.layers = nn.ModuleList(Block(hidden, heads, kv_heads, ffn, activation) for _ in range(layers))
        self.norm, self.head = nn.RMSNorm(hidden, eps=1e-5), nn.Linear(hidden, vocabulary, bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def inputs():
    return (torch.zeros(2, 64, dtype=torch.long),)


def build():
    return Model(), inputs()


def tied():
    model = Model(layers=2)
    model.head.weight = model.embedding.weight
    return model, inputs()


def sorting():
    return Model(layers=1, activation=lambda x: torch.sort(x).values), inputs()


def no_stack():
    return nn.Sequential(nn.Linear(8, 8)), (torch.zeros(2, 8),)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("exported")
    (made / "model.py").write_text(MODEL)
    (made / "config.json").write_text(json.dumps(CONFIG))
    return made


@pytest.fixture(scope="module")
def exported(folder: Path) -> TrainingModel:
    return read_exported("model.py:build", folder)[0]


def test_a_program_is_read_as_its_configuration(exported: TrainingModel, folder: Path) -> None:
    wanted = training_model(load_model(folder / "config.json"))
    assert exported.parameters == wanted.parameters
    assert (exported.hidden, exported.vocabulary, exported.layers) == (1024, 32000, 8)
    assert len(exported.kinds) == 1
    mine, other = exported.kinds[0], wanted.kinds[0]
    assert mine.attention == other.attention
    assert mine.dense_parameters == other.dense_parameters
    flops = [sum(item.inputs * item.outputs for item in kind.products) for kind in (mine, other)]
    assert flops[0] == flops[1]
    rows = [
        sorted((item.inputs, item.outputs) for item in kind.products if item.shard is Shard.ROW)
        for kind in (mine, other)
    ]
    assert rows[0] == rows[1]
    assert mine.syncs == other.syncs == 2
    for name in ("replicated_saved", "sharded_saved", "norm_saved"):
        assert getattr(mine, name) == pytest.approx(getattr(other, name), rel=0.15), name


def test_tied_embeddings_and_saved_programs(folder: Path) -> None:
    assert read_exported("model.py:tied", folder)[0].tied_embeddings
    code = "import sys; sys.path.insert(0, '.'); import model, torch; m, i = model.build(); "
    code += "torch.export.save(torch.export.export(m, i), 'model.pt2')"
    done = subprocess.run([sys.executable, "-c", code.replace("build", "tied")], cwd=folder, check=False)
    assert done.returncode == 0
    model, path = read_exported("model.pt2", folder)
    assert path == folder / "model.pt2"
    assert (model.layers, model.tied_embeddings) == (2, True)


def test_planning_from_a_program(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = folder / "training.toml"
    spec.write_text(SPEC.replace("config.json", "model.py:build"))
    assert main(["parallel", str(spec)]) == 0
    assert "8 layers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("model.py:sorting", UnsupportedOperator, "aten.sort.default"),
        ("model.py:no_stack", NoLayers, "no decoder stack"),
        ("model.py:missing", NotExported, "no function `missing`"),
        ("config.json.pt2", UnreadableFile, "cannot read"),
    ],
)
def test_refusals(folder: Path, name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        read_exported(name, folder)


def test_a_file_of_another_kind(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "text.pt2").write_text("no archive")
    spec = folder / "other.toml"
    spec.write_text(SPEC.replace("config.json", "text.pt2"))
    assert main(["parallel", str(spec)]) == 2
    assert "error TRD647" in capsys.readouterr().err
