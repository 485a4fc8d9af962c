"""Which waits of a group stay: those with a reason of their own, not those that happen to cover it."""

from __future__ import annotations

from treadle.ir.warp.program import Action, Instruction, Queue
from treadle.ir.warp.waits import Entry, Template, settle


def _issue(name: str) -> Entry:
    return Entry(Instruction(Action.PERFORM, name, asynchronous=True, queue="loads"))


def _wait(name: str, back: int = 0) -> Entry:
    return Entry(Instruction(Action.WAIT, "loads"), (name, back))


def test_a_draining_wait_stays_where_its_result_is_read() -> None:
    """`first` is waited for again behind `second`, to give its slot back; what is known to be over must not drain
    `second`, which is read in the next step only.
    """
    step = (_wait("second", 1), _issue("first"), _wait("first"), _issue("second"), _wait("first"))
    queues = (Queue("loads", 64, drains=True),)
    _, steady, _, _ = settle(Template(step, (), 1, 0), queues)
    assert [(i.action, i.subject) for i in steady] == [
        (Action.WAIT, "loads"),
        (Action.PERFORM, "first"),
        (Action.WAIT, "loads"),
        (Action.PERFORM, "second"),
    ]


def test_the_first_wait_for_a_result_stays_with_depths_too() -> None:
    step = (_issue("first"), _issue("second"), _wait("first"), _wait("second"), _wait("first"))
    _, steady, _, _ = settle(Template(step, (), 1, 0), (Queue("loads", 64),))
    assert [i.pending for i in steady if i.action is Action.WAIT] == [1, 0]
