"""What every text-generation engine takes and gives, and what its settings say of it to the rest of the program.

Engines are plain classes; tokens in, tokens out.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from pydantic import Field, PositiveInt

from rayrlhf.config import Config

if TYPE_CHECKING:
    import torch


class Sampling(Config):
    """How responses are sampled."""

    temperature: float = Field(default=1.0, ge=0)
    """0 is greedy."""
    top_k: int = Field(default=0, ge=0)
    """Sample from the k likeliest tokens; 0 is all."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    repetition_penalty: float = Field(default=1.0, gt=0)
    max_completion_length: PositiveInt = 128
    """Tokens of a response at most, its eos included."""

    @property
    def truncates(self) -> bool:
        """Whether some tokens cannot be sampled at all."""
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
    """log p of each token under the weights that sampled it."""
    finished: bool
    """Ended with an eos, not at the length limit."""
    versions: tuple[int, ...]
    """Of the weights that sampled each token; −1 are those of the folder that the engine started with."""


@dataclass(frozen=True)
class Adapters:
    """The LoRA adapters that an engine is to take in place of new weights, known before any of them exists."""

    rank: int
    alpha: float
    layers: tuple[str, ...]
    """Names of the layers that have one, as in the model's checkpoint."""


@dataclass(frozen=True)
class EngineInputs:
    """What an engine is started with."""

    model: str
    """Folder."""
    max_model_len: int
    """Prompt + response, in tokens."""
    sampling: Sampling
    eos_token_id: int
    adapters: Adapters | None = None
    """With these the engine keeps the model's weights, and `load_weights` takes adapters."""
    transport: str = "object_store"
    """Kind of the `WeightTransport` whose buckets `load_weights` gets."""
    float32_head: bool = False
    """Compute logits in float32, whatever the rest is computed in."""


class EngineSettings(Config):
    """Base of every engine's settings: all that code outside `rayrlhf.engines` may ask of an engine before it runs.

    `on_gpu` is whether the processes that run the engine have a GPU.
    """

    kind: str

    @classmethod
    @abstractmethod
    def of(cls, num_slots: int, dtype: Literal["auto", "float32", "bfloat16"]) -> Self:
        """Settings that say no more than how many responses run at once and in which dtype; the rest is default."""

    @property
    @abstractmethod
    def num_slots(self) -> int:
        """Responses that one engine generates at the same time; the pool leases it a little more than that."""

    @property
    @abstractmethod
    def memory_bytes(self) -> int:
        """What one engine needs beside the weights, for the memory estimate."""

    @abstractmethod
    def wire_dtype(self, on_gpu: bool) -> torch.dtype | None:
        """What weights are cast to before they travel to the engine: what it keeps. None leaves the learner's."""

    @abstractmethod
    def samples_exactly(self, on_gpu: bool) -> bool:
        """Whether its log-probabilities agree with a float32 learner's to 1e-4 nats."""

    def environment(self) -> dict[str, str]:
        """Variables that must be set when the engine's process starts."""
        return {}

    @abstractmethod
    def check(self, model_config: Any, on_gpu: bool, adapters: Adapters | None = None) -> None:
        """Raises ConfigError, with the fix, if the engine cannot compute a model of this Hugging Face configuration, or
        cannot take its `adapters`. Called before anything starts; it loads no weights."""

    @abstractmethod
    def start(self, inputs: EngineInputs) -> Engine:
        """A new engine in this process, its weights loaded. ConfigError if a layer of the adapters can have none."""


class Engine(Protocol):
    """Generates responses step by step, and takes new weights between two steps."""

    def add(self, request_id: int, request: GenerationRequest, sampling: Sampling) -> None:
        """Begin a response. Its seed alone decides what is sampled, not what runs beside it."""
        ...

    def step(self) -> list[tuple[int, Completion]]:
        """Sample one more token of every running response; those that ended with it, by request id."""
        ...

    def load_weights(self, update: dict[str, Any], version: int) -> int:
        """Replace all weights, or the adapters.

        update: what the receiver of the weight transport understands; `buckets`, a list, for `object_store`.
        Running responses go on with the new weights, and nothing that the old ones computed is used again. Returns how
        many of the next steps compute the beginnings of responses again.
        """
        ...

    def stream(self, request: GenerationRequest, sampling: Sampling) -> Iterator[tuple[int, ...]]:
        """The tokens of one response so far, after every step, by an engine that does nothing else.

        Closing the iterator ends the response.
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
