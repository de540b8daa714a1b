"""A sampler: draws rollouts with an engine whose weights are at least of the asked version."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rayrlhf.engines.base import Completion, Engine, GenerationRequest, Sampling
from rayrlhf.types import RolloutHeader, Rollouts, SampleRequest
from rayrlhf.weights.store import Published


class WeightSource(Protocol):
    """Where a sampler finds weights."""

    def newest(self, min_version: int) -> Published:
        """The newest version, waiting for one of at least `min_version`."""
        ...


@dataclass(frozen=True)
class SamplerReport:
    """What one call took."""

    generate_s: float
    load_weights_s: float
    headers: list[RolloutHeader]

    @property
    def tokens(self) -> int:
        """Response tokens drawn."""
        return sum(header.response_length for header in self.headers)


class Sampler:
    """One engine and the version of the weights in it; −1 before the first pull."""

    def __init__(self, engine: Engine, source: WeightSource) -> None:
        self._engine = engine
        self._source = source
        self.version = -1

    def sync(self, min_version: int) -> float:
        """Pull the newest weights if the engine's are older than `min_version`. Returns the seconds it took."""
        if self.version >= min_version:
            return 0.0
        started = time.monotonic()
        published = self._source.newest(min_version)
        self._engine.load_weights({"buckets": published.buckets}, published.version)
        self.version = published.version
        return time.monotonic() - started

    def generate(
        self, requests: Sequence[SampleRequest], sampling: Sampling, min_version: int
    ) -> tuple[SamplerReport, Rollouts]:
        """One response per request, drawn with weights of at least `min_version`."""
        load_weights_s = self.sync(min_version)
        started = time.monotonic()
        completions = self._engine.generate(
            [GenerationRequest(request.prompt.token_ids, request.seed) for request in requests], sampling
        )
        rollouts = assemble(requests, completions, self.version)
        report = SamplerReport(time.monotonic() - started, load_weights_s, rollouts.headers())
        return report, rollouts


def assemble(requests: Sequence[SampleRequest], completions: Sequence[Completion], version: int) -> Rollouts:
    """Requests and their completions as padded arrays."""
    prompt_lengths = np.array([len(request.prompt.token_ids) for request in requests], dtype=np.int32)
    response_lengths = np.array([len(completion.token_ids) for completion in completions], dtype=np.int32)
    lengths = prompt_lengths + response_lengths
    tokens = np.zeros((len(requests), int(lengths.max(initial=0))), dtype=np.int32)
    logprobs = np.zeros(tokens.shape, dtype=np.float32)
    for row, (request, completion) in enumerate(zip(requests, completions, strict=True)):
        tokens[row, : prompt_lengths[row]] = request.prompt.token_ids
        tokens[row, prompt_lengths[row] : lengths[row]] = completion.token_ids
        logprobs[row, prompt_lengths[row] : lengths[row]] = completion.logprobs
    return Rollouts(
        tokens=tokens,
        prompt_lengths=prompt_lengths,
        lengths=lengths,
        engine_logprobs=logprobs,
        finished=np.array([completion.finished for completion in completions], dtype=bool),
        prompt_ids=np.array([request.prompt.id for request in requests], dtype=np.int64),
        sample_ids=np.array([request.sample_id for request in requests], dtype=np.int32),
        versions=np.full(len(requests), version, dtype=np.int64),
    )
