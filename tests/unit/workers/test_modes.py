"""Every trained role with adapters, with bfloat16 parameters and with recomputed activations."""

from typing import Any

import numpy as np
import pytest
import torch
from padded_arrays import in_order, mask_of, tokens_of
from safetensors.torch import load_file

from rayrlhf.algorithms import PPO, ScoredRollouts
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.models import LoraConfig, Policy, ScalarModel
from rayrlhf.training.model_trainer import SupervisedTraining
from rayrlhf.training.offline_worker import seed_step
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.reward_model import PairwiseLoss, RewardModelWorker
from rayrlhf.training.sft import SFTWorker
from rayrlhf.workers.learner import CriticLearner, PolicyLearner

LENGTHS = [(3, 4), (2, 7), (5, 1), (1, 3)]
ALL = np.arange(len(LENGTHS))
ROWS = Sequences.build([([5, 6, 7], [50, 51, 0]), ([8], [52, 0]), ([9, 10], [53, 54, 55, 0]), ([11], [56, 0])])
OTHERS = Sequences.build([([5, 6, 7], [60, 0]), ([8], [61, 62, 0]), ([9, 10], [63, 0]), ([11], [64, 65, 0])])
LORA = LoraConfig(rank=4, alpha=8.0)


def config(learning_rate: float = 1e-2, **settings) -> SupervisedTraining:
    return SupervisedTraining(optimizer=AdamW(learning_rate=learning_rate), **settings)


def sft_worker(model: str, tokenizer: Any, **settings) -> SFTWorker:
    return SFTWorker(model, tokenizer, config(**settings), ROWS, ROWS, 50, Ranks())


def reward_worker(model: str, tokenizer: Any, **settings) -> RewardModelWorker:
    pairs = (ROWS, OTHERS)
    return RewardModelWorker(model, tokenizer, config(**settings), PairwiseLoss(), pairs, pairs, 50, Ranks())


def parameters_of(worker: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in worker.trainer.inner.named_parameters()}


def changed(worker: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, parameter in parameters_of(worker).items() if not torch.equal(parameter, before[name])}


@pytest.fixture
def batch(make_rollouts):
    rollouts = make_rollouts(LENGTHS)
    rng = np.random.default_rng(0)
    old = np.where(mask_of(rollouts), rng.normal(-5, 0.3, mask_of(rollouts).shape), 0).astype(np.float32)
    values = rng.normal(size=(old.shape[0], old.shape[1] + 1)).astype(np.float32)
    scores = np.array([2.0, -1.0, 1.0, -2.0], dtype=np.float32)
    return PPO().assign_credit(ScoredRollouts(rollouts, scores, old, 8, old, values), kl_coef=0.1)[0]


# adapters


def test_sft_with_adapters_learns_and_changes_nothing_else(tiny_model, tokenizer):
    worker = sft_worker(tiny_model, tokenizer, learning_rate=3e-2, lora=LORA)
    before, first = parameters_of(worker), worker.evaluate()["eval/loss"]
    for _ in range(10):
        worker.train_step(ALL)
    assert worker.evaluate()["eval/loss"] < 0.95 * first
    assert changed(worker, before) == {name for name in before if "lora_" in name}
    held = {id(p) for group in worker.trainer.optimizer.param_groups for p in group["params"]}
    named = dict(worker.trainer.inner.named_parameters())
    assert held == {id(p) for name, p in named.items() if "lora_" in name}


def test_a_reward_model_with_adapters_trains_its_head_too(tiny_qwen2, tokenizer):
    worker = reward_worker(tiny_qwen2, tokenizer, learning_rate=3e-2, lora=LORA)
    before = parameters_of(worker)
    for _ in range(15):
        worker.train_step(ALL)
    assert worker.evaluate()["eval/accuracy"] == 1.0
    assert worker.evaluate()["eval/loss"] < 0.5 * np.log(2)
    assert changed(worker, before) == {name for name in before if "lora_" in name or "score" in name}


def test_a_critic_with_adapters_learns_the_returns(tiny_qwen2, batch):
    learner = CriticLearner(tiny_qwen2, config(lora=LORA), PPO(cliprange_value=100.0), 50, True, Ranks())
    before = parameters_of(learner)
    losses = [learner.update(batch, ALL).partial["value/loss"] for _ in range(20)]
    assert losses[-1] < 0.5 * losses[0]
    assert changed(learner, before) == {name for name in before if "lora_" in name or "score" in name}


