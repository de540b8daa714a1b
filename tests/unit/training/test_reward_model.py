"""Reward-model training: accuracy, the length baseline, margins, statistics, learning."""

import numpy as np
import pytest
import torch

from rayrlhf.data.tokens.sequences import Sequences
from rayrlhf.models import RewardStatistics, ScalarModel
from rayrlhf.training.model_trainer import SupervisedTraining
from rayrlhf.training.optimizers import AdamW
from rayrlhf.training.parallel import Ranks
from rayrlhf.training.reward_model import PairwiseLoss, RewardModelWorker
from rayrlhf.workers.scorer import RewardModelScorer, ScorerConfig

EOS = 0
# Chosen answers hold token 50, rejected ones 60. Chosen is longer in row 0, shorter in 1 and 2, as long in 3.
CHOSEN = Sequences.build([([5, 6], [50, 51, EOS]), ([7], [50, EOS]), ([8, 9, 10], [50, EOS]), ([11], [50, 52, EOS])])
REJECTED = Sequences.build(
    [([5, 6], [60, EOS]), ([7], [60, 61, EOS]), ([8, 9, 10], [60, 62, 63, EOS]), ([11], [60, 52, EOS])]
)


@pytest.fixture
def make_worker(tokenizer, tiny_qwen2):
    def make(
        loss: PairwiseLoss | None = None, max_tokens: int = 8192, margins: np.ndarray | None = None, **optimizer
    ) -> RewardModelWorker:
        settings = AdamW(**({"learning_rate": 1e-2, "eps": 1e-3} | optimizer))
        config = SupervisedTraining(optimizer=settings, max_tokens_per_microbatch=max_tokens)
        data, loss = (CHOSEN, REJECTED), loss or PairwiseLoss()
        worker = RewardModelWorker(
            tiny_qwen2, tokenizer, config, loss or PairwiseLoss(), data, data, 50, Ranks(), margins
        )
        torch.nn.init.normal_(worker.trainer.inner.model.score.weight, generator=torch.Generator().manual_seed(1))
        return worker

    return make


def set_scores(worker: RewardModelWorker, monkeypatch, chosen: list[float], rejected: list[float]) -> None:
    monkeypatch.setattr(worker, "_score_all", lambda data: (np.array(chosen), np.array(rejected)))


def test_accuracy_counts_chosen_above_rejected_and_ties_as_half(make_worker, monkeypatch):
    worker = make_worker()
    set_scores(worker, monkeypatch, [2.0, 1.0, 0.0, 3.0], [1.0, 1.0, 5.0, 2.0])  # above, tie, below, above
    metrics = worker.evaluate()
    assert metrics["eval/accuracy"] == 0.625
    assert metrics["eval/num_pairs"] == 4.0
    assert metrics["eval/margin_mean"] == pytest.approx((1 + 0 - 5 + 1) / 4)
    wanted = np.mean([np.log1p(np.exp(-difference)) for difference in (1.0, 0.0, -5.0, 1.0)])
    assert metrics["eval/loss"] == pytest.approx(wanted)


def test_the_length_baseline_is_the_better_of_longer_and_shorter_and_counts_ties_as_half(make_worker):
    metrics = make_worker().evaluate()
    assert metrics["eval/longer_answer_accuracy"] == 0.375
    assert metrics["eval/length_baseline_accuracy"] == 0.625


def test_a_head_of_zeros_is_a_coin_flip(make_worker):
    worker = make_worker()
    torch.nn.init.zeros_(worker.trainer.inner.model.score.weight)
    metrics = worker.evaluate()
    assert metrics["eval/accuracy"] == 0.5
    assert metrics["eval/loss"] == pytest.approx(np.log(2))


