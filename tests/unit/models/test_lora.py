"""Low-rank adapters: which layers get one, what they compute, and what is written of them."""

import json

import pytest
import torch

from rayrlhf.config import ConfigError, parse_config
from rayrlhf.models import LoraConfig, Policy, ScalarModel, check_lora
from rayrlhf.models.lora import add_adapters, linear_names, trained_share

TOKENS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]])
MASK = torch.tensor([[False, False, True, True, True], [False, True, True, False, False]])
LAYERS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def adapted(folder: str, kind=Policy, dtype: torch.dtype = torch.float32, fresh: bool = False, **lora):
    """A model with adapters that, unless fresh, already change what it computes."""
    loaded = kind.load(folder, dtype)
    add_adapters(loaded.model, LoraConfig(**lora))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in loaded.named_parameters():
            if not fresh and ("lora_B" in name or "score" in name):
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return loaded


# settings


@pytest.mark.parametrize("bad", [{"rank": 0}, {"rank": -1}, {"alpha": 0}, {"dropout": 1.0}, {"base": "4bit"}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        parse_config(LoraConfig, bad, "x.yaml")


@pytest.mark.parametrize("targets", ["q_proj", [], [1], None])
def test_targets_that_are_no_list_of_names_get_one_message_with_the_fix(targets):
    with pytest.raises(ConfigError) as caught:
        parse_config(LoraConfig, {"target_modules": targets}, "x.yaml")
    assert "1 setting to fix" in str(caught.value)
    assert "[q_proj, v_proj]" in str(caught.value)


def test_targets_may_be_a_list():
    assert parse_config(LoraConfig, {"target_modules": ["q_proj"]}, "x.yaml").target_modules == ("q_proj",)


@pytest.mark.parametrize("target", ["q_proj", "self_attn.q_proj", "model.layers.1.mlp.up_proj"])
def test_ends_of_names_match_whole_parts(tiny_model, target):
    check_lora(tiny_model, LoraConfig(target_modules=(target,)))
    with pytest.raises(ConfigError):
        check_lora(tiny_model, LoraConfig(target_modules=(target[1:],)))


@pytest.mark.parametrize("target", ["c_attn", "embed_tokens", "lm_head", "input_layernorm"])
def test_a_target_that_matches_no_linear_layer_is_refused_with_the_names_there_are(tiny_model, target):
    with pytest.raises(ConfigError) as caught:
        check_lora(tiny_model, LoraConfig(target_modules=("q_proj", target)), "policy.lora")
    message = str(caught.value)
    assert f"policy.lora.target_modules: {target} matches" in message
    assert all(name in message for name in LAYERS)


def test_all_linear_layers_are_those_of_the_transformer(tiny_model):
    for kind in (Policy, ScalarModel):
        names = linear_names(kind.load(tiny_model).model)
        assert len(names) == 14
        assert {name.rpartition(".")[2] for name in names} == LAYERS


def test_a_model_whose_layers_are_conv1d_is_adapted_and_merged_too():
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = AutoConfig.for_model("gpt2", vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    loaded = Policy(AutoModelForCausalLM.from_config(shape).eval())
    add_adapters(loaded.model, LoraConfig(rank=2))
    with torch.no_grad():
        for name, parameter in loaded.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(0))
    plain = Policy(AutoModelForCausalLM.from_config(shape).eval())
    before = plain(TOKENS, MASK).logprobs
    plain.model.load_state_dict(dict(loaded.weights()))
    torch.testing.assert_close(plain(TOKENS, MASK).logprobs, loaded(TOKENS, MASK).logprobs, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before, loaded(TOKENS, MASK).logprobs, atol=1e-2)


def test_the_share_that_is_trained_is_counted_before_any_weight_is_loaded(tiny_model):
    loaded = adapted(tiny_model, rank=4)
    trained = sum(p.numel() for p in loaded.parameters() if p.requires_grad)
    base = sum(p.numel() for p in Policy.load(tiny_model).parameters())
    assert trained_share(tiny_model, LoraConfig(rank=4)) == pytest.approx(trained / base)


# what adapters compute


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_lora_policy_gives_exactly_the_logprobs_of_its_base(tiny_model, dtype):
    fresh = adapted(tiny_model, dtype=dtype, fresh=True)
    assert torch.equal(fresh(TOKENS, MASK).logprobs, Policy.load(tiny_model, dtype)(TOKENS, MASK).logprobs)


def test_adapters_start_the_same_on_every_rank_and_leave_the_random_state_alone(tiny_qwen2):
    torch.manual_seed(1)
    one = dict(adapted(tiny_qwen2, fresh=True).named_parameters())
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))
    other = dict(adapted(tiny_qwen2, fresh=True).named_parameters())
    assert all(torch.equal(one[name], parameter) for name, parameter in other.items())
    assert any("lora_A" in name and parameter.any() for name, parameter in one.items())


