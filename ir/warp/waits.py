"""How deep every wait may be: counts of operations issued behind the one waited for, in every part of a group.

Operations of a queue complete in order, so waiting for one means waiting until at most as many are in flight as were
issued behind it. Counts are taken by running the group for many trip counts; a wait that others make superfluous is
dropped; where the first steady steps have fewer operations behind than the later ones, the prologue ends by draining.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from treadle.ir.warp.program import Action, Instruction, Queue, Step


@dataclass(frozen=True, slots=True)
class Entry:
    """An instruction with the target of a wait: (operation, iterations ago)."""

    instruction: Instruction
    awaits: tuple[str, int] | None = None
    every_step: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A group before its waits are settled."""

    steady: tuple[Entry, ...]
    serial: tuple[Entry, ...]
    stages: int
    ahead: int
    """Trip counts below run the serial list."""


Part = tuple[str, int]
"""A list of instructions: `prologue` or `epilogue` with its step, `steady` or `serial` with 0."""
Key = tuple[Part, int]
"""An instruction: its part and its position there."""


@dataclass
class _Lists:
    """The parts of a group; removed entries are None, so that positions stay."""

    parts: dict[Part, list[Entry | None]]
    stages: int
    least: int
    """Trip counts below run the serial list."""

    def steps(self, trips: int) -> Iterator[tuple[int, Part]]:
        ahead = self.stages - 1
        if trips < self.least:
            yield from ((iteration, ("serial", 0)) for iteration in range(trips))
            return
        yield from ((step, ("prologue", step)) for step in range(ahead))
        yield from ((step, ("steady", 0)) for step in range(ahead, trips))
        yield from ((trips + step, ("epilogue", step)) for step in range(ahead))

    def run(self, trips: int) -> Iterator[tuple[int, Key, Entry]]:
        for step, part in self.steps(trips):
            for position, entry in enumerate(self.parts[part]):
                if entry is not None:
                    yield step, (part, position), entry


def settle(template: Template, queues: tuple[Queue, ...]) -> tuple[tuple[Step, ...], Step, tuple[Step, ...], Step]:
    """Return prologue, steady state, epilogue and serial list with the depths of all waits filled in."""
    ahead = template.stages - 1
    parts: dict[Part, list[Entry | None]] = {("steady", 0): list(template.steady), ("serial", 0): list(template.serial)}
    for step in range(ahead):
        parts["prologue", step] = [e for e in template.steady if e.every_step or _exists(e, step)]
        parts["epilogue", step] = [e for e in template.steady if e.every_step or e.instruction.stage > step]
    lists = _Lists(parts, template.stages, template.ahead)
    _drop_superfluous(lists, _fill_depths(lists, {queue.name: queue for queue in queues}))
    return (
        tuple(_step(lists, ("prologue", step)) for step in range(ahead)),
        _step(lists, ("steady", 0)),
        tuple(_step(lists, ("epilogue", step)) for step in range(ahead)),
        _step(lists, ("serial", 0)),
    )


def _exists(entry: Entry, step: int) -> bool:
    """Whether an instruction has an iteration in a step of the prologue, and a wait something to wait for."""
    iteration = step - entry.instruction.stage
    return iteration >= 0 and (entry.awaits is None or iteration - entry.awaits[1] >= 0)


def _step(lists: _Lists, part: Part) -> Step:
    return tuple(entry.instruction for entry in lists.parts[part] if entry is not None)


def _trip_counts(lists: _Lists) -> range:
    return range(lists.least, lists.least + 2 * lists.stages + 4)


def _fill_depths(lists: _Lists, queues: dict[str, Queue]) -> dict[Key, int]:
    """Fill in the depths of all waits; return how many operations are issued behind the target of each, at least."""
    counts = _count(lists, drained=set())
    steady = {key: max(found) for key, found in counts.items() if key[0][0] == "steady" and found}
    short = {
        _queue(lists, key)
        for key, depth in steady.items()
        if min(counts[key]) < depth and not _drains(lists, key, queues)
    }
    if short:
        last = ("prologue", lists.stages - 2)
        lists.parts[last] += [Entry(Instruction(Action.WAIT, queue)) for queue in sorted(short)]
        counts = _count(lists, drained=short)
    for key, found in counts.items():
        depth = 0 if _drains(lists, key, queues) or key[0][0] == "serial" else min(found, default=0)
        entry = lists.parts[key[0]][key[1]]
        assert entry is not None
        lists.parts[key[0]][key[1]] = replace(entry, instruction=replace(entry.instruction, pending=depth))
    return {key: min(found, default=0) for key, found in counts.items()}


