"""vLLM's engine on this machine's CPU."""

from pathlib import Path

import pytest
import ray
from made_models import make_model

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("local_cluster")]

NUM_PROMPTS, PROMPT_LENGTH = 70, 60
"""More tokens together than the 4,096 that vLLM reads at once on a CPU."""


@ray.remote(num_cpus=1)
def responses(folder: str, groups: list[range]) -> tuple[list[list[tuple[int, ...]]], list[tuple[int, ...]]]:
    """What is answered to the prompts of each group, asked together: prompt i has seed i. Then prompt 0's answer as it
    is streamed, once one that was streamed before has been closed after its first token."""
    import os

    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    import numpy as np

    from rayrlhf.engines import GenerationRequest, Sampling, VllmEngineConfig, generate

    sampling = Sampling(max_completion_length=4)
    config = VllmEngineConfig(kv_cache_gib=0.2, max_num_seqs=128)
    engine = config.start(folder, PROMPT_LENGTH + 4, sampling, eos_token_id=0)
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
    folder = make_model(
        tmp_path / "model",
        architecture="llama",
        hidden_size=128,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=128,
        max_length=128,
        tie_embeddings=True,
    )
    halves = [range(NUM_PROMPTS // 2), range(NUM_PROMPTS // 2, NUM_PROMPTS)]
    (first, second, together), streamed = ray.get(responses.remote(folder, [*halves, range(NUM_PROMPTS)]), timeout=600)
    assert NUM_PROMPTS * PROMPT_LENGTH > 4096 > NUM_PROMPTS // 2 * PROMPT_LENGTH
    assert together == [*first, *second]
    assert streamed == [first[0][:count] for count in range(1, len(first[0]) + 1)]
