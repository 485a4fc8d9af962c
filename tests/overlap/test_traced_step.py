"""Buffers of a traced training step: lifetimes as PyTorch has them, placement near the live set, the verb."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treadle.cli.main import main
from treadle.frontends.traced_step import NotTraced, record_buffers, traced_step
from treadle.ir.errors import InvalidValue
from treadle.ir.layout.buffers import peak_live
from treadle.solvers.buffers.solve import Effort, solve_buffers
from treadle.verification.core import verify

torch = pytest.importorskip("torch")

TINY = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
}  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two small blocks."""
    path = tmp_path_factory.mktemp("tiny") / "config.json"
    path.write_text(json.dumps(TINY))
    return path


def test_lifetimes_are_those_of_references() -> None:
    def step() -> object:
        kept = torch.ones(4)
        gone = kept + 1
        last = gone * 2
        del gone
        return kept, last * 3

    problem = record_buffers(step)
    kept, gone, last, result = problem.buffers
    assert [buffer.size_bytes for buffer in problem.buffers] == [16] * 4
    assert kept.upper == result.upper >= last.upper > gone.upper > last.lower > gone.lower
    assert peak_live(problem)[0] == 48


def test_step_is_placed_near_its_live_set(config: Path) -> None:
    problem = traced_step(config, 2, 16)
    parameters = 2 * (2 * 64 * 256 + 64 + 2 * (2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128))
    peak, _ = peak_live(problem)
    assert peak > 6 * parameters  # bfloat16 parameters and gradients, two float32 moments
    plan, certificate = solve_buffers(problem, Effort(nodes=100, improvements=1))
    assert plan.height_bytes <= 1.005 * peak
    assert certificate["height"].bound == peak


def test_bad_steps(config: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="at least one sequence"):
        traced_step(config, 0, 16)
    other = tmp_path / "config.json"
    other.write_text(json.dumps({**TINY, "model_type": "mamba2"}))
    with pytest.raises(NotTraced, match="mamba2"):
        traced_step(other, 1, 16)


def test_verb(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plan"
    assert main(["layout", "buffers", str(config), "--tokens", "8", "-o", str(folder)]) in (0, 3)
    assert verify(folder).findings == ()
    assert main(["layout", "buffers", str(config), "--tokens", "8", "--capacity", "1000"]) in (1, 2)
    assert "TRD340" in capsys.readouterr().err
