"""rayrlhf: reinforcement learning from human preferences on Ray, with vLLM samplers."""

__version__ = "0.1.0"