def test_scores_are_those_of_each_sequence_alone(make_worker):
    worker = make_worker(max_tokens=20)
    chosen, rejected = worker._score_all((CHOSEN, REJECTED))
    model = worker.trainer.inner
    for data, scores in ((CHOSEN, chosen), (REJECTED, rejected)):
        for row in range(len(data)):
            tokens = torch.from_numpy(data.padded([row]))
            alone = model(tokens)[0, -1].item()
            assert scores[row] == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_the_step_loss_is_the_pair_mean_with_margin_and_centring(make_worker):
    loss = PairwiseLoss(margin=0.5, center_coef=0.1)
    worker = make_worker(loss)
    chosen, rejected = worker._score_all((CHOSEN, REJECTED))
    wanted = np.mean(np.logaddexp(0, rejected - chosen + 0.5) + 0.1 * (chosen + rejected) ** 2)
    metrics = worker.train_step(np.arange(4))
    assert metrics["reward_model/loss"] == pytest.approx(wanted, rel=1e-5)
    assert metrics["reward_model/accuracy"] == pytest.approx((chosen > rejected).mean())


def test_pairs_of_which_the_scores_lie_further_apart_get_a_larger_margin(make_worker):
    margins = np.array([0.0, 1.0, 2.5, 0.5], dtype=np.float32)
    worker = make_worker(PairwiseLoss(margin=0.5, margin_from_scores=0.3), max_tokens=24, margins=margins)
    chosen, rejected = worker._score_all((CHOSEN, REJECTED))
    rows = np.array([3, 1, 2])
    wanted = np.logaddexp(0, rejected - chosen + 0.5 + 0.3 * margins)[rows].mean()
    assert worker.train_step(rows)["reward_model/loss"] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 24])
def test_neither_loss_nor_weights_depend_on_the_micro_batch_size(make_worker, max_tokens):
    whole, split = make_worker(), make_worker(max_tokens=max_tokens)
    one, other = whole.train_step(np.arange(4)), split.train_step(np.arange(4))
    assert other["reward_model/loss"] == pytest.approx(one["reward_model/loss"], rel=1e-6)
    weights = dict(split.trainer.module.named_parameters())
    for name, weight in whole.trainer.module.named_parameters():
        assert (weights[name] - weight).abs().max() <= 2e-6 * max(1.0, weight.abs().max())


def test_the_loss_falls_and_the_accuracy_rises_on_a_toy_set(make_worker):
    worker = make_worker(eps=1e-8, learning_rate=5e-3)
    torch.nn.init.zeros_(worker.trainer.inner.model.score.weight)
    for _ in range(15):
        worker.train_step(np.arange(4))
    metrics = worker.evaluate()
    assert metrics["eval/loss"] < 0.5 * np.log(2)
    assert metrics["eval/accuracy"] == 1.0


def test_saving_stores_mean_and_deviation_of_all_training_scores(make_worker, tmp_path):
    worker = make_worker()
    scores = np.concatenate(worker._score_all((CHOSEN, REJECTED)))
    worker.save(tmp_path, {"step": 0})
    loaded = ScalarModel.load(str(tmp_path / "model"))
    assert loaded.statistics.mean == pytest.approx(scores.mean(), rel=1e-6)
    assert loaded.statistics.std == pytest.approx(scores.std(), rel=1e-6)


def test_a_saved_reward_model_scores_rollouts_normalized(make_worker, tmp_path, make_rollouts):
    worker = make_worker()
    worker.save(tmp_path, {"step": 0})
    rollouts = make_rollouts([(2, 3), (1, 1), (4, 2)])
    scorers = [
        RewardModelScorer(str(tmp_path / "model"), "last", normalize, ScorerConfig(), Ranks())
        for normalize in (False, True)
    ]
    raw, normalized = (scorer.score(rollouts) for scorer in scorers)
    statistics: RewardStatistics = ScalarModel.load(str(tmp_path / "model")).statistics
    order = np.argsort(raw.rows), np.argsort(normalized.rows)
    np.testing.assert_allclose(
        normalized.values[order[1]], (raw.values[order[0]] - statistics.mean) / statistics.std, rtol=1e-4, atol=1e-5
    )
    assert raw.values.std() > 0


def test_equal_scores_never_make_a_deviation_of_zero(make_worker):
    worker = make_worker()
    torch.nn.init.zeros_(worker.trainer.inner.model.score.weight)
    worker.before_save()
    assert worker.trainer.inner.statistics == RewardStatistics(0.0, 1e-6)
