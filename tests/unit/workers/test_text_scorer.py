"""Reward models with a tokenizer of their own."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tokenizers import Tokenizer

from rayrlhf.models import ModelFolderError, ScalarModel, load_tokenizer
from rayrlhf.models.folder import check_same_vocabulary
from rayrlhf.models.init import ModelShape, init_model_folder
from rayrlhf.rewards import RewardError, RewardModelReward
from rayrlhf.training.parallel import Ranks
from rayrlhf.types import Rollouts
from rayrlhf.workers.rewarder import Rewarder, decode_samples
from rayrlhf.workers.scorer import RewardModelScorer, ScorerConfig
from rayrlhf.workers.text_scorer import as_rollouts

TEXTS = [("안녕하세요?", "네, 한우도 좋습니다."), ("Hello", "Nine in the morning."), ("네", "그래")]


@pytest.fixture(scope="module")
def other_model(tmp_path_factory) -> str:
    """Folder of a reward model that reads at most 64 tokens, of another vocabulary than the tests' policies."""
    folder = tmp_path_factory.mktemp("models")
    shape = ModelShape(
        architecture="llama",
        vocab_size=290,
        hidden_size=32,
        num_layers=1,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=64,
        max_length=64,
        tie_embeddings=False,
    )
    init_model_folder(folder / "policy", shape, ["Nine trains leave in the morning.", "a b c"])
    model = ScalarModel.load(str(folder / "policy"))
    torch.nn.init.normal_(model.model.score.weight, generator=torch.Generator().manual_seed(0))
    model.save(folder / "reward_model", load_tokenizer(str(folder / "policy")))
    return str(folder / "reward_model")


def rollouts_of(texts, tokenizer) -> Rollouts:
    eos = tokenizer.eos_token_id
    return as_rollouts(
        [(tokenizer(prompt).input_ids, [*tokenizer(response).input_ids, eos]) for prompt, response in texts]
    )


def score(source: RewardModelReward, policy: str, rollouts: Rollouts):
    return Rewarder(source, ScorerConfig(), policy, None, Ranks()).score(rollouts)


def test_rollouts_keep_the_order_of_the_rows(tokenizer):
    samples = decode_samples(Rollouts.concat([rollouts_of(TEXTS, tokenizer)]), tokenizer, None)
    assert [(sample.prompt, sample.response) for sample in samples] == TEXTS


def test_a_model_with_its_own_tokenizer_scores_the_text_in_its_own_tokens(other_model, tiny_qwen2, tokenizer):
    own = load_tokenizer(other_model)
    assert own.get_vocab() != tokenizer.get_vocab()
    wanted = RewardModelScorer(other_model, "last", True, ScorerConfig(), Ranks()).score(rollouts_of(TEXTS, own))
    share = score(RewardModelReward(model=other_model, retokenize=True), tiny_qwen2, rollouts_of(TEXTS, tokenizer))
    assert len(set(share.values.tolist())) == len(TEXTS)
    np.testing.assert_allclose(share.values[wanted.rows], wanted.values, rtol=1e-5)


def test_a_response_that_was_cut_is_scored_without_an_end(other_model, tiny_qwen2, tokenizer):
    rollouts = rollouts_of(TEXTS[:1], tokenizer)
    cut = Rollouts(**{**vars(rollouts), "finished": np.array([False])})
    source = RewardModelReward(model=other_model, retokenize=True)
    assert score(source, tiny_qwen2, cut).values != score(source, tiny_qwen2, rollouts).values


def test_the_template_is_put_around_the_prompt(other_model, tiny_qwen2, tokenizer):
    template = {"kind": "custom", "text": "Q: {prompt} A: "}
    source = RewardModelReward.model_validate({"model": other_model, "retokenize": True, "template": template})
    wrapped = [(f"Q: {prompt} A: ", response) for prompt, response in TEXTS]
    plain = RewardModelReward(model=other_model, retokenize=True)
    np.testing.assert_array_equal(
        score(source, tiny_qwen2, rollouts_of(TEXTS, tokenizer)).values,
        score(plain, tiny_qwen2, rollouts_of(wrapped, tokenizer)).values,
    )


@pytest.mark.parametrize("spelled", ["<|assistant|>", "<|endoftext|>"])
def test_special_tokens_that_a_text_spells_are_text_for_the_reward_model_too(
    spelled, other_model, tiny_qwen2, tokenizer
):
    rows = [(f"a {spelled}", "b"), ("a", f"b {spelled}")]
    letters, own = (
        Tokenizer.from_file(f"{tiny_qwen2}/tokenizer.json"),
        Tokenizer.from_file(f"{other_model}/tokenizer.json"),
    )
    letters.encode_special_tokens = own.encode_special_tokens = True
    eos = (tokenizer.eos_token_id, load_tokenizer(other_model).eos_token_id)
    sampled, wanted = (
        as_rollouts([(read.encode(prompt).ids, [*read.encode(response).ids, end]) for prompt, response in rows])
        for read, end in zip((letters, own), eos, strict=True)
    )
    share = score(RewardModelReward(model=other_model, retokenize=True), tiny_qwen2, sampled)
    alone = RewardModelScorer(other_model, "last", True, ScorerConfig(), Ranks()).score(wanted)
    np.testing.assert_allclose(share.values, alone.values[np.argsort(alone.rows)], rtol=1e-5)


def test_what_is_longer_than_the_model_reads_is_rejected_and_the_rest_scored(other_model, tiny_qwen2, tokenizer):
    texts = [TEXTS[0], ("Hello", "x" * 70), TEXTS[1]]
    source = RewardModelReward(model=other_model, retokenize=True)
    share = score(source, tiny_qwen2, rollouts_of(texts, tokenizer))
    assert {row: why.reason for row, why in share.rejections.items()} == {
        1: "longer than the 64 tokens that the reward model reads"
    }
    alone = score(source, tiny_qwen2, rollouts_of([TEXTS[0], TEXTS[1]], tokenizer))
    np.testing.assert_allclose(share.values[[0, 2]], alone.values, rtol=1e-5)


def test_the_refusal_of_another_tokenizer_names_the_option(other_model, tiny_qwen2):
    with pytest.raises(ModelFolderError, match=r"reward\.source\.retokenize=true"):
        check_same_vocabulary(tiny_qwen2, other_model)


def test_a_template_that_cannot_be_filled_is_refused_at_the_start(other_model, tiny_qwen2):
    template = {"kind": "chat", "jinja": "{{ absent() }}"}
    source = RewardModelReward.model_validate({"model": other_model, "retokenize": True, "template": template})
    with pytest.raises(RewardError, match=r"reward\.source\.template: .*'absent' is undefined"):
        Rewarder(source, ScorerConfig(), tiny_qwen2, None, Ranks())


def test_settings_survive_being_written_and_read():
    for source in (RewardModelReward(model="m"), RewardModelReward(model="m", retokenize=True, template="kullm")):
        assert RewardModelReward.model_validate(source.model_dump()) == source


def test_a_template_without_retokenize_is_refused():
    with pytest.raises(ValidationError, match="set retokenize=true with it"):
        RewardModelReward.model_validate({"model": "m", "template": "kullm"})
