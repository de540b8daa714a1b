"""The formulas, against values worked out by hand and against torch."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, tensor

from rayrlhf.functional import (
    chunked_token_logprobs,
    gae,
    kl_k1,
    kl_k2,
    kl_k3,
    last_masked,
    masked_mean,
    masked_sum,
    masked_whiten,
    pairwise_loss,
    token_logprobs,
)

NAN = float("nan")


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-6) -> bool:
    return torch.allclose(found, wanted, rtol=tolerance, atol=tolerance)


# log-probabilities


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
def test_token_logprobs_are_those_of_log_softmax_at_the_temperature(temperature):
    logits = torch.randn(11, 17, generator=torch.Generator().manual_seed(0)) * 3
    targets = torch.arange(11) % 17
    every = torch.log_softmax(logits / temperature, dim=-1)
    found = token_logprobs(logits, targets, temperature, with_entropy=True)
    assert close(found.logprobs, every[torch.arange(11), targets], 1e-5)
    assert close(found.entropy, -(every.exp() * every).sum(-1), 1e-5)


def test_token_logprobs_of_two_equal_logits_are_log_a_half():
    found = token_logprobs(tensor([[5.0, 5.0]]), tensor([1]), with_entropy=True)
    assert found.logprobs.item() == pytest.approx(-math.log(2))
    assert found.entropy.item() == pytest.approx(math.log(2))


def test_token_logprobs_stay_finite_for_huge_logits():
    found = token_logprobs(tensor([[1e4, 0.0]]), tensor([1]), with_entropy=True)
    assert found.logprobs.item() == pytest.approx(-1e4)
    assert found.entropy.item() == pytest.approx(0.0)


def test_token_logprobs_are_computed_in_float32_from_bfloat16_logits():
    logits = torch.randn(5, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = token_logprobs(logits, torch.arange(5), with_entropy=True)
    assert found.logprobs.dtype == torch.float32
    assert close(found.logprobs, torch.log_softmax(logits.float(), -1)[torch.arange(5), torch.arange(5)])


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_chunked_logprobs_and_their_gradients_are_those_of_one_piece(chunk_size):
    def run(size: int) -> tuple[Tensor, ...]:
        generator = torch.Generator().manual_seed(0)
        head = torch.nn.Linear(6, 13)
        with torch.no_grad():
            head.weight.copy_(torch.randn(13, 6, generator=generator))
            head.bias.zero_()
        hidden = torch.randn(7, 6, generator=generator).requires_grad_()
        found = chunked_token_logprobs(
            head, hidden, torch.arange(7), temperature=0.8, chunk_size=size, with_entropy=True
        )
        (found.logprobs * torch.arange(7) + found.entropy).sum().backward()
        return found.logprobs, found.entropy, hidden.grad, head.weight.grad

    for whole, pieces in zip(run(7), run(chunk_size), strict=True):
        assert close(pieces, whole, 1e-5)
    assert run(chunk_size)[3].abs().max() > 0


def test_chunked_logprobs_of_no_rows_are_empty():
    found = chunked_token_logprobs(torch.nn.Linear(6, 13), torch.zeros(0, 6), torch.zeros(0, dtype=torch.long))
    assert found.logprobs.shape == (0,)


# masks


def test_masked_mean_ignores_nan_outside_the_mask():
    assert masked_mean(tensor([1.0, NAN, 3.0]), tensor([1, 0, 1])).item() == 2.0


def test_masked_sum_passes_no_gradient_to_nan_outside_the_mask():
    values = tensor([1.0, NAN, 3.0], requires_grad=True)
    masked_sum(values, tensor([True, False, True])).backward()
    assert values.grad.tolist() == [1.0, 0.0, 1.0]


def test_masked_mean_of_an_empty_mask_is_zero():
    assert masked_mean(tensor([1.0, NAN]), tensor([0, 0])).item() == 0.0


@given(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=20), st.integers(0, 2**31))
def test_whitened_values_have_mean_zero_and_unbiased_variance_one_over_the_mask(numbers, seed):
    numbers = [*numbers, 60.0, -60.0]  # never all equal
    mask = torch.rand(len(numbers), generator=torch.Generator().manual_seed(seed)) < 0.7
    mask[-2:] = True
    whitened = masked_whiten(tensor(numbers), mask)
    assert whitened[mask].mean().item() == pytest.approx(0, abs=1e-5)
    assert whitened[mask].var(unbiased=True).item() == pytest.approx(1, abs=1e-4)
    assert (whitened[~mask] == 0).all()


def test_whitening_by_hand_and_without_shift():
    values, mask = tensor([1.0, 3.0, 99.0]), tensor([1, 1, 0])  # mean 2, unbiased variance 2
    assert close(masked_whiten(values, mask), tensor([-(2**-0.5), 2**-0.5, 0.0]))
    assert close(masked_whiten(values, mask, shift_mean=False), tensor([2 - 2**-0.5, 2 + 2**-0.5, 0.0]))


def test_whitening_does_not_see_padding():
    values = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    mask = tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 1, 1, 0]])
    padded = torch.nn.functional.pad(values, (0, 3, 0, 2), value=NAN)
    padded_mask = torch.nn.functional.pad(mask, (0, 3, 0, 2))
    found = masked_whiten(padded, padded_mask)
    assert close(found[:3, :4], masked_whiten(values, mask))
    assert (found[padded_mask == 0] == 0).all()


def test_whitening_of_one_value_only_shifts_it():
    assert masked_whiten(tensor([5.0, 7.0]), tensor([1, 0])).tolist() == [0.0, 0.0]
    assert masked_whiten(tensor([5.0, 7.0]), tensor([1, 0]), shift_mean=False).tolist() == [5.0, 0.0]


def test_whitening_of_equal_values_is_finite():
    assert masked_whiten(tensor([2.0, 2.0, 2.0]), tensor([1, 1, 1])).tolist() == [0.0, 0.0, 0.0]


# KL


def test_kl_estimators_at_known_log_ratios():
    log_ratio = tensor([0.0, 1.0, -1.0])
    assert kl_k1(log_ratio).tolist() == [0.0, 1.0, -1.0]
    assert kl_k2(log_ratio).tolist() == [0.0, 0.5, 0.5]
    assert close(kl_k3(log_ratio), tensor([0.0, math.exp(-1), math.e - 2]))


@given(st.floats(-5, 5))
def test_k2_and_k3_are_never_negative(log_ratio):
    assert kl_k2(tensor(log_ratio)).item() >= 0
    assert kl_k3(tensor(log_ratio)).item() >= -1e-6


def test_k1_and_k3_are_unbiased_on_samples_and_k3_varies_less():
    generator = torch.Generator().manual_seed(0)
    p = torch.log_softmax(torch.randn(20, generator=generator, dtype=torch.float64) * 0.3, -1)
    q = torch.log_softmax(torch.randn(20, generator=generator, dtype=torch.float64) * 0.3, -1)
    exact = (p.exp() * (p - q)).sum().item()
    drawn = torch.multinomial(p.exp(), 200_000, replacement=True, generator=generator)
    estimates = {name: k((p - q)[drawn]) for name, k in (("k1", kl_k1), ("k3", kl_k3))}
    for estimate in estimates.values():
        standard_error = estimate.std().item() / len(drawn) ** 0.5
        assert estimate.mean().item() == pytest.approx(exact, abs=4 * standard_error)
        assert 4 * standard_error < exact / 5  # sharp enough to tell
    assert estimates["k3"].var() < estimates["k1"].var() / 2


# GAE


def test_gae_of_three_tokens_by_hand():
    # γ = .9, λ = .5: δ = (1 + .9·1 − 2, 0 + .9·4 − 1, 3 − 4) = (−.1, 2.6, −1)
    # A₃ = −1, A₂ = 2.6 − .45 = 2.15, A₁ = −.1 + .45·2.15 = .8675
    advantages, returns = gae(
        tensor([[1.0, 0.0, 3.0]]), tensor([[2.0, 1.0, 4.0]]), torch.ones(1, 3), gamma=0.9, lam=0.5
    )
    assert close(advantages, tensor([[0.8675, 2.15, -1.0]]))
    assert close(returns, tensor([[2.8675, 3.15, 3.0]]))


def test_gae_with_lambda_one_is_return_minus_value():
    generator = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(4, 6, generator=generator), torch.randn(4, 6, generator=generator)
    advantages, returns = gae(rewards, values, torch.ones(4, 6), gamma=1.0, lam=1.0)
    to_go = rewards.flip(1).cumsum(1).flip(1)
    assert close(advantages, to_go - values, 1e-5)
    assert close(returns, to_go, 1e-5)


def reference_gae(rewards, values, gamma, lam):
    """Eq. 16 of Schulman et al. (2016) as a sum over all later tokens, in float64."""
    later = [*values, 0.0][1:]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, later, values, strict=True)]
    return [sum((gamma * lam) ** (s - t) * deltas[s] for s in range(t, len(deltas))) for t in range(len(deltas))]


@given(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4), st.integers(0, 1000))
def test_gae_skips_gaps_in_the_mask_as_if_their_tokens_were_not_there(masks, seed):
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(len(masks), 9, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.tensor(masks)
    advantages, returns = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()
    for row, kept in enumerate(mask):
        wanted = reference_gae(rewards[row][kept].tolist(), values[row][kept].tolist(), 0.9, 0.8)
        assert advantages[row][kept].tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        assert (returns - values)[row][kept].tolist() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_the_last_masked_token_is_found_behind_gaps():
    mask = torch.tensor([[0, 1, 1, 0, 1, 0], [1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]).bool()
    assert last_masked(mask).tolist() == [4, 0, 5]
    with pytest.raises(AssertionError, match="no token that is trained on"):
        last_masked(torch.zeros(1, 3, dtype=torch.bool))


def test_gae_with_lambda_zero_is_the_one_step_error():
    rewards, values = tensor([[1.0, 2.0]]), tensor([[5.0, 7.0]])
    advantages, _ = gae(rewards, values, torch.ones(1, 2), gamma=0.5, lam=0.0)
    assert close(advantages, tensor([[1 + 3.5 - 5, 2.0 - 7.0]]))


@given(
    lengths=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), min_size=1, max_size=4),
    padding=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_neither_padding_nor_prompt_nor_other_rows_change_gae(lengths, padding, seed):
    generator = torch.Generator().manual_seed(seed)
    width = max(prompt + response for prompt, response in lengths) + padding
    rewards, values = (torch.randn(len(lengths), width, generator=generator) for _ in range(2))
    mask = torch.zeros(len(lengths), width)
    for row, (prompt, response) in enumerate(lengths):
        mask[row, prompt : prompt + response] = 1
    advantages, returns = gae(rewards, values, mask, gamma=0.9, lam=0.8)
    for row, (prompt, response) in enumerate(lengths):
        own = slice(prompt, prompt + response)
        alone = gae(rewards[row : row + 1, own], values[row : row + 1, own], torch.ones(1, response), 0.9, 0.8)
        assert torch.equal(advantages[row, own], alone[0][0])
        assert torch.equal(returns[row, own], alone[1][0])
    assert (advantages[mask == 0] == 0).all()
    assert (returns[mask == 0] == 0).all()


# losses


def test_pairwise_loss_is_minus_log_sigmoid_of_the_difference_less_the_margin():
    chosen, rejected = tensor([0.0, 2.0, -1.0]), tensor([0.0, 0.0, 1.0])
    wanted = tensor([math.log(2), math.log1p(math.exp(-2)), math.log1p(math.exp(2))])
    assert close(pairwise_loss(chosen, rejected), wanted)
    assert pairwise_loss(tensor([2.0]), tensor([0.0]), tensor([2.0])).item() == pytest.approx(math.log(2))


def test_pairwise_loss_stays_finite_for_a_hopeless_pair():
    chosen = tensor([-500.0], requires_grad=True)
    loss = pairwise_loss(chosen, tensor([500.0]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(1000.0)
    assert chosen.grad.item() == pytest.approx(-1.0)
