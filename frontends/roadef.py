"""The ROADEF/EURO 2012 files: MODEL.txt and ASSIGNMENT.txt, whitespace-separated integers."""

from __future__ import annotations

from pathlib import Path

from treadle.ir.cluster.reassignment import Balance, Machine, Process, Reassignment, Service
from treadle.ir.diagnostics import Place
from treadle.ir.errors import MalformedText
from treadle.ir.plan import read_text

_ORDER = "the model comes first, then an assignment of the same instance"


def load_roadef(model: Path, assignment: Path) -> Reassignment:
    """Read an instance; raises UnreadableFile, MalformedText, InvalidValue."""
    numbers = _Numbers(model)
    resources = numbers.take("number of resources")
    kinds = [(numbers.take("transient"), numbers.take("load cost weight")) for _ in range(resources)]
    count = numbers.take("number of machines")
    machines = tuple(_machine(numbers, resources, count) for _ in range(count))
    services = tuple(_service(numbers) for _ in range(numbers.take("number of services")))
    processes = tuple(
        Process(numbers.take("service"), numbers.several(resources), numbers.take("process move cost"))
        for _ in range(numbers.take("number of processes"))
    )
    balances = tuple(Balance(*numbers.several(4)) for _ in range(numbers.take("number of balance costs")))
    weights = numbers.several(3)
    if not (machines and processes):
        raise MalformedText(
            place=Place(str(model)), message="no machine or no process", expected="at least one of both"
        )
    numbers.end("nothing after the three weights of move costs")
    placed = _Numbers(assignment)
    initial = placed.several(len(processes), f"the machine of each of the {len(processes)} processes of the model")
    placed.end(f"one machine for each of the {len(processes)} processes of the model")
    if max(initial, default=0) >= count:
        raise MalformedText(
            place=Place(str(assignment)), message=f"a process on machine {max(initial)}",
            expected=f"a machine from 0 to {count - 1}, as the model has them", hint=_ORDER,
        )  # fmt: skip
    if any(not 0 <= process.service < len(services) for process in processes):
        raise MalformedText(place=Place(str(model)), message="a process of a service that is not listed")
    return Reassignment(
        tuple(bool(transient) for transient, _ in kinds),
        tuple(weight for _, weight in kinds),
        machines,
        services,
        processes,
        balances,
        weights[0],
        weights[1],
        weights[2],
        initial,
    )


def _machine(numbers: _Numbers, resources: int, count: int) -> Machine:
    return Machine(
        numbers.take("neighborhood"),
        numbers.take("location"),
        numbers.several(resources),
        numbers.several(resources),
        numbers.several(count),
    )


def _service(numbers: _Numbers) -> Service:
    spread, dependencies = numbers.several(2)
    return Service(spread, numbers.several(dependencies))


class _Numbers:
    """The integers of a file, one after the other."""

    def __init__(self, file: Path) -> None:
        self.file = str(file)
        self.words = read_text(file).split()
        self.position = 0

    def take(self, what: str) -> int:
        """Return the next integer."""
        if self.position >= len(self.words):
            raise MalformedText(
                place=Place(self.file),
                message=f"the file ends after {self.position} numbers",
                expected=what,
                hint=_ORDER,
            )
        word = self.words[self.position]
        self.position += 1
        if not word.isdecimal():
            raise MalformedText(
                place=Place(self.file),
                message=f"`{word[:20]}` (word {self.position}) is no whole number from 0",
                expected=what,
            )
        return int(word)

    def several(self, count: int, what: str = "number") -> tuple[int, ...]:
        """Return the next integers."""
        return tuple(self.take(what) for _ in range(count))

    def end(self, expected: str) -> None:
        """Require that nothing is left."""
        if self.position != len(self.words):
            left = len(self.words) - self.position
            raise MalformedText(
                place=Place(self.file), message=f"{left} numbers too many", expected=expected, hint=_ORDER
            )
