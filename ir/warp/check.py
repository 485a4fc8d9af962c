"""What makes a warp program legal: it ends, never reads too early, never overwrites what is read, fits its machine.

The program is unrolled for several trip counts (none, few, odd, long: until every ring has gone round twice) and the
order of its events is checked; since programs have no choice in them, that covers every interleaving (`events`). The
loop says independently what must be ordered: each dependence, and each operation once an iteration.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise
from math import lcm

from treadle.ir.diagnostics import Finding
from treadle.ir.tile.program import Memory
from treadle.ir.tile.schedule import lifetime_cycles
from treadle.ir.tile.warps import WarpLoop, WarpSchedule
from treadle.ir.warp.events import Access, Unrolled, ancestors, unroll
from treadle.ir.warp.facts import MEMORIES, Facts
from treadle.ir.warp.program import Action, WarpProgram
from treadle.ir.warp.registers import registers_in_order

LONGEST = 40
"""Most iterations that are unrolled."""


def check_warp_program(
    program: WarpProgram,
    warps: WarpLoop | None = None,
    made: WarpSchedule | None = None,
    facts: Facts | None = None,
    trip_counts: tuple[int, ...] = (),
) -> list[Finding]:
    """Return every reason why a warp program is not legal; with the others given, also as one of that schedule.

    Codes: TRD530 structure, TRD531 deadlock, TRD532 overwritten or unordered slot, TRD533 read before it is there,
    TRD534 barrier phase, TRD535 flights, TRD536 memory or registers, TRD537 not the loop's operations.
    """
    findings = [] if warps is None else [*_check_operations(program, warps), *_check_resources(program, warps)]
    findings += [] if facts is None else _check_facts(program, facts)
    findings += [] if warps is None or made is None else _check_schedule(program, warps, made)
    for trips in trip_counts or trip_counts_of(program):
        if findings:
            break
        findings = list(_check_trips(program, warps, facts, trips))
    return findings


def trip_counts_of(program: WarpProgram) -> tuple[int, ...]:
    """Return the trip counts that are checked: all up to one more than overlap, an odd one, a long one."""
    stages = max((group.stages for group in program.groups), default=1)
    rounds = lcm(*(buffer.slots for buffer in program.buffers)) if program.buffers else 1
    longest = min(LONGEST, 2 * rounds + stages + 1)
    return tuple(sorted({*range(stages + 2), 2 * stages + 3, longest}))


def _check_trips(program: WarpProgram, warps: WarpLoop | None, facts: Facts | None, trips: int) -> Iterator[Finding]:
    where = f"{program.name}, {trips} iterations"
    unrolled = unroll(program, trips)
    order = ancestors(unrolled.before)
    if order is None:
        message = "groups wait for each other"
        yield Finding("TRD531", where, f"{message}: {', '.join(_stuck(unrolled))}")
        return
    if unrolled.faults:
        blocked = any("never comes" in fault for fault in unrolled.faults)
        yield Finding("TRD531" if blocked else "TRD530", where, unrolled.faults[0])
        return
    yield from _first(_check_slots(unrolled, order, where))
    yield from _first(_check_registers_ready(unrolled, order, where))
    yield from _first(_check_sides(unrolled, order, where))
    yield from _first(_check_phases(unrolled, order, where))
    yield from _check_flights(unrolled, where)
    if facts is not None:
        yield from _first(_check_stages(unrolled, order, facts, where))
    if warps is not None:
        yield from _first(_check_dependences(unrolled, order, warps, where))


def _first(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The first of many findings of one kind: later ones mostly follow from it."""
    found = next(findings, None)
    if found is not None:
        yield found


def _ordered(order: list[int], first: int, second: int) -> bool:
    return first == second or bool(order[second] >> first & 1)


def _stuck(unrolled: Unrolled) -> list[str]:
    """Return the first events of groups that wait for each other."""
    done: set[int] = set()
    moved = True
    while moved:
        ready = [e for e in range(len(unrolled.before)) if e not in done and done.issuperset(unrolled.before[e])]
        done.update(ready)
        moved = bool(ready)
    stuck: dict[str, str] = {}
    for event, label in enumerate(unrolled.labels):
        if event not in done:
            stuck.setdefault(label.partition(":")[0], label)
    return list(stuck.values())


# --- order of accesses ----------------------------------------------------------------------------------------------


