"""Text-generation engines, one module or package each.

prompts as token ids ──► `Engine.add` ──► `Engine.step`, a token of every response at a time ──► `Completion`
buckets of a weight version ──► `Engine.load_weights`, between two steps

All that the rest of the program knows of an engine is its settings' base, `EngineSettings`, and the protocol `Engine`.
"""

from typing import Annotated

from rayrlhf.config import short_form
from rayrlhf.engines.base import (
    Adapters,
    Completion,
    Engine,
    EngineInputs,
    EngineSettings,
    GenerationRequest,
    Sampling,
    generate,
)
from rayrlhf.engines.vllm.config import VllmEngineConfig

EngineConfig = Annotated[VllmEngineConfig, short_form(kind="vllm")]
"""`vllm` is short for `{kind: vllm}`, and the default kind. Pydantic wants two members in a discriminated union: the
second engine makes the first argument `Annotated[VllmEngineConfig | Second, Field(discriminator="kind")]`."""
DefaultEngine = VllmEngineConfig

__all__ = [
    "Adapters",
    "Completion",
    "DefaultEngine",
    "Engine",
    "EngineConfig",
    "EngineInputs",
    "EngineSettings",
    "GenerationRequest",
    "Sampling",
    "VllmEngineConfig",
    "generate",
]
