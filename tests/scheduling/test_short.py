"""A first schedule in a short iteration: FlashAttention-3's tile of attention backward on Hopper."""

from __future__ import annotations

from dataclasses import replace

from treadle.costmodels.lower_warps import lower_warps
from treadle.costmodels.machines import load_machine
from treadle.frontends import programs
from treadle.ir.tile.warps import WarpLoop, check_warps
from treadle.solvers.backend import Limits
from treadle.solvers.modulo.network import network_of
from treadle.solvers.pipeline.bounds import interval_bound
from treadle.solvers.pipeline.budget import Budget
from treadle.solvers.pipeline.points import value_at, warp_schedule
from treadle.solvers.pipeline.search import Search, searched
from treadle.solvers.pipeline.short import short_schedule
from treadle.solvers.pipeline.solve import OBJECTIVE

SHAPE = {"heads": 32, "kv_heads": 8, "seq": 4096, "qk_head_dim": 128}


def backward() -> WarpLoop:
    tiles = {"block_m": 64, "block_n": 128, "sub_tiles": 2}
    return lower_warps(programs.build("attention_bwd", SHAPE, tiles), load_machine("h100"))


def search_of(warps: WarpLoop, deterministic_s: float = 1.0) -> Search:
    network = network_of(warps.loop)
    ii = interval_bound(warps, network).value
    return searched(warps, network, ii, Budget.of(Limits(deterministic_s=deterministic_s)), walkable=True)


def test_backward_on_hopper_keeps_the_tensor_core_busy_in_two_groups_that_exchange_no_registers() -> None:
    warps = backward()
    search = search_of(warps)
    assert search.ii == 2560  # ten products of 64 x 64 x 128 at 2,048 multiply-adds a cycle
    point = short_schedule(search, OBJECTIVE)
    assert point is not None
    assert check_warps(warps, warp_schedule(warps, search.network, search.ii, point)) == []
    values = {name: value_at(warps, search.network, search.ii, name, point) for name in OBJECTIVE[1:5]}
    assert (values["traffic_bytes"], values["barriers"], values["groups"]) == (0, 14, 3)
    assert values["registers"] <= 240  # what FlashAttention-3 gives each of its two consumer groups


def test_nothing_is_found_where_the_registers_of_a_group_do_not_do() -> None:
    warps = backward()
    limits = replace(warps.limits, registers_per_group=200)
    search = search_of(replace(warps, limits=limits), deterministic_s=0.2)
    assert short_schedule(search, ("ii", "traffic_bytes", "length")) is None


def test_the_tile_is_one_of_those_offered_where_a_half_fills_a_product() -> None:
    offered = [program.tile_sizes for program in programs.candidates("attention_bwd", SHAPE, {})]
    assert {"block_m": 64, "block_n": 128, "sub_tiles": 2} in offered
    short = [program.tile_sizes for program in programs.candidates("attention_bwd", {**SHAPE, "seq": 64}, {})]
    assert all(sizes["sub_tiles"] == 1 for sizes in short)
