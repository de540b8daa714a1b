"""What every text-generation engine takes and gives. Engines are plain classes; tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import Field, PositiveInt

from rayrlhf.config import Config


class Sampling(Config):
    """How responses are drawn."""

    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    top_k: int = Field(default=0, ge=0)
    """Draw from the k likeliest tokens; 0 draws from all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    max_completion_length: PositiveInt = 128
    """Tokens of a response at most, its eos included."""

    @property
    def truncates(self) -> bool:
        """Whether some tokens can not be drawn at all."""
        return self.top_k > 0 or self.top_p < 1

    @property
    def has_comparable_logprobs(self) -> bool:
        """Whether the engine's log-probabilities and the learner's at this temperature mean the same.

        The engine reports them at the sampling temperature; but with top-k or top-p before truncation and temperature,
        so that only temperature 1 compares.
        """
        if self.repetition_penalty != 1.0 or self.temperature == 0:
            return False
        return not self.truncates or self.temperature == 1.0


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt to answer."""

    token_ids: tuple[int, ...]
    seed: int


@dataclass(frozen=True)
class Completion:
    """One response."""

    token_ids: tuple[int, ...]
    """Its eos included, if it has one."""
    logprobs: tuple[float, ...]
    """log p of each token under the weights that drew it."""
    finished: bool
    """Ended with an eos, not at the length limit."""
    versions: tuple[int, ...]
    """Of the weights that drew each token; −1 are those of the folder that the engine started with."""


@dataclass(frozen=True)
class Adapters:
    """The LoRA adapters that an engine shall take in place of new weights, known before any of them exists."""

    rank: int
    alpha: float
    layers: tuple[str, ...]
    """Names of the layers that have one, as in the model's checkpoint."""


class Engine(Protocol):
    """Draws responses step by step, and takes new weights between two steps."""

    def add(self, request_id: int, request: GenerationRequest, sampling: Sampling) -> None:
        """Begin a response. Its seed alone decides what is drawn, not what runs beside it."""
        ...

    def step(self) -> list[tuple[int, Completion]]:
        """Draw one more token of every running response; those that ended with it, by request id."""
        ...

    def load_weights(self, update: dict[str, Any], version: int) -> int:
        """Replace all weights, or the adapters. `update` is what the weight transport of this engine understands.

        Running responses go on with the new weights, and nothing that the old ones computed is used again. Returns how
        many of the next steps compute the beginnings of responses anew.
        """
        ...


def generate(engine: Engine, requests: Sequence[GenerationRequest], sampling: Sampling) -> list[Completion]:
    """One response per request, in order, by an engine that does nothing else."""
    for index, request in enumerate(requests):
        engine.add(index, request, sampling)
    done: dict[int, Completion] = {}
    while len(done) < len(requests):
        done.update(engine.step())
    return [done[index] for index in range(len(requests))]