def test_exported_weights_give_a_plain_policy_the_logprobs_of_the_learner(tiny_model, batch):
    learner = PolicyLearner(tiny_model, config(lora=LORA), PPO(), 50, Ranks())
    start = in_order(learner.logprobs(batch.rollouts, 1.0))
    for _ in range(3):
        learner.update(batch, ALL, 1.0)
    wanted = in_order(learner.logprobs(batch.rollouts, 1.0))
    plain = Policy.load(tiny_model)
    exported = {name: tensor for bucket in learner.export(None) for name, tensor in bucket.tensors()}
    assert exported.keys() == dict(plain.weights()).keys()
    plain.model.load_state_dict(exported)
    tokens = torch.from_numpy(tokens_of(batch.rollouts))
    found = plain(tokens, torch.from_numpy(mask_of(batch.rollouts))).logprobs.detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(wanted - start).max() > 0.1


def test_a_learner_that_sends_adapters_exports_all_of_them_and_nothing_else(tiny_model, batch, tmp_path):
    learner = PolicyLearner(tiny_model, config(lora=LORA), PPO(), 50, Ranks(), sends_adapters=True)
    learner.update(batch, ALL, 1.0)
    learner.save(str(tmp_path))
    exported = {name: tensor for bucket in learner.export(None) for name, tensor in bucket.tensors()}
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert exported.keys() == {name.removeprefix("base_model.model.") for name in saved}
    assert all(torch.equal(exported[name.removeprefix("base_model.model.")], tensor) for name, tensor in saved.items())
    assert {tensor.dtype for bucket in learner.export(torch.bfloat16) for _, tensor in bucket.tensors()} == {
        torch.bfloat16
    }


def test_a_learner_saves_the_merged_model_and_its_adapter(tiny_model, batch, tmp_path):
    from transformers import AutoModelForCausalLM

    learner = PolicyLearner(tiny_model, config(lora=LORA), PPO(), 50, Ranks())
    learner.update(batch, ALL, 1.0)
    learner.save(str(tmp_path))
    tokens = torch.from_numpy(tokens_of(batch.rollouts))
    learner.trainer.module.eval()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(tokens).logits, learner.trainer.inner.model(tokens).logits, rtol=0, atol=1e-5)
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_dropout_acts_in_training_only(tiny_qwen2, tokenizer):
    lora = LoraConfig(rank=4, dropout=0.5)
    worker = sft_worker(tiny_qwen2, tokenizer, lora=lora)
    for _ in range(3):
        worker.train_step(ALL)
    assert worker.evaluate() == worker.evaluate()
    trained = [worker.train_step(ALL)["sft/loss"], worker.evaluate()["eval/loss"]]
    assert trained[0] != pytest.approx(trained[1], rel=1e-6)


# going on after a stop


@pytest.mark.parametrize(
    "settings", [{"lora": LORA}, {"parameters": "bfloat16"}, {"lora": LORA, "parameters": "bfloat16"}], ids=str
)
@pytest.mark.parametrize("make", [sft_worker, reward_worker])
def test_a_restored_worker_goes_on_bit_for_bit(make, settings, tiny_qwen2, tokenizer, tmp_path):
    straight, stopped, resumed = (make(tiny_qwen2, tokenizer, **settings) for _ in range(3))
    for worker in (straight, stopped):
        for _ in range(2):
            worker.train_step(ALL)
    stopped.save(tmp_path, {"step": 2})
    assert resumed.restore(tmp_path) == {"step": 2}
    for _ in range(2):
        assert resumed.train_step(ALL) == straight.train_step(ALL)
    assert changed(resumed, parameters_of(straight)) == set()
    masters = zip(resumed.trainer.trained.parameters(), straight.trainer.trained.parameters(), strict=True)
    assert all(torch.equal(found, wanted) for found, wanted in masters)


@pytest.mark.parametrize("make", [sft_worker, reward_worker])
def test_a_restored_worker_draws_the_dropout_of_one_that_never_stopped(make, tiny_qwen2, tokenizer, tmp_path):
    lora = LoraConfig(rank=4, dropout=0.1)
    straight, stopped, resumed = (make(tiny_qwen2, tokenizer, lora=lora) for _ in range(3))

    def step(worker: Any, index: int) -> dict[str, float]:
        seed_step(7, index, 0)
        return worker.train_step(ALL)

    for worker in (straight, stopped):
        for index in range(2):
            step(worker, index)
    stopped.save(tmp_path, {"step": 2})
    resumed.restore(tmp_path)
    wanted = [step(straight, index) for index in (2, 3)]
    torch.rand(5)  # what else is drawn between two steps does not matter
    assert [step(resumed, index) for index in (2, 3)] == wanted
    assert changed(resumed, parameters_of(straight)) == set()


