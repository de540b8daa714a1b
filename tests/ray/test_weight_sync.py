"""Weights reach vLLM through the object store, and both sides then give the same tokens the same probability."""

from pathlib import Path
from typing import Any

import pytest
import ray

from rayrlhf.data.texts import read_texts
from rayrlhf.models.init import ModelShape, init_model_folder

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_cluster")]

TEXT = Path(__file__).parents[2] / "data/sample/prompts.jsonl"


@ray.remote(num_cpus=1)
def logprob_gaps(folder: str) -> dict[str, float]:
    """The largest gap before the new weights are sent, after it, and after a second version of them."""
    import os

    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    import numpy as np
    import torch

    from rayrlhf.engines import Sampling, VllmEngineConfig
    from rayrlhf.models import Policy
    from rayrlhf.types import Prompt, SampleRequest
    from rayrlhf.weights.buckets import pack
    from rayrlhf.weights.store import Published
    from rayrlhf.workers.credit import logprob_gap
    from rayrlhf.workers.parallel import Ranks
    from rayrlhf.workers.sampler import Sampler
    from rayrlhf.workers.scoring import row_tensors

    sampling = Sampling(max_completion_length=12)
    policy = Policy.load(folder).eval()
    source: dict[int, Published] = {}

    class Source:
        def newest(self, min_version: int) -> Published:
            return source[max(source)]

    def publish(version: int) -> None:
        source[version] = Published(version, [ray.put(bucket) for bucket in pack(policy.weights())])

    engine = VllmEngineConfig(kv_cache_gib=0.1).start(folder, 64, sampling, eos_token_id=0)
    sampler = Sampler(engine, Source())
    requests = [SampleRequest(Prompt(i, tuple(range(5 + i, 15 + 2 * i))), 0, seed=i) for i in range(6)]

    def gap(min_version: int) -> float:
        _, rollouts = sampler.generate(requests, sampling, min_version)
        assert set(rollouts.versions) == {sampler.version}
        tokens, mask, _ = row_tensors(rollouts, np.arange(len(rollouts)), Ranks().device)
        with torch.no_grad():
            logprobs = policy(tokens, mask).logprobs.numpy()
        return logprob_gap(rollouts, logprobs)["engine/logprob_gap_max"]

    def perturb() -> None:
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))

    torch.manual_seed(0)
    publish(0)
    gaps = {"start": gap(0)}
    perturb()
    gaps["stale"] = gap(0)
    publish(1)
    gaps["synced"] = gap(1)
    perturb()
    publish(2)
    gaps["synced again"] = gap(2)
    return gaps


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_sampler_and_learner_agree_after_every_sync(architecture: Any, tied: bool, tmp_path: Path) -> None:
    shape = ModelShape(
        architecture=architecture,
        vocab_size=400,
        hidden_size=128,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=128,
        max_length=128,
        tie_embeddings=tied,
    )
    init_model_folder(tmp_path / "model", shape, read_texts([TEXT]))
    gaps = ray.get(logprob_gaps.remote(str(tmp_path / "model")), timeout=200)
    assert gaps["start"] <= 1e-4
    assert gaps["stale"] > 1e-2  # the check can tell stale weights from fresh ones
    assert gaps["synced"] <= 1e-4
    assert gaps["synced again"] <= 1e-4
