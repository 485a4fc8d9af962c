"""Coded errors of serving plans."""

from __future__ import annotations

from treadle.ir.diagnostics import TreadleError
from treadle.ir.errors import Unmet


class NoMeasuredTable(TreadleError):
    """Step times were asked from measured tables that do not cover the model or GPU."""

    code = "TRD144"
    template = "no measured step times for {what}: {missing}"
    hint = "add the tables (pip install 'treadle[measured]'), or accept rooflines with --roofline"


class NoPrefixBlocks(TreadleError):
    """Reuse of prefixes is asked for, and nothing says which requests share some."""

    code = "TRD650"
    template = "`prefix_reuse` is asked for, and no request of the workload names its prompt's blocks"
    hint = "use a trace with `hash_ids` (format mooncake), or leave `prefix_reuse` out"


class UnmetLevels(Unmet):
    """No engine configuration meets the latencies asked for."""

    code = "TRD342"
    template = "no engine on {gpu} meets {levels}"
    hint = "{nearest}"


class TooFewGpus(Unmet):
    """Fewer GPUs than one engine of any kind takes."""

    code = "TRD343"
    template = "{found} GPUs are given, and the smallest engine that holds {what} takes {need}"
    hint = "give at least {need} GPUs, or a smaller weight dtype"


class LongRequests(Unmet):
    """A request that the cache of no engine holds."""

    code = "TRD660"
    template = "request {number} has {tokens} tokens, and the largest cache of an engine holds {most} ({engine})"
    hint = "leave such requests out of the workload, or give GPUs with more memory"


class RateUnmet(Unmet):
    """The rate asked for is beyond what the GPUs sustain."""

    code = "TRD344"
    template = "{asked} requests/s are asked for, and {gpus} GPUs sustain at most {found} with these latencies{because}"
    hint = "ask for at most {found} requests/s, or give about {need} GPUs"


class NoRoomForEngines(Unmet):
    """The GPUs are there, and the nodes lack something else that the engines' pods request."""

    code = "TRD345"
    template = "{count} of {total} engine pods fit on no node although GPUs are free (first: `{first}`)"
    hint = "`treadle pack` on the bundle's serving/deploy/cluster.json says what each node lacks"
