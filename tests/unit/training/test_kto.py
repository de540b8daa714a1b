"""KTO: mismatched answers, the reference, steps that depend on no split, learning, going on after a restart."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rayrlhf.algorithms.preference import KTO
from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.models import Policy
from rayrlhf.training.kto import KTOWorker, LabeledSet, Mismatches
from rayrlhf.training.model_trainer import TrainingConfig
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks

EOS = 0
ROWS = [
    ([5, 6], [50, 51, EOS]),
    ([5, 6], [60, EOS]),  # the same prompt: a pair's two answers
    ([7], [50, EOS]),
    ([8, 9, 10], [60, 62, 63, EOS]),
    ([11], [60, 52, 61, 60, 60, EOS]),
]
DESIRABLE = np.array([True, False, True, False, False])
DATA = LabeledSet(Sequences.build(ROWS), DESIRABLE)
ALL = np.arange(5)
LOSS = KTO(beta=0.7, desirable_weight=1.2, undesirable_weight=0.8)


@pytest.fixture
def other_policy(tiny_qwen2, tokenizer, tmp_path) -> str:
    """A folder of the tiny model with other weights, under which mismatched answers are less likely."""
    policy = Policy.load(tiny_qwen2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    policy.save(tmp_path / "other", tokenizer)
    return str(tmp_path / "other")


@pytest.fixture
def make_worker(tokenizer, tiny_qwen2):
    def make(loss: KTO = LOSS, max_tokens: int = 8192, reference: str = tiny_qwen2, **optimizer) -> KTOWorker:
        # A large eps keeps Adam's first step near linear in the gradient, so that rounding is not blown up.
        settings = AdamW(**({"learning_rate": 1e-2, "eps": 1e-3} | optimizer))
        config = TrainingConfig(optimizer=settings, max_tokens_per_microbatch=max_tokens)
        return KTOWorker(tiny_qwen2, reference, tokenizer, config, loss, DATA, DATA, 50, Ranks())

    return make


def logprob_alone(folder: str, prompt: list[int], answer: list[int]) -> float:
    """Σ log p over the answer, without padding or neighbors, by plain transformers, in float64."""
    from transformers import AutoModelForCausalLM

    tokens = torch.tensor([prompt + answer])
    model = AutoModelForCausalLM.from_pretrained(folder).double()
    every = torch.log_softmax(model(tokens).logits[0], -1)
    return sum(every[len(prompt) + i - 1, token].item() for i, token in enumerate(answer))


def weights_of(worker: KTOWorker) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in worker.trainer.module.named_parameters()}


# mismatches


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=30))
@settings(max_examples=100)
def test_every_prompt_gets_the_answer_to_another_one_if_there_is_any(rows):
    answers = Sequences.build([([prompt] * (prompt + 1), [9] * length) for prompt, length in rows])
    mismatches = Mismatches.of(answers)
    prompts = np.array([prompt for prompt, _ in rows])
    if len(set(prompts)) > 1:
        assert (prompts[mismatches.partners] != prompts).all()
    built = mismatches.build(np.arange(len(rows)))
    for row, partner in enumerate(mismatches.partners):
        wanted = [*answers.row(row)[: prompts[row] + 1], *answers.row(partner)[prompts[partner] + 1 :]]
        assert built.row(row).tolist() == wanted[: answers.lengths.max()]
    assert built.lengths.tolist() == mismatches.lengths(np.arange(len(rows))).tolist()
    assert (built.lengths > built.prompt_lengths).all()  # cut to the longest row, with something left of each answer


def test_where_no_two_prompts_are_equal_each_answer_is_used_once():
    answers = Sequences.build([([prompt], [9]) for prompt in range(20)])
    assert sorted(Mismatches.of(answers).partners) == list(range(20))


# steps


def wanted_metrics(policy: str, reference: str, rows: np.ndarray) -> dict[str, float]:
    """KTO's loss and metrics on `rows`, from the formula and single forward passes."""
    ratios, mismatched = [], []
    for row in rows:
        partner = Mismatches.of(DATA.answers).partners[row]
        room = DATA.answers.lengths.max() - len(ROWS[row][0])
        for kept, answer in ((ratios, ROWS[row][1]), (mismatched, ROWS[partner][1][:room])):
            kept.append(logprob_alone(policy, ROWS[row][0], answer) - logprob_alone(reference, ROWS[row][0], answer))
    kl = max(0.0, float(np.mean(mismatched)))
    good, rewards = DESIRABLE[rows], 0.7 * np.array(ratios)
    values = 1 / (1 + np.exp(-np.where(good, 1, -1) * (rewards - 0.7 * kl)))
    return {
        "loss": float(np.mean(np.where(good, 1.2, 0.8) * (1 - values))),
        "reference_kl": kl,
        "accuracy": float(np.mean((rewards > 0) == good)),
        "desirable_reward_mean": rewards[good].mean(),
        "undesirable_reward_mean": rewards[~good].mean(),
        "margin_mean": rewards[good].mean() - rewards[~good].mean(),
    }