def _check_slots(unrolled: Unrolled, order: list[int], where: str) -> Iterator[Finding]:
    """Every read of a slot finds the value it names, and nobody writes there meanwhile."""
    writes: dict[tuple[str, int], list[Access]] = defaultdict(list)
    for write in unrolled.writes:
        writes[write.buffer, write.slot].append(write)
    for slot, found in writes.items():
        found.sort(key=lambda write: order[write.end].bit_count())
        for first, second in pairwise(found):
            if not _ordered(order, first.end, second.begin):
                yield Finding("TRD532", where, f"{second.by} writes `{slot[0]}` while {first.by} does")
                return
    for read in unrolled.reads:
        found = writes[read.buffer, read.slot]
        made = [at for at, write in enumerate(found) if (write.value, write.iteration) == (read.value, read.iteration)]
        if len(made) != 1 and read.iteration >= 0:
            yield Finding("TRD533", where, f"{read.by} reads `{read.value}` of iteration {read.iteration}, not written")
            return
        if made and not _ordered(order, found[made[0]].end, read.begin):
            yield Finding("TRD533", where, f"{read.by} reads `{read.buffer}` before {found[made[0]].by} has ended")
            return
        others = found[made[0] + 1 :] if made else found
        after = next((write for write in others if write.by != read.by), None)
        if after is not None and not _ordered(order, read.end, after.begin):
            yield Finding("TRD532", where, f"{after.by} overwrites `{read.buffer}` while {read.by} reads it")
            return


def _check_registers_ready(unrolled: Unrolled, order: list[int], where: str) -> Iterator[Finding]:
    """Every value read from registers is there, in the reader's own group; one read from a slot for each reader."""
    readers: dict[tuple[int, tuple[str, int]], set[tuple[str, int]]] = defaultdict(set)
    for made, group, reader, chained in unrolled.held:
        readers[group, made].add(reader)
        span = unrolled.spans.get(made)
        event, begin, _ = unrolled.spans[reader]
        if made[1] < 0 or (chained and span is not None and _ordered(order, span[0], event)):
            continue
        ready = unrolled.in_registers.get((group, made), [])
        if not any(_ordered(order, there, event) or _ordered(order, there, begin) for there in ready):
            message = f"`{reader[0]}` of iteration {reader[1]} reads `{made[0]}` of iteration {made[1]}"
            yield Finding("TRD533", where, f"{message} before it is in its group's registers")
    for (group, made), events in unrolled.in_registers.items():
        span = unrolled.spans.get(made)
        read = span is None or span[2] not in events
        if read and len(events) != len(readers[group, made]):
            message = f"{unrolled.labels[events[0]]}: not one read for each reader"
            yield Finding("TRD530", where, message, str(len(readers[group, made])), str(len(events)))


def _check_sides(unrolled: Unrolled, order: list[int], where: str) -> Iterator[Finding]:
    """Slots are put after they are written, got before they are read, released after that, and all are given back.

    Slots that are full before the loop need no get.
    """
    channels = {channel.name: channel for channel in unrolled.program.channels}
    owners = {channel.buffer: channel for channel in unrolled.program.channels if not channel.one_way}
    for write in unrolled.writes:
        put = unrolled.puts.get((write.value, write.iteration))
        if write.value in channels and (put is None or not _ordered(order, write.end, put)):
            yield Finding("TRD532", where, f"{write.by}: its slot is put before it is written")
    for read in unrolled.reads:
        channel = channels.get(read.value)
        get = unrolled.gets.get((read.value, read.iteration, read.group))
        if (
            channel is not None
            and read.group in channel.consumers
            and not (get is None and -channel.primed <= read.iteration < 0)
            and (get is None or not _ordered(order, get, read.begin))
        ):
            yield Finding("TRD533", where, f"{read.by}: reads a slot that its group has not got")
        owner = owners.get(read.buffer)
        if owner is None or read.group not in owner.consumers:
            continue
        release = unrolled.releases.get((owner.name, read.iteration, read.group))
        if release is not None and not _ordered(order, read.end, release):
            yield Finding("TRD532", where, f"{read.by}: its slot is released before it is read")
    for channel in owners.values():
        for iteration in range(-channel.primed, unrolled.trips - channel.primed):
            for group in channel.consumers:
                if (channel.name, iteration, group) not in unrolled.releases:
                    message = f"channel `{channel.name}`: the slot of iteration {iteration} is never released"
                    yield Finding("TRD530", where, message)


def _check_phases(unrolled: Unrolled, order: list[int], where: str) -> Iterator[Finding]:
    """A wait sees the parity of its own phase: the slot's next phase cannot end before the wait does."""
    slots = {channel.name: unrolled.program.buffer(channel.buffer).slots for channel in unrolled.program.channels}
    for (name, iteration, _), event in unrolled.gets.items():
        following = unrolled.puts.get((name, iteration + slots[name]))
        if following is not None and not _ordered(order, event, following):
            yield Finding("TRD534", where, f"{unrolled.labels[event]}: the slot may be filled again before it looks")
    for (name, iteration), event in unrolled.puts.items():
        following = unrolled.puts.get((name, iteration + slots[name]))
        if following is not None and not _ordered(order, event, following):
            yield Finding("TRD534", where, f"{unrolled.labels[event]}: two fillings of a slot may arrive in any order")
    for channel in unrolled.program.channels:
        if not channel.one_way:
            yield from _check_releases(unrolled, order, channel.name, slots[channel.name], where)


