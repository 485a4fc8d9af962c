"""Where searches run: in this process, in a pool of local processes, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import InvalidValue, MissingExtra

PARTS_PER_WORKER = 4
"""Parts are uneven, and a lost worker's parts are done again."""


class UnreachableCluster(TreadleError):
    """A Dask scheduler that does not answer."""

    code = "TRD009"
    template = "no Dask scheduler answers at `{address}`: {reason}"
    hint = "start one with `dask scheduler` and workers with `dask worker`, or use --jobs"


def starts(parts: int) -> int:
    """Return how many searches of equal length to run for `parts` of `opened`: one per worker."""
    return max(1, parts // PARTS_PER_WORKER)


@contextmanager
def opened(jobs: int, address: str) -> Generator[tuple[Executor | None, int], None, None]:
    """Give an executor, and into how many parts to cut a search; none and 1 for this process alone.

    Args:
        jobs: local processes; 1 is this process.
        address: `dask://HOST:PORT`, or empty.

    Raises:
        InvalidValue: an address of another form. MissingExtra: distributed is not installed. UnreachableCluster.
    """
    if address:
        with _dask(address) as found:
            yield found
    elif jobs > 1:
        with ProcessPoolExecutor(jobs) as pool:
            yield pool, jobs * PARTS_PER_WORKER
    else:
        yield None, 1


@contextmanager
def _dask(address: str) -> Generator[tuple[Executor, int], None, None]:
    scheme, _, place = address.partition("://")
    if scheme != "dask" or not place.rpartition(":")[2].isdecimal():
        raise InvalidValue(message=f"`{address}` is not an executor", expected="dask://HOST:PORT")
    try:
        distributed: Any = import_module("distributed")
    except ImportError:
        raise MissingExtra(package="distributed", purpose="--executor dask://", extra="dask") from None
    try:
        client = distributed.Client(f"tcp://{place}", timeout="5s")
    except (OSError, TimeoutError) as error:
        raise UnreachableCluster(address=address, reason=str(error).splitlines()[0]) from None
    with client:
        workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))
        yield client.get_executor(pure=False), workers * PARTS_PER_WORKER
