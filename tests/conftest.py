"""What tests share: two tiny models with their tokenizer, made once a session, and rollouts to feed them."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Before torch is imported: as many of these processes run side by side as there are cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's workers are as important as the tests beside them: by default they would wait for these.
os.environ.setdefault("RAY_worker_niceness", "0")

settings.register_profile("unit", derandomize=True, max_examples=25, deadline=None, database=None)
settings.load_profile("unit")

TEXTS = (
    "안녕하세요. 오늘은 날씨가 참 좋습니다.",
    "불고기용 고기는 한우가 좋나요?",
    "네, 한우도 좋고 호주산도 좋습니다. 천천히 골라 보세요.",
    "그래, 알아서 해.",
    "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.",
    "Could you tell me when the train to Busan leaves?",
    "Certainly. The next train leaves at nine in the morning.",
    "No idea. Look it up.",
)


OTHERS = "unit"
ORDER = ("e2e", OTHERS, "faults", "ray")
"""Markers by what is begun first. The demo takes minutes, and its learners wait for each other: it runs beside tests of
a single process. Clusters keep every core busy: as few as can be run side by side."""
LONG_FILES = ("test_ppo.py", "test_running_jobs.py", "test_train.py")
"""Of `ray`, the files that are begun first: the last ones should be short."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests as ORDER and LONG_FILES say; the others keep their order."""

    def rank(item: pytest.Item) -> tuple[int, int]:
        names = {mark.name for mark in item.iter_markers()}
        marker = next((name for name in reversed(ORDER) if name in names), OTHERS)
        place = LONG_FILES.index(item.path.name) if item.path.name in LONG_FILES else len(LONG_FILES)
        return ORDER.index(marker), place if marker == "ray" else 0

    items.sort(key=rank)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Which tests one process of `pytest -n` runs: those of a file, which share its fixtures, and all of `e2e`,
    which share the demo's run. Seeds of the simulation share nothing. Whoever is done takes the next ones, in order."""
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0]
            if file == "tests/faults/test_simulation_pool.py":
                return nodeid
            return "tests/e2e" if file.startswith("tests/e2e/") else file

    config.option.loadscopereorder = False
    return Sharing(config, log)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tokens that tests and their jobs keep do not go to the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYRLHF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a two-layer Qwen2 with tied embeddings, and its tokenizer."""
    return _make_folder(tmp_path_factory.mktemp("models") / "qwen2", "qwen2", tied=True)


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a two-layer Llama with untied embeddings, and its tokenizer."""
    return _make_folder(tmp_path_factory.mktemp("models") / "llama", "llama", tied=False)


@pytest.fixture(scope="session", params=["qwen2", "llama"])
def tiny_model(request: pytest.FixtureRequest) -> str:
    """Each of the two models in turn."""
    folder: str = request.getfixturevalue(f"tiny_{request.param}")
    return folder


@pytest.fixture(scope="session")
def tokenizer(tiny_qwen2: str) -> Any:
    from rayrlhf.models import load_tokenizer

    return load_tokenizer(tiny_qwen2)


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[None]:
    """`rayrlhf up` with four logical cores, this process connected to it, `rayrlhf down` at the end."""
    import ray

    from rayrlhf.cluster import local

    with (
        tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAYRLHF_STATE", f"{folder}/cluster.json")
        patch.setenv("RAY_AUTH_TOKEN", "a" * 32)
        patch.setenv("RAYRLHF_RUNS", f"{folder}/runs")
        patch.delenv("RAY_ADDRESS", raising=False)
        # Workers find what a test adds to rayrlhf, such as a role of its own.
        helpers = str(Path(__file__).parent / "helpers")
        patch.setenv("PYTHONPATH", os.pathsep.join([helpers, *filter(None, [os.environ.get("PYTHONPATH")])]))
        try:
            _start_cluster(Path(folder) / "ray")
        except local.ClusterError:  # another process took a port between its choice and its use
            _start_cluster(Path(folder) / "again")
        try:
            local.connect()
            yield
        finally:
            ray.shutdown()
            local.down()
            os.environ.pop("RAY_AUTH_MODE", None)


@pytest.fixture(scope="session")
def make_rollouts() -> Callable[..., Any]:
    """`make_rollouts([(3, 2), (1, 4)])`: random rollouts with these (prompt, response) lengths."""
    from rayrlhf.types import Rollouts, offsets_of

    def make(
        lengths: Sequence[tuple[int, int]],
        seed: int = 0,
        finished: Sequence[bool] | None = None,
        prompt_ids: Sequence[int] | None = None,
        vocabulary: int = 200,
    ) -> Rollouts:
        rng = np.random.default_rng(seed)
        tokens, logprobs, loss_mask = [], [], []
        for prompt, response in lengths:
            tokens.append(rng.integers(4, vocabulary, prompt + response))
            logprobs.append(np.r_[np.zeros(prompt), -rng.random(response)])
            loss_mask.append(np.arange(prompt + response) >= prompt)
        return Rollouts(
            offsets=offsets_of([sum(pair) for pair in lengths]),
            tokens=np.concatenate(tokens).astype(np.int32),
            loss_mask=np.concatenate(loss_mask),
            engine_logprobs=np.concatenate(logprobs).astype(np.float32),
            versions=np.zeros(sum(map(sum, lengths)), dtype=np.int32),
            prompt_lengths=np.array([prompt for prompt, _ in lengths], dtype=np.int32),
            finished=np.array([True] * len(lengths) if finished is None else finished, dtype=bool),
            prompt_ids=np.array(range(len(lengths)) if prompt_ids is None else prompt_ids, dtype=np.int64),
            sample_ids=np.zeros(len(lengths), dtype=np.int32),
        )

    return make


def _start_cluster(temp_dir: Path) -> None:
    from rayrlhf.cluster import local

    # Other processes may keep the cores busy.
    local.up(port=local.free_port(), dashboard_port=local.free_port(), num_cpus=4, temp_dir=temp_dir, timeout_s=120)


def _make_folder(out: Path, architecture: Any, tied: bool) -> str:
    import torch

    from rayrlhf.models.init import ModelShape, init_model_folder

    torch.set_num_threads(1)
    shape = ModelShape(
        architecture=architecture,
        vocab_size=320,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=64,
        max_length=128,
        tie_embeddings=tied,
    )
    init_model_folder(out, shape, TEXTS)
    return str(out)
