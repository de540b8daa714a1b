"""What the tests with real processes run on."""

from pathlib import Path

import pytest

from rayrlhf.data.texts import read_texts
from rayrlhf.models.init import ModelShape, init_model_folder

SAMPLE = Path(__file__).parents[2] / "data/sample"


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model that hardly ever says that it is done: responses are as long as they may be."""
    folder = tmp_path_factory.mktemp("faults") / "model"
    shape = ModelShape(vocab_size=400, hidden_size=64, num_layers=2, num_heads=2, num_kv_heads=1, max_length=256)
    init_model_folder(folder, shape, read_texts([SAMPLE / "prompts.jsonl"]))
    return str(folder)
