"""Searches from several starts side by side, on any `concurrent.futures.Executor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from typing import TypeVar

Start = TypeVar("Start")
Found = TypeVar("Found")


def run_starts(
    search: Callable[[Start], Found],
    starts: Sequence[Start],
    executor: Executor | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[Found]:
    """Return what `search` finds from every start, in their order; here, one after the other, without an executor.

    Args:
        search: a function that other processes can load.
        starts: what it is called with.
        executor: where it runs. A start whose worker is lost is searched here.
        progress: told of lost workers.
    """
    if executor is None:
        return [search(start) for start in starts]
    waiting = [_submitted(executor, search, start) for start in starts]
    found: list[Found] = []
    for number, (start, future) in enumerate(zip(starts, waiting, strict=True), 1):
        try:
            found.append(future.result())
        except (BrokenExecutor, CancelledError):
            if progress:
                progress(f"a worker was lost; start {number} of {len(starts)} is searched here")
            found.append(search(start))
    return found


def _submitted(executor: Executor, search: Callable[[Start], Found], start: Start) -> Future[Found]:
    """Hand a start over; a pool that broke meanwhile gives a future that failed."""
    try:
        return executor.submit(search, start)
    except BrokenExecutor as error:
        failed: Future[Found] = Future()
        failed.set_exception(error)
        return failed
