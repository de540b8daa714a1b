"""Text-generation engines, one module each."""

from rayrlhf.engines.base import Adapters, Completion, Engine, GenerationRequest, Sampling, generate
from rayrlhf.engines.vllm.engine import VllmEngineConfig

EngineConfig = VllmEngineConfig
"""The union of engine settings; a second engine makes it `Annotated[A | B, Field(discriminator="kind")]`."""

__all__ = [
    "Adapters",
    "Completion",
    "Engine",
    "EngineConfig",
    "GenerationRequest",
    "Sampling",
    "VllmEngineConfig",
    "generate",
]
