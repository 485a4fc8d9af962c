"""Small damage to texts: cut, doubled, swapped and foreign pieces, from a seeded generator."""

from __future__ import annotations

import os
import random

FOREIGN = (
    "", " ", "\n", "\t", "\0", "\r", '"', "'", "`", "\\", "{", "}", "[", "]", "(", ")", ":", ",", "=", "@", "->", "#",
    "-1", "0", "1e400", "-0.0", "NaN", "1.5", "9" * 50, "true", "null", "[[", "{{", "\\u12", "\ud800", "é", "\u2028",
    "99999999999999999999", "name", "value", "inf", "1/0", "../..", "$(x)", "${x}", "%s", "{0}", "\ufeff",
)  # fmt: skip


def repetitions(normal: int) -> int:
    """Return how many mutations to try: TREADLE_FUZZ where it is set, else `normal`."""
    return int(os.environ.get("TREADLE_FUZZ", normal))


def mutated(text: str, dice: random.Random) -> str:
    """Return `text` with one to four pieces of damage."""
    for _ in range(dice.randint(1, 4)):
        begin = dice.randrange(len(text) + 1)
        end = min(len(text), begin + dice.choice((0, 1, 2, 5, 20, 200)))
        match dice.randrange(5):
            case 0:
                text = text[:begin] + dice.choice(FOREIGN) + text[end:]
            case 1:
                text = text[:begin] + text[begin:end] * 2 + text[end:]
            case 2:
                other = dice.randrange(len(text) + 1)
                text = text[:begin] + text[other : other + end - begin] + text[end:]
            case 3:
                text = text[:begin] + dice.choice(FOREIGN) * dice.choice((1, 3, 90)) + text[begin:]
            case _:
                text = text[:begin] if dice.random() < 0.3 else text[:begin] + text[end:]
    return text
