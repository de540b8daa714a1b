"""DPO: what the reference says, the start, steps that depend on no split, learning, going on after a restart."""

import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, tiny_causal_model

from rayrlhf.algorithms.preference import DPO, IPO, KTO, ORPO, PairLoss, SimPO
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.models import ModelFolderError, Policy
from rayrlhf.training.dpo import DPOWorker
from rayrlhf.training.kto import KTOWorker, LabeledSet
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks

EOS = 0
# Chosen answers hold token 50, rejected ones 60. Chosen is longer in row 0, shorter in 1 and 2, as long in 3.
CHOSEN = Sequences.build([([5, 6], [50, 51, EOS]), ([7], [50, EOS]), ([8, 9, 10], [50, EOS]), ([11], [50, 52, EOS])])
REJECTED = Sequences.build(
    [([5, 6], [60, EOS]), ([7], [60, 61, EOS]), ([8, 9, 10], [60, 62, 63, EOS]), ([11], [60, 52, EOS])]
)
PAIRS = (CHOSEN, REJECTED)
ALL = np.arange(4)


@pytest.fixture
def make_worker(tokenizer, tiny_qwen2):
    def make(
        loss: PairLoss | None = None,
        max_tokens: int = 8192,
        reference: str | None = tiny_qwen2,
        pairs: tuple[Sequences, Sequences] = PAIRS,
        **optimizer,
    ) -> DPOWorker:
        # A large eps keeps Adam's first step near linear in the gradient, so that rounding is not blown up.
        settings = AdamW(**({"learning_rate": 1e-2, "eps": 1e-3} | optimizer))
        config = TrainingConfig(optimizer=settings, max_tokens_per_microbatch=max_tokens)
        return DPOWorker(tiny_qwen2, reference, tokenizer, config, loss or DPO(beta=1.0), pairs, pairs, 50, Ranks())

    return make


@pytest.fixture
def other_policy(tiny_qwen2, tokenizer, tmp_path) -> str:
    """A folder of the tiny model with other weights."""
    policy = Policy.load(tiny_qwen2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    policy.save(tmp_path / "other", tokenizer)
    return str(tmp_path / "other")


def logprobs_alone(folder: str, data: Sequences, row: int) -> float:
    """Σ log p over the answer of one row, without padding or neighbors, by plain transformers."""
    from transformers import AutoModelForCausalLM

    tokens = torch.from_numpy(data.padded([row]))
    every = torch.log_softmax(AutoModelForCausalLM.from_pretrained(folder)(tokens).logits[0], -1)
    return sum(every[t - 1, tokens[0, t]].item() for t in range(int(data.prompt_lengths[row]), tokens.shape[1]))


def weights_of(worker: DPOWorker) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in worker.trainer.module.named_parameters()}


# the reference


def test_the_reference_says_of_each_answer_what_it_says_of_it_alone(make_worker, other_policy):
    data = make_worker(max_tokens=20, reference=other_policy)._train
    for side, sequences in enumerate(PAIRS):
        for row in range(4):
            wanted = logprobs_alone(other_policy, sequences, row)
            assert data.ref_logprobs[side, row] == pytest.approx(wanted, rel=1e-5)
    assert data.lengths.tolist() == [[3, 2, 2, 3], [2, 3, 4, 3]]


def test_the_reference_stays_what_it_was_while_the_policy_learns(make_worker):
    worker = make_worker()
    before = worker._train.ref_logprobs.copy(), worker._heldout.ref_logprobs.copy()
    worker.train_step(ALL)
    assert np.array_equal(before[0], worker._train.ref_logprobs)
    assert np.array_equal(before[1], worker._heldout.ref_logprobs)
    assert worker.evaluate()["eval/margin_mean"] > 0


# the start


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_at_the_start_the_loss_is_log_two_and_every_reward_is_zero(make_worker, smoothing):
    worker = make_worker(DPO(beta=0.5, label_smoothing=smoothing))
    metrics = worker.evaluate()
    assert metrics["eval/loss"] == pytest.approx(np.log(2), rel=1e-12)
    assert metrics["eval/accuracy"] == 0.5
    for name in ("chosen_reward_mean", "rejected_reward_mean", "margin_mean"):
        assert metrics[f"eval/{name}"] == 0.0
    step = worker.train_step(ALL)
    assert step["dpo/loss"] == pytest.approx(np.log(2), rel=1e-6)
    assert step["dpo/chosen_reward_mean"] == pytest.approx(0, abs=1e-5)
    assert step["dpo/grad_norm"] > 0


