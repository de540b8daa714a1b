"""Every architecture that docs/models.md lists: log-probabilities are the model's own, and nothing drops units."""

import re
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, tiny_causal_model

from rayrlhf.models.checkpoint import check_same_in_training, without_dropout
from rayrlhf.models.folder import ModelFolderError
from rayrlhf.models.policy import Policy, check_logprobs

DOCUMENT = Path(__file__).parents[3] / "docs/models.md"
TOKENS = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(1))
MASK = torch.arange(12).expand(2, 12) >= 4


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_log_probabilities_are_those_of_the_models_own_forward_pass(model_type):
    model = tiny_causal_model(model_type, dropout=0.5)
    with torch.no_grad():
        logits = model(TOKENS, use_cache=False).logits.float()
        wanted = torch.log_softmax(logits[:, :-1], -1).gather(-1, TOKENS[:, 1:, None]).squeeze(-1)
        wanted = torch.nn.functional.pad(wanted, (1, 0)) * MASK
        assert wanted.std() > 0.1, "the logits are spread, so a scale that is left out shows"
        policy = Policy(model)
        torch.testing.assert_close(policy(TOKENS, MASK).logprobs, wanted, rtol=1e-5, atol=1e-5)
        check_logprobs(policy, model_type)
        without_dropout(model)
        check_same_in_training(model, model_type)
        model.train()
        torch.testing.assert_close(policy(TOKENS, MASK).logprobs, wanted, rtol=1e-5, atol=1e-5)


def test_dropout_is_taken_out_of_the_modules_and_stays_in_the_configuration_that_is_saved():
    model = tiny_causal_model("falcon", dropout=0.5)
    without_dropout(model)
    assert model.config.hidden_dropout == 0.5
    assert model.transformer.config.hidden_dropout == 0.0


@pytest.mark.parametrize(
    ("model_type", "settings", "fix"),
    [
        ("mixtral", {"router_jitter_noise": 0.1}, "set router_jitter_noise to 0 in its config.json"),
        ("minimax_m2", {"router_jitter_noise": 0.1}, "set router_jitter_noise to 0 in its config.json"),
        ("dbrx", {"ffn_config": ARCHITECTURES["dbrx"]["ffn_config"] | {"moe_jitter_eps": 0.1}}, "train a model of"),
    ],
)
def test_a_model_that_adds_noise_in_training_is_not_trained_in_silence(monkeypatch, model_type, settings, fix):
    monkeypatch.setitem(ARCHITECTURES, model_type, ARCHITECTURES[model_type] | settings)
    model = tiny_causal_model(model_type)
    without_dropout(model)
    with pytest.raises(ModelFolderError, match=f"model 'x': .* something else in training than in evaluation.*{fix}"):
        check_same_in_training(model, "x")
    assert not model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [0.5, 1.2])
def test_an_architecture_whose_logits_would_be_wrong_is_refused(factor, dtype):
    class Scaled(type(tiny_causal_model("llama"))):
        """Scales its logits in a way that the head alone does not show."""

        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits = output.logits * (1.0 if self.model.__class__.__name__ == "_States" else factor)
            return output

    model = tiny_causal_model("llama").to(dtype)
    with torch.no_grad():
        model.lm_head.weight.mul_(8)  # as far apart as trained models' logits are
    model.__class__ = Scaled
    with pytest.raises(ModelFolderError, match=r"model 'x': log-probabilities of a Scaled would be wrong by .* nats"):
        check_logprobs(Policy(model), "x")


def test_the_document_lists_what_is_tested_here():
    listed = re.findall(r"`(\w+)`", DOCUMENT.read_text(encoding="utf-8").split("## Architectures")[1].split("\n## ")[0])
    assert sorted(listed) == sorted(ARCHITECTURES)