def test_merged_weights_give_the_lora_policys_logprobs_and_leave_it_as_it_is(tiny_model):
    loaded = adapted(tiny_model, rank=4, alpha=6.0, target_modules=("q_proj", "down_proj"))
    before = {name: parameter.clone() for name, parameter in loaded.named_parameters()}
    plain = Policy.load(tiny_model)
    base = plain(TOKENS, MASK).logprobs
    names = dict(plain.weights()).keys()
    plain.model.load_state_dict(dict(loaded.weights()))
    torch.testing.assert_close(plain(TOKENS, MASK).logprobs, loaded(TOKENS, MASK).logprobs, rtol=0, atol=1e-5)
    assert not torch.allclose(base, loaded(TOKENS, MASK).logprobs, atol=1e-2)
    assert dict(loaded.weights()).keys() == names
    assert all(torch.equal(before[name], parameter) for name, parameter in loaded.named_parameters())


def test_merged_weights_have_the_dtype_of_the_base(tiny_qwen2):
    loaded = adapted(tiny_qwen2, dtype=torch.bfloat16)
    assert {tensor.dtype for _, tensor in loaded.weights()} == {torch.bfloat16}


def test_the_output_head_of_a_tied_model_is_still_sent(tiny_qwen2):
    weights = dict(adapted(tiny_qwen2).weights())
    assert torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])


# what is written


def test_the_saved_folder_is_the_merged_model_and_the_adapter_loads_onto_the_base(tiny_model, tokenizer, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded = adapted(tiny_model, rank=4).eval()
    loaded.save(tmp_path, tokenizer)
    wanted = loaded.model(TOKENS).logits
    merged = AutoModelForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(merged(TOKENS).logits, wanted, rtol=0, atol=1e-5)
    stored = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (stored["base_model_name_or_path"], stored["r"], stored["lora_alpha"]) == (tiny_model, 4, 16.0)
    base = AutoModelForCausalLM.from_pretrained(stored["base_model_name_or_path"])
    assert torch.equal(PeftModel.from_pretrained(base, tmp_path / "adapter")(TOKENS).logits, wanted)


def test_a_saved_reward_model_keeps_its_head_in_both_forms(tiny_qwen2, tokenizer, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    loaded = adapted(tiny_qwen2, ScalarModel, target_modules=("v_proj",)).eval()
    loaded.save(tmp_path, tokenizer)
    wanted = loaded(TOKENS)
    assert wanted.abs().max() > 0.1
    torch.testing.assert_close(ScalarModel.load(str(tmp_path))(TOKENS), wanted, rtol=0, atol=1e-5)
    base = AutoModelForSequenceClassification.from_pretrained(tiny_qwen2, num_labels=1)
    base.config.pad_token_id = tokenizer.pad_token_id
    again = PeftModel.from_pretrained(base, tmp_path / "adapter")
    lengths = torch.tensor([5, 3])
    padded = TOKENS.masked_fill(torch.arange(5) >= lengths.unsqueeze(1), tokenizer.pad_token_id)
    torch.testing.assert_close(again(padded).logits.squeeze(-1), loaded.scores(TOKENS, lengths), rtol=0, atol=1e-6)


def test_a_policy_without_adapters_writes_none(tiny_qwen2, tokenizer, tmp_path):
    Policy.load(tiny_qwen2).save(tmp_path, tokenizer)
    assert not (tmp_path / "adapter").exists()
