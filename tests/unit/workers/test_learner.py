"""Policy and critic learners on one rank, and the frozen scorers beside them."""

import dataclasses
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from padded_arrays import in_order, mask_of, tokens_of

from rayrlhf.algorithms import PPO, Algorithm, ScoredRollouts
from rayrlhf.algorithms.base import Credit
from rayrlhf.algorithms.policy_loss import Loss, TokenTensors
from rayrlhf.functional import masked_sum, returns_to_go
from rayrlhf.models import Policy, RewardStatistics, ScalarModel
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.roles import RoleInputs, roles_of
from rayrlhf.ppo.roles.critic import CRITIC
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks
from rayrlhf.types import Rollouts, RowShare, StepSize
from rayrlhf.workers.learner import CriticLearner, PolicyLearner
from rayrlhf.workers.scorer import ReferenceScorer, RewardModelScorer, ScorerConfig

LENGTHS = [(3, 4), (2, 7), (5, 1), (1, 3), (4, 4)]
ALL = np.arange(len(LENGTHS))


def config(max_tokens: int = 8192, **optimizer) -> TrainingConfig:
    # A large eps keeps Adam's first step near linear in the gradient, so that rounding is not blown up.
    settings = AdamW(**({"learning_rate": 1e-2, "eps": 1e-3} | optimizer))
    return TrainingConfig(optimizer=settings, max_tokens_per_microbatch=max_tokens)


def policy_learner(model: str, max_tokens: int = 8192, algorithm: PPO | None = None, **optimizer) -> PolicyLearner:
    return PolicyLearner(model, config(max_tokens, **optimizer), algorithm or PPO(), 10, Ranks())


@pytest.fixture
def rollouts(make_rollouts) -> Rollouts:
    return make_rollouts(LENGTHS)


@pytest.fixture
def reward_model(tiny_qwen2, tokenizer, tmp_path) -> str:
    """A folder with a random head whose scores have mean 2 and deviation 4."""
    scalar = ScalarModel.load(tiny_qwen2)
    torch.nn.init.normal_(scalar.model.score.weight, generator=torch.Generator().manual_seed(0))
    scalar.statistics = RewardStatistics(2.0, 4.0)
    scalar.save(tmp_path / "reward_model", tokenizer)
    return str(tmp_path / "reward_model")


@pytest.fixture
def batch(rollouts, tiny_qwen2):
    """Credit for scores that like some rollouts and dislike others; the reference is the policy itself."""
    old = in_order(policy_learner(tiny_qwen2).logprobs(rollouts, 1.0))
    scores = np.array([2.0, -1.0, 1.0, -2.0, 0.5], dtype=np.float32)
    values = np.random.default_rng(0).normal(size=(old.shape[0], old.shape[1] + 1)).astype(np.float32)
    return PPO().assign_credit(ScoredRollouts(rollouts, scores, old, 8, old, values), kl_coef=0.1)[0]


def test_logprobs_are_those_of_each_rollout_alone(tiny_model, rollouts):
    found = in_order(policy_learner(tiny_model, max_tokens=20).logprobs(rollouts, 0.7))
    assert found.shape == mask_of(rollouts).shape
    assert (found[~mask_of(rollouts)] == 0).all()
    policy = Policy.load(tiny_model)
    for row, length in enumerate(rollouts.lengths):
        tokens = torch.from_numpy(tokens_of(rollouts)[row : row + 1, :length])
        mask = torch.from_numpy(mask_of(rollouts)[row : row + 1, :length])
        alone = policy(tokens, mask, 0.7).logprobs[0].detach().numpy()
        np.testing.assert_allclose(found[row, :length], alone, atol=1e-5)


def test_the_reference_scorer_agrees_with_the_learner_of_the_same_weights(tiny_model, rollouts):
    learner = in_order(policy_learner(tiny_model).logprobs(rollouts, 1.0))
    scorer = ReferenceScorer(tiny_model, ScorerConfig(max_tokens_per_microbatch=16), Ranks())
    np.testing.assert_allclose(in_order(scorer.logprobs(rollouts, 1.0)), learner, atol=1e-5)


def test_scorers_share_rollouts_out_without_a_process_group(tiny_qwen2, rollouts):
    whole = in_order(ReferenceScorer(tiny_qwen2, ScorerConfig(), Ranks()).logprobs(rollouts, 1.0))
    shares = [
        ReferenceScorer(tiny_qwen2, ScorerConfig(), Ranks(rank, 2, joins=False)).logprobs(rollouts, 1.0)
        for rank in range(2)
    ]
    assert all(0 < len(share.rows) < len(rollouts) for share in shares)
    rows = np.concatenate([share.rows for share in shares])
    assert sorted(rows.tolist()) == ALL.tolist()
    merged = rollouts.padded(RowShare.merge(shares, len(rollouts)))
    np.testing.assert_allclose(merged, whole, atol=1e-5)