@pytest.mark.parametrize("max_tokens", [1, 24, 8192])
def test_step_and_evaluation_are_the_formula_over_all_rows(make_worker, tiny_qwen2, other_policy, max_tokens):
    worker = make_worker(max_tokens=max_tokens, reference=other_policy)
    everything, some = wanted_metrics(tiny_qwen2, other_policy, ALL), np.array([3, 0, 4])
    assert everything["reference_kl"] > 0.1  # so it takes part
    evaluated = worker.evaluate()
    assert evaluated.pop("eval/num_answers") == 5
    assert evaluated == pytest.approx({f"eval/{name}": value for name, value in everything.items()}, rel=1e-4)
    step = worker.train_step(some)
    for name, value in wanted_metrics(tiny_qwen2, other_policy, some).items():
        assert step[f"dpo/{name}"] == pytest.approx(value, rel=1e-4), name


def test_at_the_start_every_answer_costs_half_its_weight(make_worker):
    metrics = make_worker().evaluate()
    assert metrics["eval/loss"] == pytest.approx(0.5 * (2 * 1.2 + 3 * 0.8) / 5, rel=1e-6)
    assert (metrics["eval/reference_kl"], metrics["eval/accuracy"]) == (0.0, 0.5)


@pytest.mark.parametrize("max_tokens", [1, 24])
def test_neither_loss_nor_weights_depend_on_the_micro_batch_size(make_worker, max_tokens):
    whole, split = make_worker(), make_worker(max_tokens=max_tokens)
    for _ in range(2):  # in the second step there are rewards and a KL
        one, other = whole.train_step(ALL), split.train_step(ALL)
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    assert one["dpo/margin_mean"] > 0
    weights = weights_of(split)
    for name, weight in weights_of(whole).items():
        assert (weights[name] - weight).abs().max() <= 5e-6 * max(1.0, weight.abs().max())


@pytest.mark.parametrize("good", [True, False])
def test_a_step_of_one_label_alone_has_metrics_of_that_label_alone(make_worker, good):
    metrics = make_worker().train_step(ALL[good == DESIRABLE])
    assert ("dpo/desirable_reward_mean" in metrics) == good
    assert ("dpo/undesirable_reward_mean" in metrics) != good
    assert "dpo/margin_mean" not in metrics
    assert np.isfinite(list(metrics.values())).all()


def test_the_loss_falls_and_the_accuracy_rises_on_a_toy_set(make_worker):
    worker = make_worker(KTO(beta=1.0), eps=1e-8, learning_rate=2e-3)
    first = worker.evaluate()
    for _ in range(25):
        worker.train_step(ALL)
    last = worker.evaluate()
    assert (first["eval/accuracy"], last["eval/accuracy"]) == (0.5, 1.0)
    assert last["eval/loss"] < 0.6 * first["eval/loss"]


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