def test_steps_ranks_and_runs_draw_different_dropout():
    def drawn(*key: int) -> float:
        seed_step(*key)
        return float(torch.rand(()))

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    assert len({drawn(seed, step, rank) for seed in range(3) for step in range(3) for rank in range(3)}) == 27


def test_the_state_of_a_run_with_adapters_holds_no_frozen_weight(tiny_qwen2, tokenizer):
    state = sft_worker(tiny_qwen2, tokenizer, lora=LORA).trainer.training_state()
    assert state["trained"]
    assert all("lora_" in name for name in state["trained"])


# bfloat16 parameters


def test_a_bfloat16_policy_learns_and_is_saved_as_bfloat16(tiny_qwen2, tokenizer, tmp_path):
    worker = sft_worker(tiny_qwen2, tokenizer, parameters="bfloat16")
    first = worker.evaluate()["eval/loss"]
    for _ in range(8):
        worker.train_step(ALL)
    assert worker.evaluate()["eval/loss"] < 0.8 * first
    worker.save(tmp_path, {"step": 8})
    loaded = Policy.load(str(tmp_path / "model"), torch.bfloat16)
    for (_, found), (_, wanted) in zip(loaded.weights(), worker.trainer.inner.weights(), strict=True):
        assert found.dtype == wanted.dtype == torch.bfloat16
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("settings", [{}, {"lora": LORA}], ids=str)
def test_bfloat16_parameters_follow_float32_ones(settings, tiny_qwen2, tokenizer):
    exact, rounded = (
        sft_worker(tiny_qwen2, tokenizer, parameters=parameters, **settings) for parameters in ("float32", "bfloat16")
    )
    for _ in range(4):
        wanted, found = exact.train_step(ALL)["sft/loss"], rounded.train_step(ALL)["sft/loss"]
        assert found == pytest.approx(wanted, rel=0.02)


def test_a_bfloat16_critic_values_in_float32_numbers(tiny_qwen2, batch):
    learner = CriticLearner(tiny_qwen2, config(parameters="bfloat16"), PPO(), 50, True, Ranks())
    learner.update(batch, ALL)
    assert in_order(learner.values(batch.rollouts)).dtype == np.float32
    assert learner.trainer.inner.model.score.weight.any()


# recomputed activations


@pytest.mark.parametrize("settings", [{}, {"lora": LORA}], ids=str)
@pytest.mark.parametrize("make", [sft_worker, reward_worker])
def test_recomputed_activations_change_neither_loss_nor_gradient(make, settings, tiny_model, tokenizer):
    plain = make(tiny_model, tokenizer, **settings)
    recomputing = make(tiny_model, tokenizer, activation_checkpointing=True, **settings)
    passes = count_layer_passes(recomputing)
    gradients: list[dict[str, torch.Tensor]] = []
    for worker in (plain, recomputing):
        if isinstance(worker.trainer.inner, ScalarModel):
            torch.nn.init.normal_(worker.trainer.inner.model.score.weight, generator=torch.Generator().manual_seed(1))
        seen: dict[str, torch.Tensor] = {}
        gradients.append(seen)

        def keep(*_, worker=worker, seen=seen) -> None:
            named = worker.trainer.inner.named_parameters()
            seen.update({name: p.grad.clone() for name, p in named if p.grad is not None})

        worker.trainer.optimizer.register_step_pre_hook(keep)
    one, other = plain.train_step(ALL), recomputing.train_step(ALL)
    assert len(passes) == 2  # forward, and once more in the backward pass
    assert other == pytest.approx(one, rel=1e-6)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-6, atol=1e-6 * float(gradient.abs().max()))


def count_layer_passes(worker: Any) -> list[None]:
    """A list that grows by one with each pass through the first layer's MLP."""
    passes: list[None] = []
    worker.trainer.inner.blocks()[0].mlp.register_forward_pre_hook(lambda *_: passes.append(None))
    return passes