def test_another_reference_gives_rewards_from_the_start(make_worker, other_policy, tiny_qwen2):
    metrics = make_worker(DPO(beta=0.5), reference=other_policy).evaluate()
    rewards = np.array(
        [
            [0.5 * (logprobs_alone(tiny_qwen2, side, row) - logprobs_alone(other_policy, side, row)) for row in ALL]
            for side in PAIRS
        ]
    )
    assert metrics["eval/chosen_reward_mean"] == pytest.approx(rewards[0].mean(), rel=1e-4)
    assert metrics["eval/rejected_reward_mean"] == pytest.approx(rewards[1].mean(), rel=1e-4)
    assert metrics["eval/margin_mean"] == pytest.approx((rewards[0] - rewards[1]).mean(), rel=1e-3, abs=1e-5)
    assert metrics["eval/accuracy"] == (rewards[0] > rewards[1]).mean()


def test_evaluation_counts_pairs_and_longer_chosen_answers_ties_as_half(make_worker):
    metrics = make_worker().evaluate()
    assert metrics["eval/num_pairs"] == 4.0
    assert metrics["eval/longer_answer_accuracy"] == 0.375


def test_a_loss_without_a_reference_loads_none(make_worker):
    worker = make_worker(SimPO(), reference=None)
    assert worker._train.ref_logprobs is None
    assert np.isfinite(worker.train_step(ALL)["dpo/loss"])


# steps


@pytest.mark.parametrize(
    "loss", [DPO(beta=0.7, label_smoothing=0.1), IPO(beta=0.7), DPO(sft_coef=0.5), ORPO(), SimPO()]
)
def test_step_and_evaluation_report_the_pair_means_of_the_loss(make_worker, other_policy, tiny_qwen2, loss):
    policy, reference = (
        torch.tensor([[logprobs_alone(folder, side, row) for row in ALL] for side in PAIRS])
        for folder in (tiny_qwen2, other_policy)
    )
    wanted = loss.evaluate(policy, reference, torch.tensor([[3, 2, 2, 3], [2, 3, 4, 3]]))
    worker = make_worker(loss, max_tokens=20, reference=other_policy)
    evaluated, step = worker.evaluate(), worker.train_step(ALL)
    chosen, rejected = wanted.rewards
    for part, metrics in (("eval", evaluated), ("dpo", step)):
        assert metrics[f"{part}/loss"] == pytest.approx(wanted.loss.mean().item(), rel=1e-4)
        assert metrics[f"{part}/accuracy"] == (chosen > rejected).float().mean().item()
        assert metrics[f"{part}/margin_mean"] == pytest.approx((chosen - rejected).mean().item(), rel=1e-3, abs=1e-5)
        assert metrics[f"{part}/chosen_reward_mean"] == pytest.approx(chosen.mean().item(), rel=1e-3, abs=1e-5)
        assert metrics[f"{part}/rejected_reward_mean"] == pytest.approx(rejected.mean().item(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 24])
@pytest.mark.parametrize("loss", [DPO(beta=1.0), IPO(beta=0.5), DPO(sft_coef=1.0), ORPO(), SimPO()])
def test_neither_loss_nor_weights_depend_on_the_micro_batch_size(make_worker, loss, max_tokens):
    whole, split = make_worker(loss), make_worker(loss, max_tokens=max_tokens)
    for _ in range(2):  # in the second step pairs differ in their rewards
        one, other = whole.train_step(ALL), split.train_step(ALL)
        assert other["dpo/loss"] == pytest.approx(one["dpo/loss"], rel=1e-5)
        assert other["dpo/margin_mean"] == pytest.approx(one["dpo/margin_mean"], rel=1e-4, abs=1e-5)
        assert other["dpo/grad_norm"] == pytest.approx(one["dpo/grad_norm"], rel=1e-4)
    weights = weights_of(split)
    for name, weight in weights_of(whole).items():
        assert (weights[name] - weight).abs().max() <= 5e-6 * max(1.0, weight.abs().max())


