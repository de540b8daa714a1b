"""A sampler: draws the responses of its leases with an engine, and takes new weights between two of its steps."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from rayrlhf.engines.base import Completion, Engine, GenerationRequest
from rayrlhf.pool import goodput
from rayrlhf.pool.leases import Answer, Assignment, OnUpdate
from rayrlhf.types import Rollouts, Sample, offsets_of


@dataclass(frozen=True)
class Weights:
    """A version that has been fetched."""

    version: int
    buckets: list[Any]


@dataclass
class _Open:
    """A lease that is being answered."""

    assignment: Assignment
    completions: dict[int, Completion] = field(default_factory=dict)  # by index of the request


class Sampler:
    """One engine, the version of the weights in it (−1 before the first), and the leases it works on."""

    def __init__(self, engine: Engine, on_update: OnUpdate, clock: Callable[[], float] = time.monotonic) -> None:
        self.version = -1
        self.tokens = 0
        """Response tokens drawn."""
        self.watch = goodput.Stopwatch(goodput.WAIT_FOR_WEIGHTS, clock())
        self._engine, self._on_update, self._clock = engine, on_update, clock
        self._offered: Weights | None = None
        self._waiting: deque[tuple[int, int]] = deque()  # (lease id, index), not begun
        self._running: dict[int, tuple[int, int]] = {}  # by request id
        self._open: dict[int, _Open] = {}
        self._next_request = 0
        self._redone_steps = 0

    @property
    def num_running(self) -> int:
        """Responses that were begun and have not ended."""
        return len(self._running)

    @property
    def has_work(self) -> bool:
        """Whether `step` has something to do."""
        return bool(self._running or self._waiting or self._offered)

    def add(self, assignment: Assignment) -> None:
        """One more lease."""
        self._open[assignment.lease_id] = _Open(assignment)
        self._waiting.extend((assignment.lease_id, index) for index in range(len(assignment.requests)))

    def offer(self, weights: Weights) -> None:
        """Newer weights, to be taken before the next step or, with `finish`, once the running responses have ended."""
        self._offered = weights

    def step(self) -> list[Answer]:
        """Take new weights if it is time, draw a token of every running response; the leases that are answered."""
        if self._offered is not None and (self._on_update == "continue" or not self._running):
            self._load(self._offered)
        if self._offered is None:
            self._begin()
        if not self._running:
            return []
        self.watch.switch(goodput.REDONE_PREFILL if self._redone_steps else goodput.GENERATE, self._clock())
        self._redone_steps = max(0, self._redone_steps - 1)
        return [answer for done in self._engine.step() for answer in self._end(*done)]

    def rest(self, for_weights: bool) -> None:
        """There is nothing to do until prompts or weights come; without weights there are no prompts either."""
        waits_for = goodput.WAIT_FOR_WEIGHTS if for_weights or self.version < 0 else goodput.WAIT_FOR_PROMPTS
        self.watch.switch(waits_for, self._clock())

    def _load(self, weights: Weights) -> None:
        self.watch.switch(goodput.LOAD_WEIGHTS, self._clock())
        self._redone_steps = self._engine.load_weights({"buckets": weights.buckets}, weights.version)
        self.version, self._offered = weights.version, None

    def _begin(self) -> None:
        while self._waiting:
            lease_id, index = self._waiting.popleft()
            assignment = self._open[lease_id].assignment
            request = assignment.requests[index]
            self._running[self._next_request] = (lease_id, index)
            self._engine.add(
                self._next_request,
                GenerationRequest(tuple(np.asarray(request.prompt.token_ids).tolist()), request.seed),
                assignment.sampling,
            )
            self._next_request += 1

    def _end(self, request_id: int, completion: Completion) -> list[Answer]:
        lease_id, index = self._running.pop(request_id)
        opened = self._open[lease_id]
        opened.completions[index] = completion
        self.tokens += len(completion.token_ids)
        requests = opened.assignment.requests
        if len(opened.completions) < len(requests):
            return []
        del self._open[lease_id]
        completions = [opened.completions[index] for index in range(len(requests))]
        oldest = min(version for completion in completions for version in completion.versions)
        return [Answer(lease_id, oldest, assemble(requests, completions))]


def assemble(requests: Sequence[Sample], completions: Sequence[Completion]) -> Rollouts:
    """Samples and their completions as flat arrays."""
    assert len(requests) == len(completions), "every sample has one completion"
    prompts = [np.asarray(request.prompt.token_ids, dtype=np.int32) for request in requests]
    prompt_lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int32)
    response_lengths = np.array([len(completion.token_ids) for completion in completions], dtype=np.int32)
    lengths = np.stack([prompt_lengths, response_lengths], axis=1)
    loss_mask = np.repeat(np.tile([False, True], len(requests)), lengths.ravel())

    def behind_prompts(values: Iterable[Sequence[float]], dtype: type) -> np.ndarray:
        flat: np.ndarray = np.zeros(len(loss_mask), dtype=dtype)
        flat[loss_mask] = np.fromiter(chain.from_iterable(values), dtype)
        return flat

    tokens = behind_prompts((completion.token_ids for completion in completions), np.int32)
    tokens[~loss_mask] = np.concatenate([np.zeros(0, np.int32), *prompts])
    return Rollouts(
        offsets=offsets_of(lengths.sum(1)),
        tokens=tokens,
        loss_mask=loss_mask,
        engine_logprobs=behind_prompts((completion.logprobs for completion in completions), np.float32),
        versions=behind_prompts((completion.versions for completion in completions), np.int32),
        prompt_lengths=prompt_lengths,
        finished=np.array([completion.finished for completion in completions], dtype=bool),
        prompt_ids=np.array([request.prompt.id for request in requests], dtype=np.int64),
        sample_ids=np.array([request.sample_id for request in requests], dtype=np.int32),
    )
