"""Every choice of the search space comes out of the command when `[search]` asks for it, is proven, and verifies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.parallel.test_cli import CONFIG
from treadle.cli.main import main
from treadle.ir.plan import load

EXPERTS = {
    **CONFIG, "model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 8,
    "num_experts_per_tok": 2, "intermediate_size": 1024,
}  # fmt: skip
SPEC = """model = "config.json"
[training]
global_batch = 32
sequence_tokens = 4096
{training}
[cluster]
{cluster}
[search]
micro_batch = [1]
most_virtual = 2
{search}
"""
PLAIN = 'gpu = "h100"\nnodes = 2\ngpus_per_node = 4\nnetwork = "25GB/s"'
HOST = PLAIN + '\nhost_memory = "64GB"'
TYPES = """[[cluster.groups]]
gpu = "h100"
nodes = 1
gpus_per_node = 4
[[cluster.groups]]
gpu = "a100"
nodes = 1
gpus_per_node = 4"""

ACTIVATIONS = 'pipeline = [1]\nrecompute = ["none"]\noffload = ["activations"]'

CASES = {
    "data": ("data = [8]", "dp8", PLAIN),
    "zero 0": ("zero = [0]", "zero0", PLAIN),
    "zero 2": ("zero = [2]", "zero2", PLAIN),
    "zero 3": ("zero = [3]", "zero3", PLAIN),
    "sharding inside a node": ('zero = [3]\nsharding = ["node"]', "shard=node", PLAIN),
    "sharding in levels": ('zero = [3]\nsharding = ["hierarchical"]', "shard=hierarchical", PLAIN),
    "tensor": ("tensor = [4]", "tp4", PLAIN),
    "tensor overlap": ("tensor = [2]\noverlap_tensor = [true]", "overlap=tp", PLAIN),
    "interleaved": ('pipeline = [2]\nschedule = ["interleaved"]\nvirtual = [2]', "pp2 vp2", PLAIN),
    "1f1b": ('pipeline = [4]\nschedule = ["1f1b"]', "pp4", PLAIN),
    "zb-h1": ('pipeline = [2]\nschedule = ["zb-h1"]', "zb-h1", PLAIN),
    "zb-v": ('pipeline = [2]\nschedule = ["zb-v"]', "zb-v", PLAIN),
    "ring": ('context = [2]\ncontext_mode = ["ring"]', "cp2", PLAIN),
    "all-to-all": ('context = [2]\ncontext_mode = ["all-to-all"]', "cp=all-to-all", PLAIN),
    "bidirectional": ('context = [4]\ncontext_mode = ["bidirectional"]', "cp=bidirectional", PLAIN),
    "hierarchical": ('context = [8]\ncontext_mode = ["hierarchical"]', "cp=hierarchical", PLAIN),
    "full": ('recompute = ["full"]', "recompute=full", PLAIN),
    "modules": ('recompute = ["mlp+norm"]', "recompute=mlp+norm", PLAIN),
    "selective": ('recompute = ["selective"]', "recompute=selective", PLAIN),
    "order": ('pipeline = [2]\norder = ["tp-cp-ep-pp-dp"]', "order=tp-cp-ep-pp-dp", PLAIN),
    "optimizer on the host": ('offload = ["optimizer"]', "offload=optimizer", HOST),
    "activations on the host": (
        'pipeline = [1]\nrecompute = ["none"]\noffload = ["activations"]',
        "offload=activations",
        HOST,
    ),
    "types of GPU": ("pipeline = [2]", "groups=", TYPES),
}


def planned(folder: Path, config: Mapping[str, object], search: str, cluster: str, training: str = "") -> str:
    (folder / "config.json").write_text(json.dumps(config))
    spec = folder / "training.toml"
    spec.write_text(SPEC.format(training=training, cluster=cluster, search=search))
    assert main(["parallel", str(spec), "--top", "0", "-o", str(folder / "plan")]) == 0
    assert main(["verify", str(folder / "plan")]) == 0
    plan = load(folder / "plan")
    assert plan.certificates[0].levels[0].status.value == "optimal"
    text: str = plan.body.degrees.text()
    return text


@pytest.mark.parametrize("name", CASES)
def test_a_choice(name: str, tmp_path: Path) -> None:
    search, wanted, cluster = CASES[name]
    assert wanted in planned(tmp_path, CONFIG, search, cluster)


def test_recomputation_by_stage(tmp_path: Path) -> None:
    """Memory for some layers only: the first stage runs a part of its own again."""
    text = 'pipeline = [2]\ntensor = [1]\nrecompute = ["stages"]\nmost_memory = "8GB"'
    assert "recompute=stages" in planned(tmp_path, CONFIG, text, PLAIN)


@pytest.mark.parametrize(
    ("search", "wanted"), [("expert = [4]", "ep4"), ("tensor = [2]\nexpert_tensor = [2]\nexpert = [2]", "etp2")]
)
def test_experts(search: str, wanted: str, tmp_path: Path) -> None:
    assert wanted in planned(tmp_path, EXPERTS, search, PLAIN)


def test_overlap_of_gradients_is_the_jobs(tmp_path: Path) -> None:
    """What a job says of its own overlap changes the time, and so may the plan."""
    hidden, exposed = tmp_path / "hidden", tmp_path / "exposed"
    for folder, value in ((hidden, "true"), (exposed, "false")):
        folder.mkdir()
        planned(folder, CONFIG, "data = [8]\nzero = [1]", PLAIN, f"overlap_gradients = {value}")
    times = [load(folder / "plan").certificates[0].levels[0].value for folder in (hidden, exposed)]
    assert times[0] < times[1]
