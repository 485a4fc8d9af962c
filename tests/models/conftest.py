"""What the tests of models share."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.frontends.hf import load_model
from treadle.ir.model import ModelGraph

EXAMPLES = Path(__file__).parents[2] / "examples"
DEPLOYMENTS = sorted(path.parent.name for path in EXAMPLES.glob("*/deployment.toml"))


@pytest.fixture(scope="session")
def llama() -> ModelGraph:
    return load_model(EXAMPLES / "llama-3.1-8b-h200")


@pytest.fixture(scope="session")
def deepseek() -> ModelGraph:
    return load_model(EXAMPLES / "deepseek-v3-h200")


@pytest.fixture(scope="session")
def mixtral() -> ModelGraph:
    return load_model(EXAMPLES / "mixtral-8x7b-h200")
