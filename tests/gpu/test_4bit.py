"""Adapters on weights in 4 bits, with the real bitsandbytes on a GPU."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from padded_arrays import in_order, mask_of, tokens_of

from rayrlhf.algorithms import PPO, ScoredRollouts
from rayrlhf.models import LoraConfig, Policy, load_tokenizer
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks
from rayrlhf.workers.learner import CriticLearner, PolicyLearner

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]
pytest.importorskip("bitsandbytes")

LENGTHS = [(3, 4), (2, 7), (5, 1), (1, 3)]
ALL = np.arange(len(LENGTHS))
CONFIG = TrainingConfig(lora=LoraConfig(rank=4, alpha=8.0, load_in_4bit=True), optimizer=AdamW(learning_rate=1e-2))


@pytest.fixture
def batch(make_rollouts: Any) -> Any:
    rollouts = make_rollouts(LENGTHS)
    rng = np.random.default_rng(0)
    old = np.where(mask_of(rollouts), rng.normal(-5, 0.3, mask_of(rollouts).shape), 0).astype(np.float32)
    values = rng.normal(size=(old.shape[0], old.shape[1] + 1)).astype(np.float32)
    scores = np.array([2.0, -1.0, 1.0, -2.0], dtype=np.float32)
    return PPO().assign_credit(ScoredRollouts(rollouts, scores, old, 8, old, values), kl_coef=0.1)[0]


def logprobs_of(policy: Policy, batch: Any) -> np.ndarray:
    tokens = torch.from_numpy(tokens_of(batch.rollouts)).cuda()
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.bfloat16):
        return policy.cuda().eval()(tokens, torch.from_numpy(mask_of(batch.rollouts)).cuda()).logprobs.cpu().numpy()


def test_a_policy_in_4_bits_learns_and_what_it_exports_and_saves_computes_the_same(
    tiny_model: str, batch: Any, tmp_path: Path
) -> None:
    learner = PolicyLearner(tiny_model, CONFIG, PPO(), 50, Ranks())
    assert sum(type(p).__name__ == "Params4bit" for p in learner.trainer.inner.parameters()) == 14
    before = {name: tensor.clone() for name, tensor in learner.trainer.inner.weights()}
    for _ in range(3):
        learner.update(batch, ALL, 1.0)
    wanted = in_order(learner.logprobs(batch.rollouts, 1.0))
    exported = {name: tensor for bucket in learner.export(None) for name, tensor in bucket.tensors()}
    assert any((exported[name] != tensor.cpu()).any() for name, tensor in before.items())
    plain = Policy.load(tiny_model)
    plain.model.load_state_dict(exported)
    np.testing.assert_allclose(logprobs_of(plain, batch), wanted, atol=0.05)  # both compute in bfloat16
    learner.save(str(tmp_path))
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    np.testing.assert_allclose(logprobs_of(Policy.load(str(tmp_path)), batch), wanted, atol=0.05)
    load_tokenizer(str(tmp_path))


def test_a_critic_in_4_bits_keeps_its_head_whole_and_learns(tiny_qwen2: str, batch: Any) -> None:
    learner = CriticLearner(tiny_qwen2, CONFIG, PPO(cliprange_value=100.0), 50, True, Ranks())
    assert learner.trainer.inner.model.score.weight.dtype == torch.float32
    losses = [learner.update(batch, ALL).partial["value/loss"] for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
