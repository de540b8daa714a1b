"""Scalar heads: where a score and a value are read, and the statistics beside them."""

import pytest
import torch

from rayrlhf.models import RewardStatistics, ScalarModel
from rayrlhf.models.scalar import pool_scores, shift_to_states

TOKENS = torch.tensor([[5, 6, 7, 8], [10, 11, 0, 0]])


@pytest.fixture
def model(tiny_qwen2) -> ScalarModel:
    loaded = ScalarModel.load(tiny_qwen2)
    torch.nn.init.normal_(loaded.model.score.weight, generator=torch.Generator().manual_seed(0))
    return loaded


def test_a_new_head_starts_at_zero(tiny_model):
    assert (ScalarModel.load(tiny_model)(TOKENS) == 0).all()


def test_a_trained_head_is_kept_and_loads_as_an_ordinary_classifier(model, tokenizer, tmp_path):
    from transformers import AutoModelForSequenceClassification

    model.save(tmp_path, tokenizer)
    torch.testing.assert_close(ScalarModel.load(str(tmp_path))(TOKENS), model(TOKENS))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    lengths = torch.tensor([4, 2])
    padded = TOKENS.clone()
    padded[1, 2:] = tokenizer.pad_token_id
    torch.testing.assert_close(plain(padded).logits.squeeze(-1), model.scores(TOKENS, lengths))


def test_a_score_is_read_at_the_last_real_token_or_averaged_over_real_tokens():
    outputs = torch.tensor([[1.0, 2.0, 3.0], [4.0, 6.0, 99.0]])
    lengths = torch.tensor([3, 2])
    assert pool_scores(outputs, lengths, "last").tolist() == [3.0, 6.0]
    assert pool_scores(outputs, lengths, "mean").tolist() == [2.0, 5.0]


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_padding_never_changes_a_score(model, pooling):
    padded = torch.nn.functional.pad(TOKENS, (0, 3), value=21)
    lengths = torch.tensor([4, 2])
    torch.testing.assert_close(model.scores(padded, lengths, pooling), model.scores(TOKENS, lengths, pooling))


def test_the_value_of_a_token_is_the_heads_output_before_it(model):
    mask = torch.tensor([[False, True, True, True], [False, True, False, False]])
    outputs, values = model(TOKENS), model.values(TOKENS, mask)
    torch.testing.assert_close(values[0], torch.cat([torch.zeros(1), outputs[0, :3]]))
    torch.testing.assert_close(values[1], torch.tensor([0, outputs[1, 0].item(), 0, 0]))


def test_values_are_zero_outside_the_mask_even_where_the_head_is_nan():
    outputs = torch.tensor([[1.0, float("nan"), 3.0]])
    assert shift_to_states(outputs, torch.tensor([[0, 1, 0]])).tolist() == [[0.0, 1.0, 0.0]]


def test_statistics_are_stored_in_the_folder_and_read_back(model, tokenizer, tmp_path):
    assert model.statistics == RewardStatistics(0.0, 1.0)
    model.statistics = RewardStatistics(mean=-1.5, std=2.0)
    model.save(tmp_path, tokenizer)
    assert ScalarModel.load(str(tmp_path)).statistics == RewardStatistics(-1.5, 2.0)


def test_normalized_scores_have_the_stored_mean_at_zero():
    scores = RewardStatistics(mean=3.0, std=2.0).normalize(torch.tensor([3.0, 5.0, -1.0]))
    assert scores.tolist() == [0.0, 1.0, -2.0]
