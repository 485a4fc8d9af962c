"""The text of a DRCP proof: atoms, inferences, nogoods.

Format: Flippo et al., "A Multi-Stage Proof Logging Framework to Certify the Correctness of CP Solvers", CP 2024, in the
form written by pumpkin-solver 0.5: `a ID [NAME OP VALUE]` names an atom, `i ID PREMISES 0 [CONSEQUENT] [c:TAG] l:LABEL`
is one inference (without a consequent, of a contradiction), `n ID ATOMS 0 STEPS` a nogood with the steps it follows
from, `c UNSAT` the conclusion. A negative identifier is the negated atom.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from treadle.ir.proof_log.errors import UnreadableProof


@dataclass(frozen=True, slots=True)
class Atom:
    """A fact about one variable: `variable OP value`, with OP one of `<=`, `>=`, `==`, `!=`."""

    variable: int
    operator: str
    value: int

    def negated(self) -> Atom:
        """Return the opposite fact."""
        if self.operator == "<=":
            return Atom(self.variable, ">=", self.value + 1)
        if self.operator == ">=":
            return Atom(self.variable, "<=", self.value - 1)
        return Atom(self.variable, "!=" if self.operator == "==" else "==", self.value)

    def __str__(self) -> str:
        return f"[x{self.variable} {self.operator} {self.value}]"


@dataclass(frozen=True, slots=True)
class Inference:
    """The premises give the consequent (None: a contradiction) by constraint or nogood `tag`, or by the domains (0)."""

    step: int
    premises: tuple[Atom, ...]
    consequent: Atom | None
    tag: int
    label: str


@dataclass(frozen=True, slots=True)
class Nogood:
    """The atoms cannot hold together, as the named steps show."""

    step: int
    atoms: tuple[Atom, ...]
    steps: tuple[int, ...]


Step = Inference | Nogood
_ATOM = re.compile(r"a (\d+) \[x(\d+) (<=|>=|==|!=) (-?\d+)\]")


def parse(text: str) -> list[Step]:
    """Return the steps of a proof in their order.

    Raises:
        UnreadableProof: a line of another form, an unnamed atom, or no conclusion.
    """
    atoms: dict[int, Atom] = {}
    steps: list[Step] = []
    concluded = False
    for number, line in enumerate(text.splitlines(), 1):
        try:
            kind, _, rest = line.partition(" ")
            if kind == "a":
                _name(line, atoms)
            elif kind == "i":
                steps.append(_inference(rest.split(), atoms))
            elif kind == "n":
                steps.append(_nogood(rest.split(), atoms))
            else:
                concluded = line == "c UNSAT"
                if not concluded:
                    raise ValueError(line)
        except (ValueError, KeyError, IndexError) as error:
            raise UnreadableProof(line=number, text=line[:80], reason=repr(error)) from None
    if not concluded:
        raise UnreadableProof(line=text.count("\n") + 1, text="", reason="the conclusion `c UNSAT` is missing")
    return steps


def _name(line: str, atoms: dict[int, Atom]) -> None:
    match = _ATOM.fullmatch(line)
    if match is None:
        raise ValueError(line)
    identifier, variable, operator, value = match.groups()
    atoms[int(identifier)] = Atom(int(variable), operator, int(value))


def _read(word: str, atoms: dict[int, Atom]) -> Atom:
    identifier = int(word)
    return atoms[identifier] if identifier > 0 else atoms[-identifier].negated()


def _inference(words: list[str], atoms: dict[int, Atom]) -> Inference:
    end = words.index("0", 1)
    premises = tuple(_read(word, atoms) for word in words[1:end])
    consequent: Atom | None = None
    tag, label = 0, ""
    for word in words[end + 1 :]:
        if word.startswith("c:"):
            tag = int(word[2:])
        elif word.startswith("l:"):
            label = word[2:]
        elif consequent is None:
            consequent = _read(word, atoms)
        else:
            raise ValueError(word)
    return Inference(int(words[0]), premises, consequent, tag, label)


def _nogood(words: list[str], atoms: dict[int, Atom]) -> Nogood:
    end = words.index("0", 1)
    return Nogood(
        int(words[0]),
        tuple(_read(word, atoms) for word in words[1:end]),
        tuple(int(word) for word in words[end + 1 :]),
    )
