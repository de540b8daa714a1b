"""Weights reach vLLM through the object store, and both sides then give the same tokens the same probability."""

from pathlib import Path
from typing import Any

import pytest
import ray
from made_models import make_model

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_cluster")]


@ray.remote(num_cpus=1)
def logprob_gaps(folder: str, lora: dict[str, Any] | None = None) -> dict[str, float]:
    """The largest gap before the new weights are sent, after it, and after a second version of them.

    With `lora` adapters are sent in place of weights. "cached again" are the prompt tokens whose keys and values the
    engine had when it sampled with the same version once more, "cached anew" with the next one.
    """
    import math
    import os

    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    import numpy as np
    import torch

    from rayrlhf.engines import Adapters, EngineInputs, Sampling, VllmEngineConfig
    from rayrlhf.models import LoraConfig, Policy
    from rayrlhf.models.lora import add_adapters, target_names
    from rayrlhf.pool.leases import Lease
    from rayrlhf.training.forward import row_tensors
    from rayrlhf.training.parallel import Ranks
    from rayrlhf.types import Prompt, Sample
    from rayrlhf.weights.buckets import pack
    from rayrlhf.workers.credit import logprob_gap
    from rayrlhf.workers.sampler import Sampler, Weights

    sampling = Sampling(max_completion_length=12)
    policy = Policy.load(folder)
    adapters = None
    if lora is not None:
        settings = LoraConfig(**lora)
        adapters = Adapters(settings.rank, settings.alpha, tuple(target_names(policy.model, settings)))
        add_adapters(policy.model, settings)
    policy.eval()
    engine = VllmEngineConfig(kv_cache_gib=0.1).start(EngineInputs(folder, 320, sampling, 0, adapters))
    cached: list[int] = []
    totals: list[int] = []
    step = engine._engine.step

    def counting() -> Any:
        outputs = step()
        cached.extend(output.num_cached_tokens for output in outputs)
        return outputs

    engine._engine.step = counting
    sampler = Sampler(engine, "continue")
    # Longer than two blocks of the key-value cache, so that there is something to share.
    requests = [Sample(Prompt(i, tuple(range(5 + i, 285 + 2 * i))), 0, seed=i) for i in range(6)]

    def publish(version: int) -> None:
        references = [ray.put(bucket) for bucket in pack(policy.weights() if adapters is None else policy.adapters())]
        sampler.offer(Weights(version, ray.get(references)))

    def gap(version: int, num_steps_before: int = 0, then: Any = None) -> float:
        """Of tokens that `version` sampled; `then` is called after so many steps."""
        sampler.add(Lease(0, 0, tuple(requests), sampling, min_version=0, deadline=math.inf))
        for _ in range(num_steps_before):
            assert not sampler.step()
        if then is not None:
            then()
        while not (answers := sampler.step()):
            pass
        totals.append(sum(cached))
        cached.clear()
        rollouts = answers[0].rollouts
        assert answers[0].oldest_version == (sampler.version if then is None else version - 1)
        tokens, mask, _ = row_tensors(rollouts, np.arange(len(rollouts)), Ranks().device)
        with torch.no_grad():
            logprobs = policy(tokens, mask).logprobs.numpy()
        flat = logprobs[np.arange(logprobs.shape[1]) < rollouts.lengths[:, None]]  # [B, T] without padding: [N]
        return logprob_gap(rollouts, flat, version)["engine/logprob_gap_max"]

    def perturb() -> None:
        with torch.no_grad():
            for parameter in policy.parameters():
                if parameter.requires_grad:
                    parameter.add_(0.05 * torch.randn_like(parameter))

    torch.manual_seed(0)
    publish(0)
    gaps = {"start": gap(0)}
    perturb()
    gaps["stale"] = gap(0)
    publish(1)
    gaps["synced"] = gap(1)
    gap(1)
    perturb()
    publish(2)
    gaps["synced again"] = gap(2)

    def change() -> None:
        perturb()
        publish(3)

    caches = {"cached again": totals[-2], "cached anew": totals[-1]}
    gaps["in mid-response"] = gap(3, num_steps_before=5, then=change)
    return gaps | caches


def sized_model(folder: Path, architecture: Any, tied: bool) -> str:
    return make_model(
        folder,
        architecture=architecture,
        hidden_size=128,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=128,
        max_length=512,
        tie_embeddings=tied,
    )


def assert_in_step(gaps: dict[str, float]) -> None:
    assert gaps["start"] <= 1e-4
    assert gaps["stale"] > 1e-2  # the check can tell stale weights from fresh ones
    assert gaps["synced"] <= 1e-4
    assert gaps["synced again"] <= 1e-4
    assert gaps["in mid-response"] <= 1e-4  # what the old weights computed of the prompt is not used again
    assert gaps["cached again"] > 0
    assert gaps["cached anew"] == 0  # keys and values of the last version are never used with the next


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_sampler_and_learner_agree_after_every_sync(architecture: Any, tied: bool, tmp_path: Path) -> None:
    folder = sized_model(tmp_path / "model", architecture, tied)
    assert_in_step(ray.get(logprob_gaps.remote(folder), timeout=600))


@pytest.mark.parametrize(
    ("architecture", "tied", "lora"),
    [
        ("qwen2", True, {"rank": 2, "alpha": 8.0}),
        ("llama", False, {"rank": 9, "alpha": 6.5, "target_modules": ["q_proj", "up_proj", "down_proj"]}),
    ],
)
def test_a_sampler_that_gets_adapters_alone_agrees_after_every_sync(
    architecture: Any, tied: bool, lora: dict[str, Any], tmp_path: Path
) -> None:
    folder = sized_model(tmp_path / "model", architecture, tied)
    assert_in_step(ray.get(logprob_gaps.remote(folder, lora), timeout=600))
