"""One engine of the replay: continuous batching in steps, with runs of equal decode steps taken in one go.

Time advances from step to step. While nothing joins or leaves the batch, decode steps differ only in the context they
read, which grows by one token per sequence: their times form an arithmetic progression and are summed in closed form.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from math import ceil, inf

from treadle.costmodels.replay.batching import Batching, Chunked
from treadle.costmodels.replay.phases import Sharing
from treadle.costmodels.replay.policies import Admission
from treadle.costmodels.replay.prefixes import PrefixCache
from treadle.ir.serving.profile import Profile


class Job:
    """A request on an engine: prompt tokens still to process, tokens already in the cache, output still to make."""

    __slots__ = ("arrived", "blocks", "cached", "index", "length", "load", "load_s", "output", "prompt", "source")

    def __init__(self, index: int, prompt: int, output: int, blocks: Sequence[int] = ()) -> None:
        self.index = index
        self.prompt = prompt
        self.output = output
        self.blocks = blocks
        self.cached = 0
        self.length = prompt
        self.load = prompt + output
        self.arrived = self.load_s = 0.0
        self.source = -1


class EngineState:
    """A running engine.

    Args:
        profile: its step times.
        kv_tokens: tokens of context its cache holds.
        max_batch: sequences in the batch.
        chunk_tokens: new tokens of a step (prefill chunks and decode tokens together).
        admission: when a waiting request may join.
        decodes: whether it makes output tokens, or hands requests on after prefill.
        prefix: prefix blocks it keeps for reuse; None turns reuse off.
        batching: how steps are filled.
        step_limit_s: time of a step that batching policies try to keep.
    """

    __slots__ = (
        "admission",
        "batch",
        "batching",
        "beside",
        "chunk_tokens",
        "context",
        "decodes",
        "end",
        "group_s",
        "groups_left",
        "growth",
        "holds",
        "jump",
        "kv_tokens",
        "layered",
        "max_batch",
        "outstanding",
        "preemptions",
        "prefilling",
        "prefix",
        "profile",
        "queue",
        "reused_tokens",
        "running",
        "sharing",
        "since",
        "stalled",
        "step",
        "step_limit_s",
        "steps",
        "taken",
        "used",
        "version",
    )

    def __init__(
        self,
        profile: Profile,
        kv_tokens: int,
        max_batch: int,
        chunk_tokens: int,
        admission: Admission,
        decodes: bool = True,
        prefix: PrefixCache | None = None,
        batching: Batching | None = None,
        step_limit_s: float = inf,
    ) -> None:
        self.profile, self.kv_tokens, self.max_batch = profile, kv_tokens, max_batch
        self.chunk_tokens, self.admission, self.decodes = chunk_tokens, admission, decodes
        self.prefix, self.batching, self.step_limit_s = prefix, batching or Chunked(), step_limit_s
        self.queue: deque[Job] = deque()
        self.prefilling: deque[Job] = deque()
        self.running: list[tuple[int, int, Job]] = []
        self.taken: list[tuple[Job, int]] = []
        self.layered: tuple[tuple[Job, int], ...] = ()
        self.stalled = False
        self.groups_left, self.group_s = 0, 0.0
        self.batch = self.context = self.used = self.steps = self.jump = self.version = 0
        self.outstanding = self.reused_tokens = self.preemptions = 0
        self.since = self.end = self.step = self.growth = 0.0
        self.beside: EngineState | None = None
        self.sharing: Sharing | None = None
        self.holds = False

    @property
    def idle(self) -> bool:
        """Whether no step is under way."""
        return self.jump == 0

    @property
    def load(self) -> int:
        """Tokens of prompts and outputs under way, here and on the engine that decodes beside it on the same GPUs."""
        return self.outstanding if self.beside is None else self.outstanding + self.beside.outstanding

    @property
    def room(self) -> int:
        """Sequences that it, or the engine beside it, decodes at once."""
        return self.max_batch if self.beside is None else self.beside.max_batch

    @property
    def decoding_tokens(self) -> int:
        """New tokens that the decoding batch brings to a step."""
        return self.batch * (1 + self.profile.draft_tokens)

    def arrive(self, job: Job, now: float) -> bool:
        """Queue a request; returns whether a run of decode steps was cut short, so that its end has moved."""
        job.arrived = now
        self.queue.append(job)
        self.outstanding += job.load
        full = self.batch + len(self.prefilling) >= self.max_batch
        return not full and self.cut(now)

    def cut(self, now: float) -> bool:
        """End a run of decode steps with the step under way; returns whether that moved its end."""
        if self.jump <= 1 or self.taken:
            return False
        steps = max(1, ceil((now - self.since) / ((self.end - self.since) / self.jump)))
        if steps >= self.jump:
            return False
        self.jump = steps
        self.end = self.since + self._run_s(steps)
        self.version += 1
        return True

    def begin(self, now: float) -> bool:
        """Start the next step or run of steps; returns False when there is nothing to do."""
        self._admit(now)
        self.since = now
        if self.sharing is not None:
            self.profile = self.sharing.profile(self)
        if self.prefilling and (step := self.batching.fill(self)):
            self.step, self.jump, self.growth = step, 1, 0.0
            self.end = now + step
            return True
        if not self.batch:
            return False
        self._make_room()
        self.step = self.profile.step_s(0, 0, self.batch, self.context)
        self.growth = self.profile.growth_s(self.batch)
        self.jump = self.running[0][0] - self.steps
        free = (self.kv_tokens - self.used) // self.batch
        if free < self.jump:
            self.jump = max(1, free)
        self.end = now + self._run_s(self.jump)
        return True

    def _run_s(self, steps: int) -> float:
        return steps * self.step + self.growth * steps * (steps - 1) / 2

    def _admit(self, now: float) -> None:
        """Move waiting requests into prefill while the policy, the batch and the cache allow."""
        while self.queue and self.batch + len(self.prefilling) < self.max_batch:
            position = self.batching.next(self.queue, now)
            job = self.queue[position]
            if not self.admission.admits(self, job):
                return
            del self.queue[position]
            if self.prefix is not None and job.blocks and not job.cached:
                hit, job.load_s = self.prefix.reuse(job.blocks, job.prompt - 1, now)
                self.reused_tokens += hit
                job.cached, job.prompt = hit, job.prompt - hit
            self.used += job.length + 1
            self.prefilling.append(job)

    def _make_room(self) -> None:
        """Preempt the sequences admitted last until one step's tokens fit; they will be computed again."""
        while self.used + self.batch > self.kv_tokens and self.batch > 1:
            last = max(range(len(self.running)), key=lambda position: self.running[position][1])
            finish, _, job = self.running.pop(last)
            heapify(self.running)
            left = finish - self.steps
            done = job.output - left
            held = job.length + 1 + done
            self.batch -= 1
            self.context -= held
            self.used -= held
            job.prompt = job.length = job.length + done
            job.output, job.cached = left, 0
            self.queue.appendleft(job)
            self.preemptions += 1

    def finish(self) -> tuple[list[Job], list[Job]]:
        """End the current run of steps; returns requests whose prefill ended, and requests that are complete."""
        steps, self.jump = self.jump, 0
        if self.stalled:
            steps, self.stalled = 0, False
        self.steps += steps
        grown = self.batch * steps
        self.context += grown
        self.used += grown
        prefilled: list[Job] = []
        if self.taken:
            prefilled = self._end_chunk()
        complete: list[Job] = []
        while self.running and self.running[0][0] <= self.steps:
            job = heappop(self.running)[2]
            self._release(job, job.length + 1 + job.output)
            complete.append(job)
        return prefilled, complete

    def _end_chunk(self) -> list[Job]:
        prefilled: list[Job] = []
        for job, take in self.taken:
            job.prompt -= take
            job.cached += take
            if job.prompt == 0:
                self.prefilling.popleft()
                prefilled.append(job)
                if self.decodes:
                    self.join(job)
                else:
                    self.used -= 0 if self.holds else job.length + 1
                    self.outstanding -= job.load
        self.taken.clear()
        return prefilled

    def join(self, job: Job) -> None:
        """Let a prefilled request decode from the next step on; its first output token is there."""
        job.output -= 1
        self.batch += 1
        self.context += job.length + 1
        heappush(self.running, (self.steps + job.output, job.index, job))

    def _release(self, job: Job, held: int) -> None:
        self.batch -= 1
        self.context -= held
        self.used -= held
        self.outstanding -= job.load
