"""What a folder's weights lack is found out: heads, whole layers, other shapes; and what a reward model must have."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from architectures import COMMON
from safetensors.torch import load_file, save_file

from rayrlhf.models import ModelFolderError, Policy, ScalarModel
from rayrlhf.models.checkpoint import stored_shapes
from rayrlhf.models.scalar import check_reward_model
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.roles.critic import CRITIC
from rayrlhf.training.parallel import Ranks
from rayrlhf.workers.scorer import RewardModelScorer, ScorerConfig

TOKENS = torch.tensor([[5, 6, 7, 8], [10, 11, 12, 13]])


@pytest.fixture
def reward_model(tiny_qwen2, tokenizer, tmp_path) -> Path:
    """A folder with a head that is not zero."""
    scalar = ScalarModel.load(tiny_qwen2)
    torch.nn.init.normal_(scalar.model.score.weight, generator=torch.Generator().manual_seed(0))
    scalar.save(tmp_path / "reward_model", tokenizer)
    return tmp_path / "reward_model"


def changed(folder: Path, weights=None, **config) -> str:
    """The folder with other settings in config.json, and other weights."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    if weights is not None:
        file = folder / "model.safetensors"
        save_file(weights(load_file(file)), file, metadata={"format": "pt"})
    return str(folder)


@pytest.mark.parametrize("architectures", [None, ["RewardModel"], ["Qwen2ForRewardModel"], ["Qwen2ForCausalLM"]])
def test_a_trained_head_scores_whatever_the_configuration_calls_its_architecture(
    reward_model, architectures, make_rollouts
):
    rollouts = make_rollouts([(2, 3), (2, 2), (1, 3)])

    def scores() -> np.ndarray:
        return RewardModelScorer(str(reward_model), "last", True, ScorerConfig(), Ranks()).score(rollouts).values

    wanted = scores()
    assert np.ptp(wanted) > 0.01
    changed(reward_model, architectures=architectures)
    check_reward_model(str(reward_model))
    np.testing.assert_array_equal(scores(), wanted)


def test_a_language_model_is_no_reward_model(tiny_model, make_rollouts):
    for refuse in (check_reward_model, lambda folder: RewardModelScorer(folder, "last", True, ScorerConfig(), Ranks())):
        with pytest.raises(ModelFolderError, match=r"no trained scalar head \(score\.weight\) in the folder"):
            refuse(tiny_model)


def test_a_head_of_several_outputs_is_no_reward_model(reward_model):
    def two(weights):
        return weights | {"score.weight": torch.zeros(2, 32)}

    folder = changed(reward_model, two)
    assert stored_shapes(folder)["score.weight"] == (2, 32)
    with pytest.raises(ModelFolderError, match=r"its head gives 2 numbers"):
        check_reward_model(folder)
    with pytest.raises(
        ModelFolderError, match=r"'score.weight' has shape \[2, 32\] in the folder, but .* needs \[1, 32\]"
    ):
        ScalarModel.load(folder)


def test_a_pickled_checkpoint_is_read_by_its_names_too(reward_model):
    file = reward_model / "model.safetensors"
    weights = load_file(file)
    torch.save(weights, reward_model / "pytorch_model.bin")
    file.unlink()
    assert stored_shapes(str(reward_model)) == {name: tuple(tensor.shape) for name, tensor in weights.items()}
    check_reward_model(str(reward_model))


def test_a_checkpoint_of_before_torch_1_6_is_read_too(reward_model, make_rollouts):
    rollouts = make_rollouts([(2, 3), (2, 2)])
    wanted = RewardModelScorer(str(reward_model), "last", True, ScorerConfig(), Ranks()).score(rollouts).values
    file = reward_model / "model.safetensors"
    torch.save(load_file(file), reward_model / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    file.unlink()
    check_reward_model(str(reward_model))
    scorer = RewardModelScorer(str(reward_model), "last", True, ScorerConfig(), Ranks())
    np.testing.assert_array_equal(scorer.score(rollouts).values, wanted)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("model.safetensors", bytes(100)),
        ("model.safetensors", None),  # cut off
        ("pytorch_model.bin", b"version https://git-lfs.github.com/spec/v1\n"),
        ("pytorch_model.bin", b"PK\x03\x04"),
        ("pytorch_model.bin", b""),
    ],
)
@pytest.mark.parametrize("load", [Policy.load, ScalarModel.load, check_reward_model])
def test_a_weight_file_that_is_broken_is_named(reward_model, load, name, content):
    whole = (reward_model / "model.safetensors").read_bytes()
    (reward_model / "model.safetensors").unlink()
    (reward_model / name).write_bytes(whole[:-1] if content is None else content)
    with pytest.raises(ModelFolderError, match=rf"model '.*': {name} cannot be read \(.*git lfs pull"):
        load(str(reward_model))


