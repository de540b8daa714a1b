"""Models that tests with real engines make from nothing: small, and with heads that vLLM's CPU kernels take."""

from pathlib import Path
from typing import Any

from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.models.texts import read_texts

PROMPTS = Path(__file__).parents[2] / "data/sample/prompts.jsonl"


def make_model(folder: Path, **shape: Any) -> str:
    """A folder with two layers and a tokenizer of the sample's prompts; `shape` are other fields of `ModelShape`."""
    init_model_folder(folder, ModelShape(vocab_size=400, num_layers=2, **shape), read_texts([PROMPTS]))
    return str(folder)
