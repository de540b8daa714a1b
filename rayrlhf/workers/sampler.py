"""A sampler: generates the responses of its leases with an engine, and loads new weights between two engine steps."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from rayrlhf.engines.base import Completion, Engine, GenerationRequest
from rayrlhf.pool import goodput
from rayrlhf.pool.leases import Answer, Lease, OnUpdate
from rayrlhf.types import Rollouts, Sample, offsets_of


@dataclass(frozen=True)
class Weights:
    """A version that has been fetched."""

    version: int
    buckets: list[Any]


class Sampler:
    """One engine, the version of the weights in it (−1 before the first), and the leases it works on."""

    def __init__(self, engine: Engine, on_update: OnUpdate, clock: Callable[[], float] = time.monotonic) -> None:
        self.version = -1
        self.tokens = 0
        """Response tokens generated."""
        self.watch = goodput.Stopwatch(goodput.WAIT_FOR_WEIGHTS, clock())
        self._engine, self._on_update, self._clock = engine, on_update, clock
        self._offered: Weights | None = None
        self._leases: dict[int, Lease] = {}
        self._waiting: deque[tuple[int, int]] = deque()  # (lease id, index of the sample), not begun
        self._running: dict[int, tuple[int, int]] = {}  # the same by request id
        self._completions: defaultdict[int, dict[int, Completion]] = defaultdict(dict)  # by lease id and index
        self._next_request = 0
        self._redone_steps = 0

    @property
    def num_running(self) -> int:
        """Responses that the engine is generating."""
        return len(self._running)

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return bool(self._running or self._waiting or self._offered)

    def add(self, lease: Lease) -> None:
        """One more lease to answer."""
        self._leases[lease.id] = lease
        self._waiting.extend((lease.id, index) for index in range(len(lease.samples)))

    def offer(self, weights: Weights) -> None:
        """Newer weights, loaded before the next step or, with `finish`, once the running responses have ended."""
        self._offered = weights

    def step(self) -> list[Answer]:
        """Load new weights if it is time, and generate a token of every running response. Returns finished leases."""
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
        """Nothing to do until prompts or weights arrive; without weights there are no prompts either."""
        waits_for = goodput.WAIT_FOR_WEIGHTS if for_weights or self.version < 0 else goodput.WAIT_FOR_PROMPTS
        self.watch.switch(waits_for, self._clock())

    def _load(self, weights: Weights) -> None:
        self.watch.switch(goodput.LOAD_WEIGHTS, self._clock())
        self._redone_steps = self._engine.load_weights({"buckets": weights.buckets}, weights.version)
        self.version, self._offered = weights.version, None

    def _begin(self) -> None:
        while self._waiting:
            lease_id, index = self._waiting.popleft()
            lease = self._leases[lease_id]
            sample = lease.samples[index]
            self._running[self._next_request] = (lease_id, index)
            request = GenerationRequest(tuple(np.asarray(sample.prompt.token_ids).tolist()), sample.seed)
            self._engine.add(self._next_request, request, lease.sampling)
            self._next_request += 1

    def _end(self, request_id: int, completion: Completion) -> list[Answer]:
        lease_id, index = self._running.pop(request_id)
        done, samples = self._completions[lease_id], self._leases[lease_id].samples
        done[index] = completion
        self.tokens += len(completion.token_ids)
        if len(done) < len(samples):
            return []
        del self._leases[lease_id], self._completions[lease_id]
        completions = [done[index] for index in range(len(samples))]
        oldest = min(version for completion in completions for version in completion.versions)
        return [Answer(lease_id, oldest, assemble(samples, completions))]


def assemble(samples: Sequence[Sample], completions: Sequence[Completion]) -> Rollouts:
    """Samples and their completions as flat arrays."""
    assert len(samples) == len(completions), "every sample has one completion"
    prompts = [np.asarray(sample.prompt.token_ids, dtype=np.int32) for sample in samples]
    prompt_lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int32)
    response_lengths = np.array([len(completion.token_ids) for completion in completions], dtype=np.int32)
    lengths = np.stack([prompt_lengths, response_lengths], axis=1)
    loss_mask = np.repeat(np.tile([False, True], len(samples)), lengths.ravel())

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
        prompt_ids=np.array([sample.prompt.id for sample in samples], dtype=np.int64),
        sample_ids=np.array([sample.sample_id for sample in samples], dtype=np.int32),
    )