def test_a_part_that_is_missing_is_named(reward_model):
    weights = load_file(reward_model / "model.safetensors")
    (reward_model / "model.safetensors").unlink()
    torch.save({"score.weight": weights["score.weight"]}, reward_model / "pytorch_model-00001-of-00002.bin")
    parts = {name: f"pytorch_model-0000{1 + (name != 'score.weight')}-of-00002.bin" for name in weights}
    index = {"metadata": {}, "weight_map": parts}
    (reward_model / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFolderError, match=r"its weights cannot be read: .*pytorch_model-00002-of-00002\.bin"):
        ScalarModel.load(str(reward_model))


def test_a_type_that_can_have_no_scalar_head_is_refused_as_a_critic_before_anything_starts(tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("cohere", **COMMON)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "cohere")
    rules = {"kind": "rules", "rules": [{"kind": "length", "max": 9}]}
    run = PPOConfig(
        **{"run": {"name": "x"}, "model": str(tmp_path / "cohere"), "data": {"train": ["prompts.jsonl"]}},
        reward={"source": rules},
    )
    for refuse in (lambda: CRITIC.check(run), lambda: ScalarModel.load(run.model)):
        with pytest.raises(
            ModelFolderError, match=r"no sequence-classification model of type 'cohere'.*without a critic"
        ):
            refuse()


@pytest.mark.parametrize("load", [Policy.load, ScalarModel.load])
def test_weights_that_are_missing_are_not_made_up(tiny_qwen2, tmp_path, load):
    folder = Path(shutil.copytree(tiny_qwen2, tmp_path / "model"))
    name = "model.layers.1.mlp.up_proj.weight"
    broken = changed(folder, lambda weights: {key: value for key, value in weights.items() if key != name})
    with pytest.raises(
        ModelFolderError, match=rf"1 weights of Qwen2For\w+ are not in the folder, for example '{name}'"
    ):
        load(broken)


def test_a_configuration_of_another_size_is_refused(tiny_qwen2, tmp_path):
    folder = Path(shutil.copytree(tiny_qwen2, tmp_path / "model"))
    with pytest.raises(
        ModelFolderError, match=r"has shape \[32, 64\] in the folder, but Qwen2ForCausalLM needs \[32, 48\]"
    ):
        Policy.load(changed(folder, intermediate_size=48))


def test_scores_have_more_than_bfloat16s_digits_where_the_transformer_computes_in_it(reward_model):
    model = ScalarModel.load(str(reward_model))
    tokens = torch.randint(4, 200, (256, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        scores = model.scores(tokens, torch.full((256,), 20))
    assert scores.dtype == torch.float32
    assert (scores == scores.bfloat16().float()).float().mean() < 0.1
    assert len(scores.unique()) > 250


def test_a_float32_head_takes_the_rounding_of_logits_out(tiny_qwen2):
    tokens = torch.randint(4, 300, (8, 30), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False

    def logits_and_logprobs(float32_head: bool) -> tuple[torch.Tensor, torch.Tensor]:
        policy = Policy.load(tiny_qwen2, torch.bfloat16, float32_head=float32_head)
        with torch.no_grad():
            return policy.model(tokens).logits, policy(tokens, mask).logprobs

    (rounded, _), (exact, logprobs) = logits_and_logprobs(False), logits_and_logprobs(True)
    assert rounded.dtype == torch.bfloat16 and exact.dtype == torch.float32
    assert (exact.bfloat16() == rounded).float().mean() > 0.95, "the same head"
    wanted = torch.log_softmax(exact[:, :-1], -1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(logprobs[:, 1:], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "statistics",
    [
        {"mean": 0.0, "std": 0.0},
        {"mean": 0.0, "std": -1.0},
        {"mean": math.nan, "std": 1.0},
        {"mean": 0.0, "std": math.inf},
        {"mean": 0.0, "std": "1"},
        {"mean": 0.0},
        {"mean": 0.0, "std": 1.0, "count": 3},
        {},
        [0.0, 1.0],
    ],
)
def test_score_statistics_that_cannot_be_used_are_refused_with_the_fix(reward_model, statistics):
    folder = changed(reward_model, reward_statistics=statistics)
    for refuse in (check_reward_model, ScalarModel.load):
        with pytest.raises(ModelFolderError, match=r"reward_statistics in its config\.json is .*remove it"):
            refuse(folder)
