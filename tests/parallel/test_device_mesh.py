"""The PyTorch snippet of plans runs: 2 to 8 gloo ranks share a tiny model and agree with one that is not shared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.parallel.test_files import body
from treadle.codegen.training.files import files
from treadle.ir.training.plan import Degrees
from treadle.ir.training.spec import Order, Sharding

WORKER = """
import importlib.util, os, socket, sys, traceback
import torch, torch.distributed as dist
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

torch.set_num_threads(1)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = torch.nn.Linear(16, 32), torch.nn.Linear(32, 16)

    def forward(self, inputs):
        return inputs + self.down(torch.relu(self.up(inputs)))


def built():
    torch.manual_seed(0)
    return torch.nn.Sequential(Block(), Block(), torch.nn.Linear(16, 4))


def check(path, rank, world):
    spec = importlib.util.spec_from_file_location("device_mesh_of_plan", path)
    plan = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plan)
    inputs = torch.randn(8, 16, generator=torch.Generator().manual_seed(1))
    alone = built()
    wanted = alone(inputs)
    wanted.sum().backward()
    on = plan.mesh("cpu")
    assert on.size() == world and torch.equal(on.mesh.flatten(), torch.arange(world))
    model = built()
    if plan.SIZES["tp"] > 1:
        for block in model[:2]:
            parallelize_module(block, on["tp"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    shared = plan.shard(model, list(model[:2]), on)
    found = shared(inputs)
    found.sum().backward()
    torch.testing.assert_close(found.detach(), wanted.detach())
    data = plan.data_mesh(on)
    pieces = data.size() // plan.SIZES["dp_replicate"]
    for (name, one), other in zip(shared.named_parameters(), alone.parameters()):
        torch.testing.assert_close(one.grad.full_tensor(), other.grad)
        split = pieces * (plan.SIZES["tp"] if name.endswith(("up.weight", "up.bias", "down.weight")) else 1)
        if other.numel() % split == 0 and other.shape[0] % pieces == 0:
            assert one.to_local().numel() == other.numel() // split, (name, one.to_local().shape, split)


def start(path, rank, world, port):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    status = 1
    try:
        dist.init_process_group("gloo")
        check(path, rank, world)
        dist.destroy_process_group()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


for path, world in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            start(path, rank, world, port)
        children.append(child)
    if any(os.waitpid(child, 0)[1] for child in children):
        sys.exit(f"{path} failed on {world} ranks")
"""

PLANS = [
    (Degrees(2, 1, 1, 1, 1, zero=3), (2,)),
    (Degrees(2, 2, 1, 1, 1, zero=3, order=Order.PIPELINE_TENSOR_DATA_CONTEXT), (2,)),
    (Degrees(2, 1, 2, 1, 1, zero=1), (2,)),
    (Degrees(8, 1, 1, 1, 1, zero=3, sharding=Sharding.NODE), (2,)),
    (Degrees(2, 2, 1, 2, 1, zero=1), (1, 1)),
]


@pytest.mark.slow
def test_snippets_share_a_model_on_two_to_eight_ranks(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    arguments: list[str] = []
    for number, (degrees, layout) in enumerate(PLANS):
        path = tmp_path / f"device_mesh_{number}.py"
        path.write_bytes(files(body(degrees, layout))["training/device_mesh.py"])
        arguments += [str(path), str(degrees.gpus)]
    (tmp_path / "worker.py").write_text(WORKER)
    command = [sys.executable, str(tmp_path / "worker.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
