"""The policy's and the critic's loss by hand, option by option, and that no micro-batching changes them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import tensor

from rayrlhf.algorithms import GRPO, PPO
from rayrlhf.algorithms.policy_loss import ImportanceCorrection, TokenTensors
from rayrlhf.config import ConfigError, parse_config
from rayrlhf.functional import TokenLogprobs
from rayrlhf.types import StepSize

ONE = StepSize(num_tokens=1, num_sequences=1, max_response_tokens=1, num_states=1)


def tokens(logprobs, old, advantages, mask=None, engine=None, **more) -> tuple[TokenLogprobs, TokenTensors]:
    """[B, T] lists → what a loss is given; all tokens count without a mask."""
    old = tensor(old, dtype=torch.float32)
    mask = torch.ones_like(old, dtype=torch.bool) if mask is None else tensor(mask, dtype=torch.bool)
    engine = old if engine is None else tensor(engine, dtype=torch.float32)
    new = tensor(logprobs, dtype=torch.float32, requires_grad=True)
    more = {name: tensor(value, dtype=torch.float32) for name, value in more.items()}
    if "values" in more:
        more["value_mask"] = torch.ones_like(more["values"], dtype=torch.bool)
    return TokenLogprobs(new, torch.zeros_like(old)), TokenTensors(mask, old, engine, tensor(advantages), **more)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped"),
    [
        (1.1, 2.0, -2.2, False),  # inside the clip
        (1.1, -2.0, 2.2, False),
        (1.5, 2.0, -2.4, True),  # a good token already likelier than 1 + ε: nothing more to gain
        (1.5, -2.0, 3.0, False),  # a bad token likelier than before: the full cost
        (0.5, 2.0, -1.0, False),  # a good token less likely than before: the full cost
        (0.5, -2.0, 1.6, True),  # a bad token already rarer than 1 − ε
    ],
)
def test_the_surrogate_inside_and_outside_the_clip(ratio, advantage, loss, is_clipped):
    new, data = tokens([[math.log(ratio) - 3]], [[-3.0]], [[advantage]])
    found, metrics = PPO().policy_loss(new, data, ONE, kl_coef=0.0)
    assert found.item() == pytest.approx(loss, rel=1e-5)
    assert metrics["policy/clip_share"].item() == is_clipped
    found.backward()
    # d(−A ρ)/d log π = −A ρ, and nothing where the clip holds.
    assert new.logprobs.grad.item() == pytest.approx(0.0 if is_clipped else -advantage * ratio, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "ratio", "advantage", "loss", "gradient"),
    [
        ({"cliprange_high": 0.4}, 1.5, 1.0, -1.4, 0.0),  # clip-higher: the upper range is its own
        ({"cliprange_high": 0.4}, 1.3, 1.0, -1.3, -1.3),
        ({"dual_clip": 3.0}, 5.0, -1.0, 3.0, 0.0),  # a bad token costs at most 3
        ({"dual_clip": 3.0}, 2.0, -1.0, 2.0, 2.0),
        ({"dual_clip": 3.0}, 5.0, 1.0, -1.2, 0.0),  # a good one is clipped as always
        ({"max_log_ratio": 1.0}, 50.0, -1.0, math.e, 0.0),
        ({"objective": "cispo"}, 5.0, 2.0, -2 * 1.2 * (math.log(5) - 3), -2 * 1.2),  # clipped, with a gradient
        ({"objective": "cispo"}, 1.1, 2.0, -2 * 1.1 * (math.log(1.1) - 3), -2 * 1.1),
        ({"objective": "cispo"}, 0.3, 2.0, -2 * 0.3 * (math.log(0.3) - 3), -2 * 0.3),  # no lower bound
        ({"objective": "cispo"}, 0.3, -2.0, 2 * 0.3 * (math.log(0.3) - 3), 2 * 0.3),
        ({"objective": "cispo", "cliprange_high": 4.0}, 6.0, -2.0, 2 * 5 * (math.log(6) - 3), 2 * 5),
    ],
)
def test_options_of_the_surrogate(settings, ratio, advantage, loss, gradient):
    new, data = tokens([[math.log(ratio) - 3]], [[-3.0]], [[advantage]])
    found, _ = PPO(**settings).policy_loss(new, data, ONE, kl_coef=0.0)
    found.backward()
    assert found.item() == pytest.approx(loss, rel=1e-5)
    assert new.logprobs.grad.item() == pytest.approx(gradient, rel=1e-5)


def test_a_sequence_ratio_is_the_geometric_mean_of_its_tokens():
    new, data = tokens([[0.0, -1.0, -2.0]], [[9.0, -1.3, -1.9]], [[0.0, 1.0, 1.0]], mask=[[0, 1, 1]])
    algorithm = GRPO(ratio="sequence", cliprange=0.5, aggregation="sequence_mean")
    found, _ = algorithm.policy_loss(new, data, StepSize(2, 1, 8), kl_coef=0.0)
    assert found.item() == pytest.approx(-math.exp((0.3 - 0.1) / 2), rel=1e-5)


@pytest.mark.parametrize(
    ("aggregation", "loss"),
    [
        ("token_mean", -(1 + 1 + 4) / 3),  # every token counts the same
        ("sequence_mean", -(1 + 4) / 2),  # every response does
        ("fixed_length", -(1 + 1 + 4) / (2 * 8)),  # by the length that a response may have
    ],
)
def test_aggregations(aggregation, loss):
    mask = [[1, 1], [1, 0]]
    new, data = tokens([[-1.0, -1.0], [-1.0, 7.0]], [[-1.0, -1.0], [-1.0, 0.0]], [[1.0, 1.0], [4.0, 0.0]], mask)
    found, _ = PPO(aggregation=aggregation).policy_loss(new, data, StepSize(3, 2, 8), kl_coef=0.0)
    assert found.item() == pytest.approx(loss, rel=1e-6)


@pytest.mark.parametrize(
    ("correction", "loss"),
    [
        (ImportanceCorrection(cap=2.0), -(0.5 + 2.0) / 2),  # ratios .5 and 4, the second truncated
        (ImportanceCorrection(kind="mask", cap=2.0), -(0.5 + 0.0) / 2),
        (ImportanceCorrection(level="sequence", cap=3.0), -(2.0 + 2.0) / 2),  # .5 · 4
        (ImportanceCorrection(kind="mask", level="sequence", cap=1.5), 0.0),
        (ImportanceCorrection(floor=0.8, cap=2.0), -(0.8 + 2.0) / 2),
        (ImportanceCorrection(kind="mask", floor=0.8, cap=5.0), -(0.0 + 4.0) / 2),
        (ImportanceCorrection(kind="mask", floor=0.5 - 1e-6, cap=5.0), -(0.5 + 4.0) / 2),
        (ImportanceCorrection(level="sequence", floor=2.5, cap=3.0), -(2.5 + 2.5) / 2),
        (ImportanceCorrection(kind="mask", level="sequence", floor=2.5, cap=3.0), 0.0),
        (ImportanceCorrection(kind="sequence_mask", cap=1.5), -(0.5 + 4.0) / 2),  # √(.5 · 4) = 1.41
        (ImportanceCorrection(kind="sequence_mask", cap=1.4), 0.0),
        (ImportanceCorrection(kind="sequence_mask", floor=1.45, cap=1.5), 0.0),
        (ImportanceCorrection(level="geometric", cap=3.0), -(2**0.5)),
        (ImportanceCorrection(kind="reject", level="geometric", cap=1.5), -1.0),
        (ImportanceCorrection(kind="reject", level="geometric", cap=1.4), 0.0),
        (ImportanceCorrection(kind="reject", cap=1.0), -(1.0 + 0.0) / 2),
    ],
)
def test_importance_weights_are_old_over_sampler_and_have_bounds(correction, loss):
    engine = [[-1 - math.log(0.5), -1 - math.log(4.0)]]
    new, data = tokens([[-1.0, -1.0]], [[-1.0, -1.0]], [[1.0, 1.0]], engine=engine)
    found, _ = PPO(importance_correction=correction).policy_loss(new, data, StepSize(2, 1, 8), kl_coef=0.0)
    assert found.item() == pytest.approx(loss, rel=1e-5)


def test_a_response_left_out_of_the_correction_leaves_the_others_and_their_denominator():
    engine = [[9.0, -1 - math.log(0.5), -1 - math.log(4.0)], [9.0, -1 - math.log(30.0), 9.0]]
    mask = [[0, 1, 1], [0, 1, 0]]
    new, data = tokens([[-1.0] * 3] * 2, [[-1.0] * 3] * 2, [[1.0] * 3] * 2, mask, engine)
    correction = ImportanceCorrection(kind="sequence_mask", floor=0.5, cap=5.0)
    algorithm = PPO(importance_correction=correction)
    found, metrics = algorithm.policy_loss(new, data, StepSize(3, 2, 8), kl_coef=0.0)
    assert found.item() == pytest.approx(-(0.5 + 4.0) / 3, rel=1e-5)  # the second response's ratio is 30
    assert metrics["policy/importance_weight_mean"].item() == pytest.approx(4.5 / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"floor": 3.0}, "importance_correction.floor 3 is above its cap 2: lower it"),
        ({"kind": "sequence_mask", "level": "sequence"}, "set its level to token, or its kind to mask"),
    ],
)
def test_bounds_and_levels_of_a_correction_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(PPO, {"importance_correction": settings}, "here")


def test_a_kl_term_in_the_loss_pulls_towards_the_reference():
    new, data = tokens([[-1.0]], [[-1.0]], [[0.0]], ref_logprobs=[[-1.5]])
    loss, metrics = GRPO().policy_loss(new, data, ONE, kl_coef=0.1)
    loss.backward()
    assert loss.item() == pytest.approx(0.1 * (math.exp(-0.5) - 1 + 0.5), rel=1e-5)  # k3
    assert metrics["policy/kl_loss"].item() == pytest.approx(math.exp(-0.5) - 0.5, rel=1e-5)
    assert new.logprobs.grad.item() == pytest.approx(0.1 * (1 - math.exp(-0.5)), rel=1e-5)  # > 0: less likely is better


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "is_clipped"),
    [
        (1.1, 1.0, 2.0, 0.5 * 0.9**2, False),  # moved less than ε
        (1.9, 1.0, 2.0, 0.5 * 0.8**2, True),  # moved towards the return, but too far: judged at 1.2
        (0.1, 1.0, 2.0, 0.5 * 1.9**2, False),  # moved away: judged where it is
        (3.0, 1.0, 2.0, 0.5 * 1.0**2, False),  # beyond the return: the worse of 1 and 0.8²
    ],
)
def test_value_loss_is_half_the_larger_squared_error(value, old, target, loss, is_clipped):
    values = tensor([[value]], requires_grad=True)
    _, data = tokens([[0.0]], [[0.0]], [[0.0]], values=[[old]], returns=[[target]])
    found, metrics = PPO().value_loss(values, data, ONE)
    assert found.item() == pytest.approx(loss, rel=1e-5)
    assert metrics["value/clip_share"].item() == is_clipped
    found.backward()
    assert values.grad.item() == pytest.approx(0.0 if is_clipped else value - target, rel=1e-5)


def test_the_value_loss_without_a_clip_and_with_a_weight():
    _, data = tokens([[0.0]], [[0.0]], [[0.0]], values=[[1.0]], returns=[[2.0]])
    found, _ = PPO(cliprange_value=None, vf_coef=0.1).value_loss(tensor([[1.9]]), data, ONE)
    assert found.item() == pytest.approx(0.1 * 0.5 * 0.1**2, rel=1e-4)


def test_policy_metrics_are_token_means_that_add_up():
    new, data = tokens([[0.0, -1.0, -1.0 + math.log(1.5)]], [[9.0, -1.0, -1.0]], [[0.0, 1.0, 1.0]], mask=[[0, 1, 1]])
    new = TokenLogprobs(new.logprobs, tensor([[5.0, 1.0, 3.0]]))
    size = StepSize(num_tokens=4, num_sequences=2, max_response_tokens=8)  # of 4 tokens, 2 are here
    loss, metrics = PPO(entropy_coef=0.1).policy_loss(new, data, size, kl_coef=0.0)
    assert metrics["policy/loss"].item() == pytest.approx(-(1 + 1.2) / 4)
    assert metrics["policy/entropy"].item() == pytest.approx(1.0)
    assert loss.item() == pytest.approx(-(1 + 1.2) / 4 - 0.1)
    assert metrics["policy/clip_share"].item() == pytest.approx(0.25)
    assert metrics["policy/ratio_mean"].item() == pytest.approx(2.5 / 4)


ALGORITHMS = [
    PPO(entropy_coef=0.01),
    PPO(aggregation="sequence_mean", dual_clip=2.0, importance_correction=ImportanceCorrection(level="sequence")),
    GRPO(ratio="sequence", aggregation="sequence_mean"),
    GRPO(objective="cispo", aggregation="fixed_length", importance_correction=ImportanceCorrection(kind="mask")),
]


@given(
    algorithm=st.sampled_from(ALGORITHMS),
    rows=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 6)), min_size=2, max_size=6),
    order=st.randoms(use_true_random=False),
    cut=st.integers(1, 5),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    seed=st.integers(0, 1000),
)
def test_neither_micro_batches_nor_order_nor_padding_on_either_side_change_losses_and_gradients(
    algorithm, rows, order, cut, padding, seed
):
    cut = min(cut, len(rows) - 1)
    generator = torch.Generator().manual_seed(seed)
    width = max(prompt + response for prompt, response in rows)
    shape = (len(rows), width)
    leaves = [torch.randn(shape, generator=generator) * 0.3 for _ in range(3)]  # log-probs, entropy, values
    old, engine, advantages, reference, old_values, returns = (
        torch.randn(shape, generator=generator) * 0.3 for _ in range(6)
    )
    mask = torch.zeros(shape, dtype=torch.bool)
    for row, (prompt, response) in enumerate(rows):
        mask[row, prompt : prompt + response] = True
    size = StepSize(int(mask.sum()), len(rows), 8, int(mask.sum()))

    def run(pieces: list[list[int]], padding: tuple[int, int]) -> list[torch.Tensor]:
        own = [leaf.clone().requires_grad_() for leaf in leaves]
        totals = [torch.zeros(()), torch.zeros(())]
        for piece in pieces:

            def part(values, piece=piece):
                return torch.nn.functional.pad(values[piece], padding)

            data = TokenTensors(*map(part, (mask, old, engine, advantages, reference, old_values, returns, mask)))
            new = TokenLogprobs(part(own[0]), part(own[1]))
            losses = [algorithm.policy_loss(new, data, size, kl_coef=0.1)[0]]
            losses.append(PPO().value_loss(part(own[2]), data, size)[0])
            sum(losses).backward()
            totals = [total + loss.detach() for total, loss in zip(totals, losses, strict=True)]
        return [*totals, *(leaf.grad for leaf in own if leaf.grad is not None)]

    shuffled = list(range(len(rows)))
    order.shuffle(shuffled)
    whole = run([list(range(len(rows)))], (0, 0))
    split = run([shuffled[:cut], shuffled[cut:]], padding)
    for one, other in zip(whole, split, strict=True):
        # Terms of a loss are about 0.1 in size and may cancel in their sum; gradients have no such sums.
        scale = max(one.abs().max().item(), 0.1 if one.dim() == 0 else 0.0)
        assert (one - other).abs().max().item() <= 1e-6 * scale


@pytest.mark.parametrize("setting", ["cliprange", "dual_clip", "kl_coef"])
def test_settings_out_of_range_are_refused(setting):
    with pytest.raises(ConfigError, match=setting):
        parse_config(PPO, {setting: -0.1}, "here")


# the KL penalty in the loss


def expected_gradient(settings, behind: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """(gradient of the loss's KL term, gradient of KL(π || π_ref)) on average over one token drawn from π_old, which is
    π itself or differs from it by `behind`: exactly, with every token once and weighed by its probability."""
    generator = torch.Generator().manual_seed(0)
    logits, reference, step = torch.randn(3, 8, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    policy, ref = torch.log_softmax(logits, 0), torch.log_softmax(reference, 0)
    old = torch.log_softmax(logits + behind * step, 0).detach()
    total = torch.zeros((), dtype=torch.float64)
    for token in range(8):
        row = [values[token].reshape(1, 1) for values in (policy, old, ref)]
        data = TokenTensors(torch.ones(1, 1, dtype=torch.bool), row[1], row[1], torch.zeros(1, 1), ref_logprobs=row[2])
        new = TokenLogprobs(row[0], torch.zeros(1, 1))
        total = total + old[token].exp() * PPO(kl_in="loss", **settings).policy_loss(new, data, ONE, 1.0)[0]
    kl = (policy.exp() * (policy - ref)).sum()
    return torch.autograd.grad(total, logits, retain_graph=True)[0], torch.autograd.grad(kl, logits)[0]


@pytest.mark.parametrize("estimator", ["k1", "k3"])
@pytest.mark.parametrize("behind", [0.0, 0.5])
def test_weighed_by_the_ratio_the_penalty_has_the_gradient_of_the_kl_off_policy_too(estimator, behind):
    found, wanted = expected_gradient({"kl_estimator": estimator, "kl_ratio": True, "kl_clamp": None}, behind)
    torch.testing.assert_close(found, wanted)


def test_k2_has_the_gradient_of_the_kl_on_policy_without_a_ratio():
    found, wanted = expected_gradient({"kl_estimator": "k2"})
    torch.testing.assert_close(found, wanted)


def test_k1_in_the_loss_would_hold_the_policy_nowhere():
    settings = {"kl_in": "loss", "kl_estimator": "k1"}
    unchecked = PPO(kl_in="loss", kl_estimator="k3").model_copy(update=settings)
    new, data = tokens([[-1.0]], [[-1.0]], [[0.0]], ref_logprobs=[[-2.0]])
    unchecked.policy_loss(new, data, ONE, 1.0)[0].backward()
    assert new.logprobs.grad.item() == 1.0  # ∇ log π, whose mean under π is 0
    with pytest.raises(ValueError, match=r"gradient of 0 in expectation.*set kl_estimator=k3, or kl_ratio=true"):
        PPO(**settings)
    assert PPO(**settings, kl_coef=0.0).kl_coef == 0.0


@pytest.mark.parametrize(
    ("settings", "penalty"),
    [({"kl_estimator": "k3"}, 10.0), ({"kl_estimator": "k3", "kl_clamp": 3.0}, 3.0), ({"kl_estimator": "k2"}, 32.0)],
)
def test_k3_is_bounded_by_itself_and_others_are_not(settings, penalty):
    assert PPO(**settings).token_kl(tensor([-8.0])).item() == pytest.approx(penalty)


def test_no_bound_is_no_bound():
    assert PPO(kl_estimator="k3", kl_clamp=None).token_kl(tensor([-8.0])).item() > 2900


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": "sequence"}, "set aggregation=sequence_mean"),
        ({"objective": "cispo", "dual_clip": 3.0}, "set dual_clip=null"),
        ({"kl_coef": 0.0, "kl_target": 6.0}, "0 stays 0: set kl_coef=0.05, or kl_target=null"),
        ({"kl_ratio": True}, "set kl_in=loss"),
        ({"kl_reduction": "mean", "kl_in": "loss", "kl_estimator": "k3"}, "aggregation=sequence_mean, or kl_in=reward"),
        ({"eos_is_pad": True}, "score_on=next_state, learn_next_state=false and advantage=gae"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_the_fix(settings, message):
    with pytest.raises(ValueError, match=message):
        PPO(**settings)
