"""Mutated configurations, specifications and traces: an answer or a coded error, never a traceback, never a hang.

TREADLE_FUZZ sets the number of examples per target (default 60).
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models.conftest import EXAMPLES
from tests.models.published import PUBLISHED
from tests.models.test_spec import GOOD, TRACE
from tests.models.test_traces import AZURE, MOONCAKE
from treadle.frontends.hf import parse_model
from treadle.frontends.hot_loops import hot_loops
from treadle.frontends.spec import load_deployment
from treadle.frontends.traces import parse_trace
from treadle.ir.diagnostics import TreadleError
from treadle.ir.model import ModelGraph
from treadle.ir.workload import Deployment

_EXAMPLES = int(os.environ.get("TREADLE_FUZZ", "60"))
_SETTINGS = settings(
    max_examples=_EXAMPLES,
    deadline=5000,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 10**9, 10**18, 10**40, 1.5, -0.0, 1e308, float("inf"), float("nan"), "", "0",
    "llama", "gated-", "é\u0000", [], [0], [None], ["full_attention"], [[[]]], {}, {"a": 1}, {"quant_method": "fp8"},
)  # fmt: skip
_MARKS = '{}[]",:=.#\n\\\t 0123456789-+eE\'"abcdé\u2028\ufeff'

Mutation = Callable[[random.Random, str], str]


def mutate_text(chance: random.Random, text: str) -> str:
    """Cut, repeat, swap or put in characters at one to four places."""
    for _ in range(chance.randint(1, 4)):
        place, length = chance.randrange(len(text) + 1), chance.choice((1, 1, 1, 2, 5, 30))
        part = text[place : place + length]
        put = chance.choice(("", "", part * 2, chance.choice(_MARKS), chance.choice(_MARKS) * 3, part[::-1]))
        text = text[:place] + put + text[place + length :]
    return text


def mutate_json(chance: random.Random, text: str) -> str:
    """Change, drop, rename or add fields anywhere in a JSON document."""
    data = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        tables = [data, *(value for value in data.values() if isinstance(value, dict))]
        table = chance.choice(tables)
        key = chance.choice([*table, "quantization_config", "text_config", "layer_types", "sliding_window", "head_dim"])
        action = chance.randrange(4)
        if action == 0:
            table.pop(key, None)
        elif action == 1:
            table[chance.choice([*table, "x"])] = deepcopy(table.get(key))
        elif action == 2 and isinstance(table.get(key), list):
            table[key] = [*table[key][: chance.randrange(3)], chance.choice(_ODD)]
        else:
            table[key] = deepcopy(chance.choice(_ODD))
    return json.dumps(data)


def is_fine_or_coded(action: Callable[[], object]) -> bool:
    """Run; whether it went well or was refused by a coded error with all its parts. Anything else escapes."""
    try:
        action()
    except TreadleError as error:
        return error.render().startswith(f"error {error.code}: ") and error.code != "TRD000"
    return True


CONFIGS = [json.dumps(model.config, indent=1) for model in PUBLISHED if len(model.config) < 40]


def read_everything(text: str, request: Deployment) -> None:
    model: ModelGraph = parse_model(text)
    assert model.parameters() > 0
    hot_loops(model, request)


@pytest.fixture(scope="module")
def request_() -> Deployment:
    return load_deployment(EXAMPLES / "llama-3.1-8b-h200")


@pytest.mark.parametrize("mutate", [mutate_text, mutate_json])
@_SETTINGS
@given(seed=st.integers(0, 2**64))
def test_configurations(mutate: Mutation, seed: int, request_: Deployment) -> None:
    chance = random.Random(seed)
    text = mutate(chance, chance.choice(CONFIGS))
    assert is_fine_or_coded(lambda: read_everything(text, request_))


@_SETTINGS
@given(seed=st.integers(0, 2**64))
def test_specifications(seed: int, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "nodes.json").write_text("{}")
    (tmp_path / "t.csv").write_text(TRACE)
    chance = random.Random(seed)
    lengths, example = (
        (EXAMPLES / "llama-3.1-8b-h200" / name).read_text() for name in ("lengths.toml", "deployment.toml")
    )
    texts = {"lengths.toml": lengths, "deployment.toml": chance.choice((GOOD, example))}
    mutated = chance.choice(("lengths.toml", "deployment.toml", "deployment.toml"))
    texts[mutated] = mutate_text(chance, texts[mutated])
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    file = tmp_path / "deployment.toml"
    assert is_fine_or_coded(lambda: load_deployment(file))


@_SETTINGS
@given(seed=st.integers(0, 2**64))
def test_traces(seed: int) -> None:
    chance = random.Random(seed)
    text, name = chance.choice(((AZURE, "azure-2023"), (MOONCAKE, "mooncake")))
    assert is_fine_or_coded(lambda: parse_trace(mutate_text(chance, text), name))