@pytest.mark.parametrize(
    "loss", [DPO(beta=1.0), DPO(beta=1.0, label_smoothing=0.1), IPO(beta=0.5), ORPO(beta=1.0), SimPO()]
)
def test_the_loss_falls_and_the_accuracy_rises_on_a_toy_set(make_worker, loss):
    worker = make_worker(loss, eps=1e-8, learning_rate=2e-3)
    first = worker.evaluate()
    at_the_start = 0.5 if loss.needs_reference else first["eval/accuracy"]
    assert at_the_start < 1
    for _ in range(15):
        worker.train_step(ALL)
    last = worker.evaluate()
    assert (first["eval/accuracy"], last["eval/accuracy"]) == (at_the_start, 1.0)
    assert last["eval/loss"] < 0.7 * first["eval/loss"]
    assert last["eval/chosen_reward_mean"] > last["eval/rejected_reward_mean"]


def test_the_sft_term_keeps_the_chosen_answers_more_likely(make_worker):
    plain, anchored = (make_worker(DPO(beta=0.1, sft_coef=weight), eps=1e-8, learning_rate=2e-3) for weight in (0, 1))
    for _ in range(10):
        plain.train_step(ALL)
        anchored.train_step(ALL)
    assert anchored.evaluate()["eval/chosen_reward_mean"] > plain.evaluate()["eval/chosen_reward_mean"]


def test_an_answer_that_has_no_token_to_train_counts_as_one_of_logprob_zero(make_worker):
    # Nothing stands before the first token of a row without prompt, so this rejected answer has no log-probability.
    pairs = Sequences.build([([], [50, EOS])]), Sequences.build([([], [60])])
    worker = make_worker(IPO(), pairs=pairs)
    assert worker._train.ref_logprobs[1, 0] == 0.0
    assert np.isfinite(worker.train_step(np.arange(1))["dpo/loss"])


# checkpoints


def test_a_restored_worker_goes_on_bit_for_bit(make_worker, tmp_path):
    straight, stopped = make_worker(schedule="cosine"), make_worker(schedule="cosine")
    for worker in (straight, stopped):
        worker.train_step(ALL)
    stopped.save(tmp_path, {"step": 1})
    resumed = make_worker(schedule="cosine")
    assert resumed.restore(tmp_path) == {"step": 1}
    step = straight.train_step(ALL)
    assert resumed.train_step(ALL) == step
    assert step["dpo/margin_mean"] > 0.01  # against the policy before its first step, not the restored one
    after = weights_of(resumed)
    assert all(torch.equal(after[name], weight) for name, weight in weights_of(straight).items())
    assert resumed.evaluate() == straight.evaluate()


def test_a_saved_policy_loads_in_transformers_with_the_same_logits(make_worker, tmp_path):
    from transformers import AutoModelForCausalLM

    worker = make_worker()
    worker.train_step(ALL)
    worker.save(tmp_path, {"step": 1})
    tokens = torch.from_numpy(CHOSEN.padded([0, 1]))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded(tokens).logits, worker.trainer.inner.model(tokens).logits)


def test_a_policy_that_computes_something_else_in_training_is_not_compared_with_a_reference(
    monkeypatch, tmp_path, tokenizer
):
    monkeypatch.setitem(ARCHITECTURES, "mixtral", ARCHITECTURES["mixtral"] | {"router_jitter_noise": 0.1})
    folder = str(tmp_path)
    tiny_causal_model("mixtral").save_pretrained(folder)
    labeled = LabeledSet(CHOSEN, ALL > 1)
    dpo = (DPOWorker, DPO(), PAIRS)
    kto = (KTOWorker, KTO(), labeled)
    for worker, loss, data in (dpo, kto):
        with pytest.raises(ModelFolderError, match="set router_jitter_noise to 0"):
            worker(folder, folder, tokenizer, TrainingConfig(), loss, data, data, 50, Ranks())
    DPOWorker(folder, None, tokenizer, TrainingConfig(), ORPO(), PAIRS, PAIRS, 50, Ranks())
