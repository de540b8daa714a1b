"""A policy's log-probabilities: alignment, padding, chunks, temperature, and the folder it is saved to."""

import pytest
import torch

from rayrlhf.models import Policy, policy
from rayrlhf.models.policy import transformer_blocks

TOKENS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 0, 0]])
MASK = torch.tensor([[False, False, True, True, True], [False, True, True, False, False]])


def test_index_t_speaks_about_token_t(tiny_model):
    loaded = Policy.load(tiny_model)
    found = loaded(TOKENS, MASK, with_entropy=True)
    logits = loaded.model(TOKENS).logits
    every = torch.log_softmax(logits.float(), -1)
    for row in range(2):
        for t in range(5):
            wanted = every[row, t - 1, TOKENS[row, t]].item() if MASK[row, t] else 0.0
            assert found.logprobs[row, t].item() == pytest.approx(wanted, abs=1e-5)
            entropy = -(every[row, t - 1].exp() * every[row, t - 1]).sum().item() if MASK[row, t] else 0.0
            assert found.entropy[row, t].item() == pytest.approx(entropy, abs=1e-4)


def test_temperature_divides_the_logits(tiny_qwen2):
    loaded = Policy.load(tiny_qwen2)
    every = torch.log_softmax(loaded.model(TOKENS).logits.float() / 0.5, -1)
    found = loaded(TOKENS, MASK, temperature=0.5).logprobs
    assert found[0, 3].item() == pytest.approx(every[0, 2, 8].item(), abs=1e-5)


@pytest.mark.parametrize("padding", [1, 4])
def test_padding_never_changes_a_logprob(tiny_model, padding):
    loaded = Policy.load(tiny_model)
    tokens = torch.nn.functional.pad(TOKENS, (0, padding), value=17)
    mask = torch.nn.functional.pad(MASK, (0, padding))
    torch.testing.assert_close(
        loaded(tokens, mask).logprobs[:, :5], loaded(TOKENS, MASK).logprobs, rtol=1e-6, atol=1e-6
    )


def test_what_stands_in_the_padding_does_not_matter(tiny_model):
    loaded = Policy.load(tiny_model)
    other = TOKENS.clone()
    other[1, 3:] = 33
    torch.testing.assert_close(loaded(other, MASK).logprobs, loaded(TOKENS, MASK).logprobs, rtol=1e-6, atol=1e-6)


def test_chunks_of_logits_change_neither_logprobs_nor_gradients(tiny_model, monkeypatch):
    def run(rows: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        monkeypatch.setattr(policy, "LOGITS_CHUNK_ROWS", rows)
        loaded = Policy.load(tiny_model)
        found = loaded(TOKENS, MASK).logprobs
        found.sum().backward()
        return found, {name: parameter.grad for name, parameter in loaded.named_parameters()}

    (one, gradients), (pieces, piece_gradients) = run(1024), run(2)
    torch.testing.assert_close(pieces, one, rtol=1e-6, atol=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(piece_gradients[name], gradient, rtol=1e-5, atol=1e-6)


def test_an_empty_mask_gives_zeros_and_a_gradient_of_zero(tiny_qwen2):
    loaded = Policy.load(tiny_qwen2)
    found = loaded(TOKENS, torch.zeros_like(MASK)).logprobs
    assert (found == 0).all()
    assert found.shape == TOKENS.shape


def test_a_saved_policy_is_an_ordinary_folder_with_the_same_logits(tiny_model, tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = Policy.load(tiny_model)
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(0.01)
    loaded.save(tmp_path, tokenizer)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again(TOKENS).logits, loaded.model(TOKENS).logits)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


def test_blocks_are_the_transformer_layers(tiny_model):
    loaded = Policy.load(tiny_model)
    assert [type(block).__name__[-12:] for block in loaded.blocks()] == ["DecoderLayer"] * 2
    assert transformer_blocks(torch.nn.Linear(2, 2)) == []