def _check_releases(unrolled: Unrolled, order: list[int], name: str, slots: int, where: str) -> Iterator[Finding]:
    """Nobody releases a slot twice before all have released it once, and each filling was acquired."""
    channel = unrolled.program.channel(name)
    for iteration in range(unrolled.trips):
        acquired, put = unrolled.acquires.get((name, iteration)), unrolled.puts.get((name, iteration))
        if acquired is None or put is None or not _ordered(order, acquired, put):
            yield Finding(
                "TRD530", where, f"channel `{name}`: the slot of iteration {iteration} is not acquired and put"
            )
            return
        for first in channel.consumers:
            release = unrolled.releases.get((name, iteration, first))
            get = unrolled.gets.get((name, iteration, first))
            if release is not None and get is not None and not _ordered(order, get, release):
                yield Finding("TRD530", where, f"{unrolled.labels[release]}: before it was got")
            for second in channel.consumers:
                again = unrolled.releases.get((name, iteration + slots, second))
                if release is not None and again is not None and not _ordered(order, release, again):
                    yield Finding("TRD534", where, f"{unrolled.labels[again]}: released again before all released it")


def _check_flights(unrolled: Unrolled, where: str) -> Iterator[Finding]:
    for queue in unrolled.program.queues:
        flying = unrolled.most_in_flight.get(queue.name, 0)
        if flying > queue.most_in_flight:
            most = f"<= {queue.most_in_flight}"
            yield Finding("TRD535", where, f"too many operations of `{queue.name}` in flight", most, str(flying))


def _check_stages(unrolled: Unrolled, order: list[int], facts: Facts, where: str) -> Iterator[Finding]:
    """A staged operation finds its slot read by the one of the iteration before."""
    staged = {performed.operation for performed in facts.operations if performed.staged}
    for (name, iteration), (event, _, _) in unrolled.spans.items():
        before = unrolled.spans.get((name, iteration - 1))
        if name in staged and before is not None and not _ordered(order, before[2], event):
            yield Finding("TRD532", where, f"{unrolled.labels[event]}: its staging slot is still being read")


# --- the loop -------------------------------------------------------------------------------------------------------


def _check_dependences(unrolled: Unrolled, order: list[int], warps: WarpLoop, where: str) -> Iterator[Finding]:
    """Every operation runs once an iteration, and none before what it depends on is there."""
    issued = {issue.operation for issue in warps.issues}
    wanted = {(name, iteration) for name in issued for iteration in range(unrolled.trips)}
    performed = {instance for instance in unrolled.spans if not instance[0].endswith(" (write)")}
    for name, iteration in sorted(wanted ^ performed):
        kind = "is not performed" if (name, iteration) in wanted else "is performed beyond the iterations"
        yield Finding("TRD537", where, f"`{name}` of iteration {iteration} {kind}")
        return
    for dependence in warps.loop.dependences:
        if dependence.source not in issued or dependence.target not in issued:
            continue
        streams = dependence.delay_cycles <= warps.loop.operation(dependence.source).occupancy_cycles
        for iteration in range(dependence.distance, unrolled.trips):
            source = unrolled.spans[dependence.source, iteration - dependence.distance]
            target = unrolled.spans[dependence.target, iteration]
            over = _ordered(order, source[2], target[1])
            if not over and not (streams and _ordered(order, source[0], target[0])):
                message = f"`{dependence.target}` of iteration {iteration} does not wait for `{dependence.source}`"
                yield Finding("TRD533", where, message)


def _check_operations(program: WarpProgram, warps: WarpLoop) -> Iterator[Finding]:
    """Instructions of the same operation say the same everywhere, and read what the loop's dependences name."""
    reads: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for dependence in warps.loop.dependences:
        reads[dependence.target].add((dependence.source, dependence.distance))
    issued = {issue.operation for issue in warps.issues}
    rings = {ring.producer: ring.name for ring in warps.loop.rings}
    forms: dict[str, set[object]] = defaultdict(set)
    homes: dict[str, set[int]] = defaultdict(set)
    for position, group in enumerate(program.groups):
        for instruction in group.instructions():
            if instruction.action is not Action.PERFORM:
                continue
            name = instruction.subject
            forms[name].add((instruction.operands, instruction.result, instruction.asynchronous, instruction.queue))
            homes[name].add(position)
            made = {(source.value, source.distance) for source in instruction.operands if not source.invariant}
            wanted = {read for read in reads[name] if read[0] in issued}
            invariant = any(source.value in issued for source in instruction.operands if source.invariant)
            if made != wanted or invariant:
                yield Finding("TRD537", f"{program.name}.{name}", "reads other values", _pairs(wanted), _pairs(made))
                return
            if rings.get(name, instruction.result) != instruction.result:
                yield Finding(
                    "TRD537", f"{program.name}.{name}", "does not fill its ring", rings[name], instruction.result
                )
                return
    for name in sorted(issued | set(forms)):
        if len(forms[name]) != 1 or len(homes[name]) != 1 or name not in issued:
            yield Finding("TRD537", f"{program.name}.{name}", "is not one operation of one group in all parts")
            return