def _queue(lists: _Lists, key: Key) -> str:
    entry = lists.parts[key[0]][key[1]]
    assert entry is not None
    return entry.instruction.subject


def _drains(lists: _Lists, key: Key, queues: dict[str, Queue]) -> bool:
    return queues[_queue(lists, key)].drains


def _count(lists: _Lists, drained: set[str]) -> dict[Key, list[int]]:
    """Return, for every wait, how many operations were issued behind its target, over all trip counts."""
    counts: dict[Key, list[int]] = defaultdict(list)
    for trips in (*range(lists.least), *_trip_counts(lists)):
        issued: dict[str, list[tuple[str, int]]] = defaultdict(list)
        over: dict[str, int] = {}
        for step, key, entry in lists.run(trips):
            instruction = entry.instruction
            iteration = step - instruction.stage
            if instruction.action is Action.PERFORM and instruction.queue:
                issued[instruction.queue].append((instruction.subject, iteration))
            if instruction.action is not Action.WAIT:
                continue
            queue = issued[instruction.subject]
            if entry.awaits is None:
                over[instruction.subject] = len(queue) if instruction.subject in drained else 0
                continue
            counts[key] += []
            target = (entry.awaits[0], iteration - entry.awaits[1])
            if target[1] >= 0:
                position = queue.index(target)
                if position >= over.get(instruction.subject, 0):
                    counts[key].append(len(queue) - 1 - position)
    return counts


def _drop_superfluous(lists: _Lists, behind: dict[Key, int]) -> None:
    """Remove waits for what is known to be over, one at a time: every one removed before must still be covered.

    Those go first that are not the first for their target, then those whose target was issued longest ago. A draining
    wait also covers what was issued just before it, but too early: the wait that has a reason of its own is to stay.
    """
    gone: dict[Key, Entry] = {}
    waits = [
        ((part, position), entry)
        for part, entries in lists.parts.items()
        for position, entry in enumerate(entries)
        if entry is not None and entry.instruction.action is Action.WAIT
    ]
    first: dict[tuple[Part, str, str], tuple[int, int]] = {}
    for (part, position), entry in waits:
        target = (part, *_target(entry))
        first[target] = min(first.get(target, (_later(entry), position)), (_later(entry), position))

    def reason(wait: tuple[Key, Entry]) -> tuple[bool, int]:
        (part, position), entry = wait
        return first[part, *_target(entry)] == (_later(entry), position), -behind.get((part, position), 0)

    for key, entry in sorted(waits, key=reason):
        entries, position = lists.parts[key[0]], key[1]
        entries[position] = None
        gone[key] = entry
        if not _known_over(lists, gone, entry.instruction.subject):
            entries[position] = entry
            del gone[key]


def _target(entry: Entry) -> tuple[str, str]:
    """Return the queue that is waited for, and the operation; none where all of it is."""
    return entry.instruction.subject, entry.awaits[0] if entry.awaits is not None else ""


def _later(entry: Entry) -> int:
    """Return the steps between that of the target's iteration and the wait."""
    return entry.instruction.stage + (entry.awaits[1] if entry.awaits is not None else 0)


def _known_over(lists: _Lists, gone: dict[Key, Entry], queue: str) -> bool:
    """Whether the targets of removed waits for a queue (everything, for a draining one) are over whenever the group
    gets there.
    """
    removed = {at: wait for at, wait in gone.items() if wait.instruction.subject == queue}
    for trips in (*range(lists.least), *_trip_counts(lists)):
        issued: list[tuple[str, int]] = []
        over = 0
        for step, part in lists.steps(trips):
            for position, entry in enumerate(lists.parts[part]):
                wait = removed.get((part, position))
                if wait is not None and _flying(wait, step, issued, over):
                    return False
                if entry is None:
                    continue
                instruction = entry.instruction
                if instruction.action is Action.PERFORM and instruction.queue == queue:
                    issued.append((instruction.subject, step - instruction.stage))
                if instruction.action is Action.WAIT and instruction.subject == queue:
                    over = max(over, len(issued) - instruction.pending)
    return True


def _flying(wait: Entry, step: int, issued: list[tuple[str, int]], over: int) -> bool:
    """Whether what a removed wait was for may be in flight, when the first `over` operations of its queue are not."""
    if wait.awaits is None:
        return over < len(issued)
    target = (wait.awaits[0], step - wait.instruction.stage - wait.awaits[1])
    return target[1] >= 0 and issued.index(target) >= over
