"""vLLM's engine on this machine's CPU."""

from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from made_models import make_model

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_cluster")]

NUM_PROMPTS, PROMPT_LENGTH = 70, 60
"""More tokens together than the 4,096 that vLLM reads at once on a CPU."""
SHAPE: dict[str, Any] = {
    "architecture": "llama",
    "hidden_size": 128,
    "num_heads": 4,
    "num_kv_heads": 2,
    "intermediate_size": 128,
    "max_length": 128,
    "tie_embeddings": True,
}


@ray.remote(num_cpus=1)
def responses(folder: str, groups: list[range]) -> tuple[list[list[tuple[int, ...]]], list[tuple[int, ...]]]:
    """What is answered to the prompts of each group, asked together: prompt i has seed i. Then prompt 0's answer as it
    is streamed, once one that was streamed before has been closed after its first token."""
    import os

    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    import numpy as np

    from rayrlhf.engines import EngineInputs, GenerationRequest, Sampling, VllmEngineConfig, generate

    sampling = Sampling(max_completion_length=4)
    config = VllmEngineConfig(kv_cache_gib=0.2, max_num_seqs=128)
    engine = config.start(EngineInputs(folder, PROMPT_LENGTH + 4, sampling, 0))
    prompts = np.random.default_rng(0).integers(4, 400, (NUM_PROMPTS, PROMPT_LENGTH)).tolist()
    requests = [GenerationRequest(tuple(prompt), seed) for seed, prompt in enumerate(prompts)]
    answers = [
        [each.token_ids for each in generate(engine, [requests[i] for i in group], sampling)] for group in groups
    ]
    stopped = engine.stream(requests[1], sampling)
    next(stopped)
    stopped.close()
    return answers, list(engine.stream(requests[0], sampling))


def test_more_prompts_than_the_engine_reads_at_once_are_answered_as_few_are(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", **SHAPE)
    halves = [range(NUM_PROMPTS // 2), range(NUM_PROMPTS // 2, NUM_PROMPTS)]
    (first, second, together), streamed = ray.get(responses.remote(folder, [*halves, range(NUM_PROMPTS)]), timeout=600)
    assert NUM_PROMPTS * PROMPT_LENGTH > 4096 > NUM_PROMPTS // 2 * PROMPT_LENGTH
    assert together == [*first, *second]
    assert streamed == [first[0][:count] for count in range(1, len(first[0]) + 1)]


@ray.remote(num_cpus=1)
def bfloat16_gaps(folder: str) -> dict[bool, float]:
    """Mean |log π_engine − log π_learner| of responses by an engine with a float32 head, against a learner with and
    without one; all else of both is in bfloat16."""
    import os

    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    import numpy as np

    from rayrlhf.engines import EngineInputs, GenerationRequest, Sampling, VllmEngineConfig, generate
    from rayrlhf.models import Policy

    sampling = Sampling(max_completion_length=24)
    config = VllmEngineConfig(kv_cache_gib=0.1, dtype="bfloat16")
    engine = config.start(EngineInputs(folder, 64, sampling, 0, float32_head=True))
    prompts = np.random.default_rng(0).integers(4, 400, (32, 16)).tolist()
    requests = [GenerationRequest(tuple(prompt), seed) for seed, prompt in enumerate(prompts)]
    answers = generate(engine, requests, sampling)

    def gap(float32_head: bool) -> float:
        policy = Policy.load(folder, torch.bfloat16, float32_head=float32_head).eval()
        gaps = []
        for prompt, answer in zip(prompts, answers, strict=True):
            tokens = torch.tensor([[*prompt, *answer.token_ids]])
            with torch.no_grad():
                logprobs = policy(tokens, torch.arange(tokens.shape[1]).unsqueeze(0) >= 16).logprobs[0, 16:]
            gaps.append(np.abs(logprobs.numpy() - answer.logprobs))
        return float(np.concatenate(gaps).mean())

    return {float32_head: gap(float32_head) for float32_head in (True, False)}


def test_a_float32_head_on_both_sides_brings_engine_and_learner_nearer_in_bfloat16(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = make_model(tmp_path / "model", **SHAPE | {"tie_embeddings": False})
    model = AutoModelForCausalLM.from_pretrained(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # logits of several nats, as trained models have
        model.lm_head.weight.copy_(0.3 * torch.randn(model.lm_head.weight.shape, generator=generator))
    model.save_pretrained(folder)
    gaps = ray.get(bfloat16_gaps.remote(folder), timeout=600)
    assert gaps[True] < 0.9 * gaps[False], gaps