def _check_facts(program: WarpProgram, facts: Facts) -> Iterator[Finding]:
    """Operations are performed as the machine performs them; channels count what their operation signals."""
    known = {performed.operation: performed for performed in facts.operations}
    for group in program.groups:
        for instruction in group.instructions():
            performed = known.get(instruction.subject)
            if instruction.action is not Action.PERFORM or performed is None:
                continue
            wanted = (performed.operands, performed.result, performed.asynchronous, performed.queue)
            found = (instruction.operands, instruction.result, instruction.asynchronous, instruction.queue)
            if wanted != found:
                message = "is not performed as on this machine"
                yield Finding("TRD537", f"{program.name}.{instruction.subject}", message, str(wanted), str(found))
                return
    for channel in program.channels:
        if channel.name not in known or channel.transaction != known[channel.name].transaction:
            yield Finding("TRD537", f"{program.name}.{channel.name}", "channel does not count what is signalled")
    if program.queues != facts.queues:
        yield Finding("TRD537", program.name, "queues are not those of the machine")


def _pairs(reads: set[tuple[str, int]]) -> str:
    return ", ".join(f"{value}@{distance}" if distance else value for value, distance in sorted(reads)) or "nothing"


def _check_resources(program: WarpProgram, warps: WarpLoop) -> Iterator[Finding]:
    rings = {ring.name: ring for ring in warps.loop.rings}
    bytes_of: Counter[Memory] = Counter()
    for buffer in program.buffers:
        ring = rings.get(buffer.name)
        if ring is not None and (buffer.slot_bytes, buffer.memory) != (
            ring.slot_bytes,
            MEMORIES.get(ring.memory, Memory.SHARED),
        ):
            yield Finding(
                "TRD536",
                f"{program.name}.{buffer.name}",
                "is not the loop's ring",
                str(ring.slot_bytes),
                str(buffer.slot_bytes),
            )
        if ring is not None or buffer.memory is Memory.SHARED:
            bytes_of[buffer.memory] += buffer.slots * buffer.slot_bytes
    for capacity in warps.loop.capacities:
        used = capacity.fixed_bytes + bytes_of[MEMORIES.get(capacity.memory, Memory.SHARED)]
        if used > capacity.capacity_bytes:
            where = f"{program.name}.{capacity.memory}"
            yield Finding("TRD536", where, "memory is overfull", f"<= {capacity.capacity_bytes} bytes", f"{used} bytes")
    for group, needed in zip(program.groups, registers_in_order(program, warps), strict=True):
        if needed > group.registers and group.name not in warps.roles:
            where = f"{program.name}.{group.name}"
            yield Finding("TRD536", where, "its values need more registers", f"<= {group.registers}", str(needed))
    budgets = [group.registers for group in program.groups]
    total = sum(budgets) if warps.limits.reallocation else max(budgets) * len(budgets)
    for what, found, most in (
        ("the register file", total, warps.limits.registers_of_file),
        ("a group", max(budgets), warps.limits.registers_per_group),
    ):
        if found > most:
            yield Finding("TRD536", program.name, f"too many registers for {what}", f"<= {most}", str(found))


def _check_schedule(program: WarpProgram, warps: WarpLoop, made: WarpSchedule) -> Iterator[Finding]:
    """Groups, registers and slots are those of the schedule; with fewer slots a load would come too late."""
    for position, group in enumerate(program.groups):
        for instruction in group.steady:
            home = made.groups.get(instruction.subject)
            if instruction.action is Action.PERFORM and home != position:
                yield Finding(
                    "TRD537", f"{program.name}.{instruction.subject}", "is in another group", str(home), str(position)
                )
    registers = tuple(group.registers for group in program.groups)
    if registers != made.registers:
        yield Finding("TRD536", program.name, "other registers than scheduled", str(made.registers), str(registers))
    slots = {buffer.name: buffer.slots for buffer in program.buffers}
    for ring in warps.loop.rings:
        needed = -(-lifetime_cycles(ring, made.schedule) // made.schedule.ii_cycles)
        if slots.get(ring.name, 0) < needed:
            found = str(slots.get(ring.name, 0))
            yield Finding(
                "TRD536", f"{program.name}.{ring.name}", "too few slots for its lifetimes", f">= {needed}", found
            )
