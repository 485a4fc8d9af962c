"""The PyTorch snippet of a plan runs: two gloo ranks shard a tiny model and agree with one that is not sharded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parallel.test_files import body
from treadle.codegen.training.files import files
from treadle.ir.training.plan import Degrees

pytest.importorskip("torch")

WORKER = """
import os, sys
import torch, torch.distributed as dist
sys.path.insert(0, sys.argv[1])
import device_mesh

torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
model = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(3)])
inputs = torch.randn(4, 16)
wanted = model(inputs).detach()
sharded = device_mesh.shard(model, list(model), device_mesh.mesh("cpu"))
found = sharded(inputs)
found.sum().backward()
torch.testing.assert_close(found.detach(), wanted)
sizes = {parameter.to_local().shape[0] for parameter in sharded.parameters()}
assert sizes == {16 // dist.get_world_size()}, sizes
dist.destroy_process_group()
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("zero", [3])
def test_snippet_shards_a_model_on_two_ranks(tmp_path: Path, zero: int) -> None:
    plan = body(Degrees(2, 1, 1, 1, 1, zero=zero), (2,))
    (tmp_path / "device_mesh.py").write_bytes(files(plan)["training/device_mesh.py"])
    (tmp_path / "worker.py").write_text(WORKER)
    port = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, str(tmp_path / "worker.py"), str(tmp_path)],
            env={**os.environ, "RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for process in started:
        _, message = process.communicate(timeout=120)
        assert process.returncode == 0, message[-2000:]
