"""A PyTorch module: the device mesh of a plan, FSDP2 sharding of its blocks; and its sizes read back.

Mesh dimensions follow the plan's rank order, outermost first, so that global rank r of the mesh is rank r of the plan.
Names as in `torch.distributed.device_mesh` and `torch.distributed.fsdp` (2.13).
"""

from __future__ import annotations

import ast

from treadle.codegen.training.errors import NotReadBack
from treadle.ir.training.plan import Degrees, ParallelBody
from treadle.ir.training.ranks import shapes
from treadle.ir.training.spec import Sharding


def data_split(degrees: Degrees, domain: int) -> tuple[int, int]:
    """Return (copies, ranks that share) of the data dimension; context ranks share too.

    Groups that are no whole number of data ranks are taken as shared over all of them.
    """
    if degrees.zero == 0:
        return degrees.data, 1
    if degrees.sharding is not Sharding.NODE:
        return 1, degrees.data
    inside = shapes(degrees, domain).replicas
    shared = inside // degrees.context if inside % degrees.context == 0 else 0
    return (degrees.data // shared, shared) if shared and degrees.data % shared == 0 else (1, degrees.data)


def mesh_sizes(body: ParallelBody) -> dict[str, int]:
    """Return the dimensions of the mesh, outermost first."""
    degrees = body.degrees
    copies, shared = data_split(degrees, body.cluster.domain)
    sizes = {"pp": degrees.pipeline, "cp": degrees.context, "tp": degrees.tensor}
    found: dict[str, int] = {}
    for name in reversed(degrees.order.dimensions):
        if name == "dp":
            found |= {"dp_replicate": copies, "dp_shard": shared}
        elif name in sizes:
            found[name] = sizes[name]
    return found


def snippet(body: ParallelBody) -> str:
    """Return the module."""
    degrees, sizes = body.degrees, mesh_sizes(body)
    policy = "CPUOffloadPolicy()" if degrees.offload.optimizer else "OffloadPolicy()"
    return f'''"""Device mesh and sharding of `{body.model.name}`: {degrees.text()}, {degrees.gpus} ranks."""

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard

SIZES = {sizes!r}
"""Outermost first: rank r of the mesh is rank r of the plan."""
RESHARD_AFTER_FORWARD = {degrees.zero == 3}


def mesh(device: str = "cuda") -> DeviceMesh:
    """Return the mesh of all ranks; the process group must be there."""
    return init_device_mesh(device, tuple(SIZES.values()), mesh_dim_names=tuple(SIZES))


def data_mesh(on: DeviceMesh) -> DeviceMesh:
    """Return the mesh over which state is shared: (copies, shards), or shards alone."""
    if SIZES["cp"] == 1:
        shards = on["dp_shard"]
    else:
        shards = on[tuple(name for name in SIZES if name in ("dp_shard", "cp"))]._flatten("dp_shard_cp")
    if SIZES["dp_replicate"] == 1:
        return shards
    if SIZES["cp"] == 1:
        return on["dp_replicate", "dp_shard"]
    return on["dp_replicate", "dp_shard_cp"]


def shard(model: torch.nn.Module, blocks: list[torch.nn.Module], on: DeviceMesh) -> torch.nn.Module:
    """Share every block, then the rest, over the data and context ranks (after tensor parallelism, on[\\"tp\\"])."""
    data = data_mesh(on)
    for block in blocks:
        fully_shard(block, mesh=data, reshard_after_forward=RESHARD_AFTER_FORWARD, offload_policy={policy})
    return fully_shard(model, mesh=data, reshard_after_forward=RESHARD_AFTER_FORWARD, offload_policy={policy})
'''


def parse_snippet(text: str) -> tuple[dict[str, int], bool]:
    """Return sizes and resharding that a module says; raises NotReadBack."""
    try:
        found = {
            target.id: ast.literal_eval(node.value)
            for node in ast.parse(text).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        return dict(found["SIZES"]), bool(found["RESHARD_AFTER_FORWARD"])
    except (SyntaxError, ValueError, KeyError, TypeError) as error:
        raise NotReadBack(file="device_mesh.py", reason=repr(error)) from None
