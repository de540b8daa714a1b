"""A model whose configuration has dropout (GPT-2's is 0.1): no ratio and no margin comes from it."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rayrlhf.algorithms import GRPO, PPO, ScoredRollouts
from rayrlhf.algorithms.preference import DPO
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.models import LoraConfig
from rayrlhf.training.dpo import DPOWorker
from rayrlhf.training.model_trainer import SupervisedTraining, TrainingConfig
from rayrlhf.training.offline_worker import seed_step
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.sft import SFTWorker
from rayrlhf.types import RowShare
from rayrlhf.workers.learner import CriticLearner, PolicyLearner

TINY_STEP = AdamW(learning_rate=1e-12)
RNG = np.random.default_rng(0)
ANSWERS = [
    Sequences.build([(RNG.integers(4, 200, 8).tolist(), RNG.integers(4, 200, 30).tolist()) for _ in range(16)])
    for _ in range(2)
]


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory, tiny_qwen2) -> str:
    """A folder with Hugging Face's default rates."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder: Path = tmp_path_factory.mktemp("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2, eos_token_id=0)
    assert config.resid_pdrop == config.attn_pdrop == config.embd_pdrop == 0.1
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)  # so that a dropped unit shows
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_the_first_minibatch_has_ratios_of_one(gpt2, make_rollouts):
    rollouts = make_rollouts([(8, 30)] * 16, prompt_ids=np.repeat(np.arange(4), 4).tolist())
    algorithm = GRPO(kl_coef=0.0)
    learner = PolicyLearner(gpt2, TrainingConfig(optimizer=TINY_STEP), algorithm, 10, Ranks())
    old = rollouts.padded(RowShare.merge([learner.logprobs(rollouts, 1.0)], 16))
    scores = np.random.default_rng(0).normal(size=16).astype(np.float32)
    batch, _ = algorithm.assign_credit(ScoredRollouts(rollouts, scores, old, 30), 0.0)
    report = learner.update(batch, np.arange(16), 1.0)
    assert report.partial["policy/clip_share"] == 0.0
    assert report.partial["policy/approx_kl"] < 1e-10


def test_the_critic_learns_the_values_it_gave(gpt2, make_rollouts):
    learner = CriticLearner(gpt2, TrainingConfig(optimizer=TINY_STEP), GRPO(), 10, False, Ranks())
    torch.nn.init.normal_(learner.trainer.inner.model.score.weight)
    rollouts = make_rollouts([(8, 30)] * 4)
    learner.trainer.module.train()
    tokens = torch.from_numpy(rollouts.padded(rollouts.tokens).astype(np.int64))
    in_training = learner.trainer.module(tokens)
    torch.testing.assert_close(in_training, learner.trainer.module.eval()(tokens), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [{}, {"parameters": "bfloat16", "lora": LoraConfig(rank=4)}, {"precision": "bfloat16"}],
    ids=["float32", "bfloat16 parameters", "bfloat16 autocast"],
)
def test_dpo_begins_where_its_reference_is(gpt2, tokenizer, settings):
    pairs = (ANSWERS[0], ANSWERS[1])
    config = TrainingConfig(optimizer=TINY_STEP, **settings)
    worker = DPOWorker(gpt2, gpt2, tokenizer, config, DPO(), pairs, pairs, 5, Ranks())
    metrics = worker.train_step(np.arange(16))
    assert metrics["dpo/loss"] == pytest.approx(np.log(2), abs=1e-5)
    assert metrics["dpo/margin_mean"] == pytest.approx(0.0, abs=1e-4)


def test_sft_drops_units_only_if_it_is_asked_to(gpt2, tokenizer):
    def loss(dropout: bool, seed: int) -> float:
        config = SupervisedTraining(optimizer=TINY_STEP, dropout=dropout)
        worker = SFTWorker(gpt2, tokenizer, config, ANSWERS[0], ANSWERS[0], 5, Ranks())
        seed_step(seed, 0, 0)
        return worker.train_step(np.arange(16))["sft/loss"]

    assert loss(False, 0) == loss(False, 1)
    assert loss(True, 0) != loss(True, 1)
    assert loss(True, 0) == loss(True, 0) != loss(False, 0)


@pytest.mark.parametrize("role", ["policy", "critic"])
def test_what_adapters_drop_in_a_step_comes_from_its_seed_alone(gpt2, make_rollouts, role):
    rollouts = make_rollouts([(8, 30)] * 4, prompt_ids=[0, 0, 1, 1])
    zeros = np.zeros((4, 38), np.float32)
    scored = ScoredRollouts(
        rollouts, np.array([1, 2, 3, 4], np.float32), zeros - 5, 30, values=np.zeros((4, 39), np.float32)
    )
    algorithm = PPO(kl_coef=0.0)
    batch, _ = algorithm.assign_credit(scored, 0.0)
    config = TrainingConfig(optimizer=TINY_STEP, lora=LoraConfig(rank=4, dropout=0.5))

    def gradient(seed: tuple[int, ...], before: int = 0) -> float:
        torch.manual_seed(0)
        if role == "policy":
            learner = PolicyLearner(gpt2, config, algorithm, 10, Ranks())
        else:
            learner = CriticLearner(gpt2, config, algorithm, 10, False, Ranks())
            torch.nn.init.normal_(learner.trainer.inner.model.score.weight)
        torch.rand(before)  # whatever else took random numbers in this process
        given = {"temperature": 1.0} if role == "policy" else {}
        report = learner.update(batch, np.arange(4), **given, seed=seed)
        return report.shared["policy/grad_norm" if role == "policy" else "value/grad_norm"]

    one = gradient((7, 0, 0, 1))
    assert gradient((7, 0, 0, 1), before=5) == one
    assert gradient((8, 0, 0, 1)) != one != gradient((7, 0, 0, 2))
