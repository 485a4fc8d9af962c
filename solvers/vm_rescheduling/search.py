"""Search for few fragments where the whole model is too large: best single migrations, then a few hosts at a time.

The best single migration is one look at an array of gains (machines by hosts). Then the machines of a few hosts find
places anew by CP-SAT, within what is left of the migration limit; hosts with fragments are drawn more often. Migrations
that gain nothing are taken back on the way, because the model of a few hosts pays for each.
"""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from treadle.ir.certificate import Status
from treadle.ir.cluster.vm_rescheduling import VirtualMachines, fragments, free_cores
from treadle.solvers.backend import Limits, solve

_HOSTS = 6
_MOST_MACHINES = 70
_EACH_S = 0.25
"""Deterministic seconds for a few hosts."""
_OVERHEAD_S = 0.01
_IMPOSSIBLE = -(2**30)


def search(instance: VirtualMachines, floor: int, deterministic_s: float, seed: int) -> tuple[int, ...]:
    """Return an assignment with few fragments, never worse than the current one; stops at `floor`."""
    at = _best_single(instance)
    source, spent_s, size = random.Random(seed), 0.0, _HOSTS
    while spent_s < deterministic_s and fragments(instance, at) > floor and len(instance.hosts) > 1:
        hosts = _drawn(instance, at, source, size)
        at, used_s, closed = _few_hosts(instance, at, hosts, min(_EACH_S, deterministic_s - spent_s), seed)
        spent_s += used_s + _OVERHEAD_S
        size = min(size + 1, 3 * _HOSTS) if closed else max(2, size - 1)
    return at


def _best_single(instance: VirtualMachines) -> tuple[int, ...]:
    """Migrate the machine that saves most fragments, again and again, while one saves any."""
    at = np.array(instance.at, dtype=np.int64)
    sizes = np.array(instance.machines, dtype=np.int64).reshape(-1, 2)
    room = np.array(instance.hosts, dtype=np.int64).reshape(-1, 2)
    np.subtract.at(room, at, sizes)
    for _ in range(instance.most_migrations):
        gains = _gains(instance, at, sizes, room)
        if not gains.size or gains.max() <= 0:
            break
        machine, host = divmod(int(gains.argmax()), gains.shape[1])
        room[at[machine]] += sizes[machine]
        room[host] -= sizes[machine]
        at[machine] = host
    return tuple(int(host) for host in at)


def _gains(
    instance: VirtualMachines, at: NDArray[np.int64], sizes: NDArray[np.int64], room: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (machines, hosts): fragments saved by a migration; machines that moved before stay."""
    chunk, free, cores = instance.chunk_cores, room[:, 0], sizes[:, 0]
    source = free[at] % chunk - (free[at] + cores) % chunk
    target = (free % chunk)[None, :] - (free[None, :] - cores[:, None]) % chunk
    gains: NDArray[np.int64] = source[:, None] + target
    fits: NDArray[np.bool_] = np.all(room[None, :, :] >= sizes[:, None, :], axis=2)
    fits[np.arange(len(at)), at] = False
    fits[at != np.array(instance.at)] = False
    for group in instance.apart:
        for machine in group:
            fits[machine, [at[other] for other in group if other != machine]] = False
    gains[~fits] = _IMPOSSIBLE
    return gains


def _drawn(instance: VirtualMachines, at: tuple[int, ...], source: random.Random, size: int) -> list[int]:
    """Return a few hosts, those with fragments sooner, with no more machines than a small model takes."""
    weights = [1 + free % instance.chunk_cores for free in free_cores(instance, at)]
    order = sorted(range(len(weights)), key=lambda host: -(source.random() ** (1 / weights[host])))
    counts = [0] * len(weights)
    for host in at:
        counts[host] += 1
    chosen: list[int] = []
    for host in order:
        if len(chosen) < size and sum(counts[one] for one in [*chosen, host]) <= _MOST_MACHINES:
            chosen.append(host)
    return sorted(chosen or order[:1])


def _few_hosts(
    instance: VirtualMachines, at: tuple[int, ...], hosts: list[int], limit_s: float, seed: int
) -> tuple[tuple[int, ...], float, bool]:
    """Place the machines of a few hosts anew; return the assignment, the time used, and whether it is proven best."""
    free = [machine for machine, host in enumerate(at) if host in hosts]
    elsewhere = sum(now != host for now, host in zip(instance.at, at, strict=True) if host not in hosts)
    model = cp_model.CpModel()
    stands = {machine: [model.new_bool_var("") for _ in hosts] for machine in free}
    for row in stands.values():
        model.add_exactly_one(row)
    rests = [add_host(model, instance, host, {m: row[i] for m, row in stands.items()}) for i, host in enumerate(hosts)]
    for group in instance.apart:
        for i, host in enumerate(hosts):
            inside = [stands[machine][i] for machine in group if machine in stands]
            if any(at[machine] == host for machine in group if machine not in stands):
                model.add_bool_and([~one for one in inside])
            model.add_at_most_one(inside)
    stays = [row[hosts.index(instance.at[m])] for m, row in stands.items() if instance.at[m] in hosts]
    moved = len(free) - cp_model.LinearExpr.sum(stays)
    model.add(moved <= instance.most_migrations - elsewhere)
    model.minimize((len(free) + 1) * cp_model.LinearExpr.sum(rests) + moved)
    hint = [(v, int(host == at[m])) for m, row in stands.items() for host, v in zip(hosts, row, strict=True)]
    outcome = solve(model, Limits(limit_s, seed=seed), hint=hint)
    used_s = float(outcome.report.deterministic_time)
    if not outcome.solved:
        return at, used_s, False
    found = list(at)
    for machine, row in stands.items():
        found[machine] = next(host for host, v in zip(hosts, row, strict=True) if outcome[v])
    better = _rank(instance, tuple(found)) <= _rank(instance, at)
    return (tuple(found) if better else at), used_s, outcome.status is Status.OPTIMAL


def _rank(instance: VirtualMachines, at: tuple[int, ...]) -> tuple[int, int]:
    return fragments(instance, at), sum(a != b for a, b in zip(at, instance.at, strict=True))


def add_host(
    model: cp_model.CpModel, instance: VirtualMachines, host: int, here: dict[int, cp_model.IntVar]
) -> cp_model.IntVar:
    """Add a host's capacities for the machines that may stand there; return its fragments."""
    (cores, memory), literals = instance.hosts[host], list(here.values())
    used = cp_model.LinearExpr.weighted_sum(literals, [instance.machines[machine][0] for machine in here])
    model.add(used <= cores)
    model.add(cp_model.LinearExpr.weighted_sum(literals, [instance.machines[machine][1] for machine in here]) <= memory)
    chunks = model.new_int_var(0, cores // instance.chunk_cores, "")
    rest = model.new_int_var(0, instance.chunk_cores - 1, "")
    model.add(used + instance.chunk_cores * chunks + rest == cores)
    return rest