def test_a_reward_is_the_heads_output_after_the_last_token(reward_model, rollouts):
    scorer = RewardModelScorer(reward_model, "last", True, ScorerConfig(), Ranks())
    found = in_order(scorer.score(rollouts))
    model = ScalarModel.load(reward_model)
    for row, length in enumerate(rollouts.lengths):
        tokens = torch.from_numpy(tokens_of(rollouts)[row : row + 1, :length])
        assert found[row] == pytest.approx((model(tokens)[0, -1].item() - 2.0) / 4.0, abs=1e-4)


def test_the_first_update_is_on_policy(tiny_qwen2, batch):
    report = policy_learner(tiny_qwen2).update(batch, ALL, 1.0)
    assert report.partial["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-5)
    assert report.partial["policy/clip_share"] == 0.0
    assert report.partial["policy/approx_kl"] == pytest.approx(0.0, abs=1e-9)
    mean_advantage = batch.advantages[batch.rollouts.loss_mask].mean()
    assert report.partial["policy/loss"] == pytest.approx(-mean_advantage, abs=1e-6)
    assert report.shared["policy/skipped_steps"] == 0.0


@pytest.mark.parametrize("max_tokens", [1, 16, 24])
def test_neither_loss_nor_weights_depend_on_the_micro_batch_size(tiny_qwen2, batch, max_tokens):
    algorithm = PPO(entropy_coef=0.01)
    whole = policy_learner(tiny_qwen2, algorithm=algorithm)
    split = policy_learner(tiny_qwen2, max_tokens, algorithm)
    for rows in (ALL, np.array([4, 1])):
        one, other = whole.update(batch, rows, 1.0), split.update(batch, rows, 1.0)
        for name, value in one.partial.items():
            assert other.partial[name] == pytest.approx(value, rel=1e-5, abs=1e-6)
    weights = dict(split.trainer.module.named_parameters())
    for name, weight in whole.trainer.module.named_parameters():
        assert (weights[name] - weight).abs().max() <= 2e-6 * max(1.0, weight.abs().max())


def test_an_update_sees_its_rows_alone(tiny_qwen2, batch):
    changed = dataclasses.replace(batch, advantages=batch.advantages.copy())
    for row in (0, 2, 4):
        changed.advantages[batch.rollouts.offsets[row] : batch.rollouts.offsets[row + 1]] = 100.0
    one, other = policy_learner(tiny_qwen2), policy_learner(tiny_qwen2)
    rows = np.array([3, 1])
    found = one.update(batch, rows, 1.0).partial
    assert found == other.update(changed, rows, 1.0).partial
    assert found["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-5)  # a mean over these rows' tokens


def test_updates_make_liked_rollouts_likelier_and_disliked_ones_rarer(tiny_qwen2, batch):
    learner = policy_learner(tiny_qwen2, learning_rate=3e-3, eps=1e-8)
    before = in_order(learner.logprobs(batch.rollouts, 1.0))
    for _ in range(3):
        learner.update(batch, ALL, 1.0)
    gain = in_order(learner.logprobs(batch.rollouts, 1.0)) - before
    advantages = batch.rollouts.padded(batch.advantages)
    assert (gain * advantages)[mask_of(batch.rollouts)].sum() > 0.1


def test_exported_weights_are_the_models_own_names_cast_on_request(tiny_model):
    learner = policy_learner(tiny_model)
    exported = {name: tensor for bucket in learner.export(None) for name, tensor in bucket.tensors()}
    for name, tensor in Policy.load(tiny_model).weights():
        assert torch.equal(exported[name], tensor)
    assert "lm_head.weight" in exported
    halves = [tensor.dtype for bucket in learner.export(torch.bfloat16) for _, tensor in bucket.tensors()]
    assert set(halves) == {torch.bfloat16}


def test_a_saved_learner_loads_in_transformers_with_the_same_logits(tiny_model, batch, tmp_path):
    from transformers import AutoModelForCausalLM

    learner = policy_learner(tiny_model)
    learner.update(batch, ALL, 1.0)
    learner.save(str(tmp_path))
    tokens = torch.from_numpy(tokens_of(batch.rollouts))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(tokens).logits, learner.trainer.inner.model(tokens).logits)


# the critic


def critic_learner(model: str, max_tokens: int = 8192, normalize: bool = False, **optimizer) -> CriticLearner:
    return CriticLearner(model, config(max_tokens, **optimizer), PPO(), 10, normalize, Ranks())


def test_values_are_the_heads_outputs_before_each_response_token(reward_model, rollouts):
    found = in_order(critic_learner(reward_model, max_tokens=20).values(rollouts))
    model = ScalarModel.load(reward_model)
    outputs = model(torch.from_numpy(tokens_of(rollouts))).detach().numpy()
    before = np.pad(outputs, ((0, 0), (1, 0)))
    states = np.pad(mask_of(rollouts), ((0, 0), (0, 1)))
    states[ALL, rollouts.lengths] = True  # and after its last token
    np.testing.assert_allclose(found, np.where(states, before, 0), atol=1e-4)


def test_a_normalized_critic_starts_in_the_units_of_the_normalized_reward(reward_model, rollouts):
    raw, scaled = (in_order(critic_learner(reward_model, normalize=n).values(rollouts)) for n in (False, True))
    mean, std = ScalarModel.load(reward_model).statistics.mean, 4.0
    states = raw != 0
    assert mean != 0 and states.sum() > len(rollouts)
    np.testing.assert_allclose(scaled[states], (raw[states] - mean) / std, atol=1e-5)
    np.testing.assert_array_equal(scaled[~states], 0)


@pytest.mark.parametrize("max_tokens", [1, 24])
def test_the_critics_step_does_not_depend_on_the_micro_batch_size(reward_model, batch, max_tokens):
    whole, split = critic_learner(reward_model), critic_learner(reward_model, max_tokens)
    one, other = whole.update(batch, ALL), split.update(batch, ALL)
    for name, value in one.partial.items():
        assert other.partial[name] == pytest.approx(value, rel=1e-5)
    weights = dict(split.trainer.module.named_parameters())
    for name, weight in whole.trainer.module.named_parameters():
        assert (weights[name] - weight).abs().max() <= 2e-6 * max(1.0, weight.abs().max())


def test_the_critic_learns_the_returns(reward_model, batch):
    learner = critic_learner(reward_model, learning_rate=5e-3, eps=1e-8)
    learner._algorithm = PPO(cliprange_value=100.0)
    losses = [learner.update(batch, ALL).partial["value/loss"] for _ in range(15)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_saved_critic_is_a_scalar_model_with_the_same_values(reward_model, rollouts, tmp_path):
    learner = critic_learner(reward_model)
    learner.save(str(tmp_path / "critic"))
    again = in_order(critic_learner(str(tmp_path / "critic")).values(rollouts))
    np.testing.assert_array_equal(again, in_order(learner.values(rollouts)))


def test_a_critic_that_starts_from_a_critic_is_not_scaled_again(reward_model, tmp_path):
    def critic(model: str) -> CriticLearner:
        return CriticLearner(model, config(), PPO(), 10, True, Ranks())

    first = critic(reward_model)
    first.save(str(tmp_path / "critic"))
    second = critic(str(tmp_path / "critic"))
    assert torch.equal(first.trainer.inner.model.score.weight, second.trainer.inner.model.score.weight)
    unscaled = ScalarModel.load(reward_model).model.score.weight
    assert torch.allclose(first.trainer.inner.model.score.weight * 4.0, unscaled)


# a critic that is not PPO's


class ActorCritic(Algorithm):
    """Advantage actor-critic (Mnih et al. 2016, section 4): A = R − V, and a squared error for the critic."""

    needs_critic: ClassVar[bool] = True
    kind: Literal["actor_critic"] = "actor_critic"

    def credit(self, rewards: torch.Tensor, scored: ScoredRollouts, mask: torch.Tensor) -> Credit:
        assert scored.values is not None
        states = torch.nn.functional.pad(mask, (0, 1))
        values = torch.where(states, torch.from_numpy(scored.values.copy()), 0.0)
        returns = torch.nn.functional.pad(returns_to_go(rewards, mask, gamma=1.0), (0, 1))
        return Credit((returns - values)[:, :-1], returns, values, states)

    def value_loss(self, values: torch.Tensor, data: TokenTensors, size: StepSize) -> Loss:
        loss = masked_sum((values - data.returns) ** 2, data.value_mask) / size.num_states
        return loss, {"value/loss": loss}


def test_an_algorithm_with_a_critic_need_not_be_ppo(tiny_qwen2, reward_model, rollouts):
    algorithm = ActorCritic(kl_coef=0.0)
    settings = {"run": {"name": "a2c"}, "model": tiny_qwen2, "data": {"train": ["prompts.jsonl"]}}
    settings["reward"] = {"source": {"kind": "reward_model", "model": reward_model}}
    run = PPOConfig.model_validate(settings).model_copy(update={"algorithm": algorithm})
    assert [role.name for role in roles_of(run)] == ["sampler", "reward", "policy", "critic", "credit"]
    inputs = RoleInputs(eos_token_id=0, max_model_len=16, known=None, ptx=None)
    critic = CRITIC.build(run, inputs, Ranks())
    values, old = in_order(critic.values(rollouts)), in_order(policy_learner(tiny_qwen2).logprobs(rollouts, 1.0))
    scores = np.array([2.0, -1.0, 1.0, -2.0, 0.5], dtype=np.float32)
    batch, _ = algorithm.assign_credit(ScoredRollouts(rollouts, scores, old, 8, values=values), 0.0)
    policy = PolicyLearner(tiny_qwen2, config(), algorithm, 10, Ranks())
    assert policy.update(batch, ALL, 1.0).shared["policy/grad_norm"] > 0
    losses = [critic.update(batch, ALL).partial["value/loss"] for _ in range(2)]
    assert losses[1] < losses[0]
