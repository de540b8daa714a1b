"""Supervised fine-tuning: which tokens are trained, and what a step does."""

import numpy as np
import pytest
import torch

from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.training.model_trainer import SupervisedTraining
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.sft import SFTWorker, label_mask

PAIRS = [
    ("안녕하세요?", "네, 반갑습니다."),
    ("When is the train?", "At nine."),
    ("오늘 날씨 어때요?", "맑아요."),
    ("Thanks", "You are welcome, come again."),
    ("이름이 뭐야?", "알아서 뭐 하게."),
]


@pytest.fixture(scope="module")
def toy(tokenizer) -> Sequences:
    return Sequences.build(
        [
            (
                tokenizer(prompt).input_ids,
                [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id],
            )
            for prompt, answer in PAIRS
        ]
    )


@pytest.fixture
def make_worker(tokenizer, toy, tiny_qwen2):
    def make(model: str = tiny_qwen2, max_tokens: int = 8192, train_on_prompt: bool = False, **optimizer) -> SFTWorker:
        # A large eps keeps Adam's first step near linear in the gradient, so that rounding is not blown up.
        settings = AdamW(**({"learning_rate": 1e-2, "eps": 1e-3} | optimizer))
        config = SupervisedTraining(optimizer=settings, max_tokens_per_microbatch=max_tokens)
        return SFTWorker(model, tokenizer, config, toy, toy, 50, Ranks(), train_on_prompt)

    return make


def weights_of(worker: SFTWorker) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in worker.trainer.module.named_parameters()}


# labels


def test_the_answer_and_its_eos_are_trained_and_the_prompt_never():
    data = Sequences.build([([5, 6, 7], [8, 9]), ([5], [6, 7, 9])])
    assert label_mask(data, np.array([0, 1]), train_on_prompt=False).astype(int).tolist() == [
        [0, 0, 0, 1, 1],
        [0, 1, 1, 1, 0],
    ]


def test_padding_is_told_by_length_even_where_pad_eos_and_unknown_share_an_id():
    pad = eos = unknown = 0  # as in kochatgpt's KoGPT2; padding is 0 too
    data = Sequences.build([([5, unknown, 7], [unknown, 8, eos]), ([5], [eos])])
    assert data.padded([0, 1]).tolist() == [[5, 0, 7, 0, 8, 0], [5, 0, pad, 0, 0, 0]]
    assert label_mask(data, np.array([0, 1]), train_on_prompt=False).astype(int).tolist() == [
        [0, 0, 0, 1, 1, 1],
        [0, 1, 0, 0, 0, 0],
    ]


def test_training_on_the_prompt_leaves_out_only_the_first_token():
    data = Sequences.build([([5, 6, 7], [8, 9]), ([5], [6])])
    assert label_mask(data, np.array([0, 1]), train_on_prompt=True).astype(int).tolist() == [
        [0, 1, 1, 1, 1],
        [0, 1, 0, 0, 0],
    ]


def test_an_answer_without_prompt_is_trained_from_its_second_token():
    data = Sequences.build([([], [5, 6, 9])])
    assert label_mask(data, np.array([0]), train_on_prompt=False).astype(int).tolist() == [[0, 1, 1]]


# steps


@pytest.mark.parametrize("train_on_prompt", [False, True])
def test_the_loss_is_the_mean_over_trained_tokens_of_the_whole_step(make_worker, toy, tiny_qwen2, train_on_prompt):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_qwen2)
    total, count = 0.0, 0
    for row in range(len(toy)):
        tokens = torch.from_numpy(toy.padded([row]))
        every = torch.log_softmax(model(tokens).logits[0], -1)
        for t in range(1 if train_on_prompt else int(toy.prompt_lengths[row]), tokens.shape[1]):
            total -= every[t - 1, tokens[0, t]].item()
            count += 1
    worker = make_worker(train_on_prompt=train_on_prompt)
    assert worker.evaluate()["eval/loss"] == pytest.approx(total / count, rel=1e-5)
    assert worker.train_step(np.arange(len(toy)))["sft/loss"] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 60, 120])
def test_neither_loss_nor_weights_depend_on_the_micro_batch_size(make_worker, tiny_model, max_tokens):
    whole, split = make_worker(tiny_model), make_worker(tiny_model, max_tokens)
    rows = np.arange(len(PAIRS))
    assert len(split.trainer.plan(split._train.lengths)) > 1
    one, other = whole.train_step(rows), split.train_step(rows)
    assert other["sft/loss"] == pytest.approx(one["sft/loss"], rel=1e-6)
    assert other["sft/grad_norm"] == pytest.approx(one["sft/grad_norm"], rel=1e-5)
    after = weights_of(split)
    for name, weight in weights_of(whole).items():
        assert (after[name] - weight).abs().max() <= 1e-6 * max(1.0, weight.abs().max())


def test_evaluation_does_not_depend_on_the_micro_batch_size_and_trains_nothing(make_worker):
    whole, split = make_worker(), make_worker(max_tokens=20)
    before = weights_of(whole)
    assert split.evaluate() == pytest.approx(whole.evaluate(), rel=1e-6)
    assert all(torch.equal(before[name], weight) for name, weight in weights_of(whole).items())


def test_the_loss_falls_on_a_toy_set(make_worker):
    worker = make_worker(eps=1e-8, learning_rate=5e-3)
    first = worker.evaluate()["eval/loss"]
    for _ in range(12):
        metrics = worker.train_step(np.arange(len(PAIRS)))
    assert metrics["sft/loss"] < 0.7 * first
    assert worker.evaluate()["eval/perplexity"] == pytest.approx(np.exp(worker.evaluate()["eval/loss"]))


def test_a_saved_policy_loads_in_transformers_with_the_same_logits(make_worker, tmp_path, toy):
    from transformers import AutoModelForCausalLM

    worker = make_worker()
    worker.train_step(np.arange(len(PAIRS)))
    worker.save(tmp_path, {"step": 1})
    tokens = torch.from_numpy(toy.padded([0, 1]))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert torch.equal(loaded(tokens).logits, worker.trainer.inner.model(tokens).logits)
    assert not torch.equal(loaded(tokens).logits, make_worker().trainer.inner.model(tokens).logits)


def test_a_restored_worker_goes_on_bit_for_bit(make_worker, tmp_path):
    rows = np.arange(len(PAIRS))
    straight, stopped = make_worker(schedule="cosine"), make_worker(schedule="cosine")
    for worker in (straight, stopped):
        worker.train_step(rows)
    stopped.save(tmp_path, {"step": 1})
    resumed = make_worker(schedule="cosine")
    assert resumed.restore(tmp_path) == {"step": 1}
    assert resumed.train_step(rows) == straight.train_step(rows)
    after = weights_of(resumed)
    assert all(torch.equal(after[name], weight) for name, weight in weights_of(straight).items())


def test_a_step_whose_loss_is_not_finite_is_skipped(make_worker):
    worker = make_worker()
    with torch.no_grad():
        next(iter(worker.trainer.inner.blocks()[0].parameters()))[0, 0] = float("nan")
    before = weights_of(worker)
    assert worker.train_step(np.arange(2))["sft/skipped_steps"] == 1.0
    for name, weight in weights_of(worker).items():
        assert torch.equal(torch.nan_to_num(weight), torch.nan_to_num(before[name]))
