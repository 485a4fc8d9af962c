"""Ctrl-C as a request: running searches end with the best they have, and no further one begins.

The command line takes SIGINT through `handled`; a program that uses treadle as a library keeps its own handler and
sees `KeyboardInterrupt` as usual. Nothing here needs a solver, so that the command line starts fast.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Answer = TypeVar("Answer")

_requested = threading.Event()
POLL_S = 0.1


def requested() -> bool:
    """Whether searches are asked to end; long loops without a solver look here between steps."""
    return _requested.is_set()


@contextmanager
def handled(tell: Callable[[], None]) -> Generator[None, None, None]:
    """Take the first SIGINT as a request, and tell the user; a second one raises `KeyboardInterrupt`.

    Only the main thread may take signals: in any other nothing is installed. The handler from before returns on the
    way out.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def take(_number: int, _frame: FrameType | None) -> None:
        if requested():
            raise KeyboardInterrupt
        _requested.set()
        tell()

    before = signal.signal(signal.SIGINT, take)
    _requested.clear()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_stoppable(search: Callable[[], Answer], stop: Callable[[], None]) -> Answer:
    """Run a search that holds its thread beside this one, which stays free to take signals.

    `stop` is called, from this thread, as long as an end is requested; the answer is what the search then returns.

    Raises:
        KeyboardInterrupt: after the search has ended, when nobody handles SIGINT as a request.
    """
    answer: Future[Answer] = Future()
    thread = threading.Thread(target=_fulfil, args=(answer, search), daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(POLL_S)
            if requested():
                stop()
    except KeyboardInterrupt:
        while thread.is_alive():
            stop()
            thread.join(POLL_S)
        raise
    return answer.result()


def _fulfil(answer: Future[Answer], search: Callable[[], Answer]) -> None:
    try:
        answer.set_result(search())
    except BaseException as error:
        answer.set_exception(error)
