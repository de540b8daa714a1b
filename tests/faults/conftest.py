"""What the tests with real processes run on."""

import pytest
from made_models import make_model


@pytest.fixture(scope="package")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model that hardly ever says that it is done: responses are as long as they may be."""
    folder = tmp_path_factory.mktemp("faults") / "model"
    return make_model(folder, hidden_size=64, num_heads=2, num_kv_heads=1, max_length=256)
