"""Models that tests with real engines make from nothing: small, and with heads that vLLM's CPU kernels take."""

from pathlib import Path
from typing import Any

import torch

from rayrlhf.models import ScalarModel, load_tokenizer
from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.models.texts import read_texts

PROMPTS = Path(__file__).parents[2] / "data/sample/prompts.jsonl"


def make_model(folder: Path, **shape: Any) -> str:
    """A folder with two layers and a tokenizer of the sample's prompts; `shape` are other fields of `ModelShape`."""
    init_model_folder(folder, ModelShape(vocab_size=400, num_layers=2, **shape), read_texts([PROMPTS]))
    return str(folder)


def make_reward_model(folder: Path, model: str) -> str:
    """A folder with the weights of `model` under a scalar head that was drawn, not trained, and its tokenizer."""
    scalar = ScalarModel.load(model)
    torch.nn.init.normal_(scalar.model.score.weight, generator=torch.Generator().manual_seed(0))
    scalar.save(folder, load_tokenizer(model))
    return str(folder)
