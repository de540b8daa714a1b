"""Losses on pairs and on labeled answers, in float64, against their formulas written out."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from rayrlhf.algorithms.preference import DPO, IPO, KTO, ORPO, PreferenceLoss, SimPO
from rayrlhf.config import Config, ConfigError, parse_config

# Two pairs: log π and log π_ref of (chosen, rejected), and the answers' tokens.
LOGPROBS = torch.tensor([[-3.0, -7.5], [-4.0, -2.25]], dtype=torch.float64)
REFERENCE = torch.tensor([[-3.5, -7.0], [-3.25, -4.25]], dtype=torch.float64)
LENGTHS = torch.tensor([[2, 5], [3, 4]], dtype=torch.float64)
RATIOS = [(0.5, -0.75), (-0.5, 2.0)]  # (chosen, rejected) of each pair: log π − log π_ref


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def log_ratios(*values: float) -> list[torch.Tensor]:
    """One pair's sums as leaves that take gradients, against a reference of 0: `evaluate`'s arguments."""
    logprobs = torch.tensor(values, dtype=torch.float64).view(2, 1).requires_grad_()
    return [logprobs, torch.zeros(2, 1, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)]


class Holder(Config):
    loss: PreferenceLoss = DPO()


# values


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_dpo_is_the_smoothed_logistic_loss_of_the_reward_difference(beta, smoothing):
    found = DPO(beta=beta, label_smoothing=smoothing).evaluate(LOGPROBS, REFERENCE, LENGTHS)
    margins = [beta * (chosen - rejected) for chosen, rejected in RATIOS]
    wanted = [-(1 - smoothing) * math.log(sigmoid(m)) - smoothing * math.log(sigmoid(-m)) for m in margins]
    assert found.loss.dtype == torch.float64
    assert found.loss.tolist() == pytest.approx(wanted, rel=1e-14)
    assert found.rewards.T.flatten().tolist() == pytest.approx([beta * x for pair in RATIOS for x in pair], rel=1e-14)


@pytest.mark.parametrize("beta", [0.1, 1.0, 2.5])
def test_ipo_is_the_squared_distance_of_the_mean_log_ratios_to_half_of_one_over_beta(beta):
    found = IPO(beta=beta).evaluate(LOGPROBS, REFERENCE, LENGTHS)
    gaps = [0.5 / 2 - -0.75 / 3, -0.5 / 5 - 2.0 / 4]
    assert found.loss.tolist() == pytest.approx([(gap - 1 / (2 * beta)) ** 2 for gap in gaps], rel=1e-14)
    assert found.rewards[0].tolist() == pytest.approx([beta * 0.5 / 2, beta * -0.5 / 5], rel=1e-14)


@pytest.mark.parametrize("kind", [DPO, IPO])
def test_the_sft_term_is_the_chosen_answers_negative_logprob_per_token(kind):
    plain, with_term = (kind(sft_coef=weight).evaluate(LOGPROBS, REFERENCE, LENGTHS) for weight in (0.0, 0.3))
    assert (with_term.loss - plain.loss).tolist() == pytest.approx([0.3 * 3.0 / 2, 0.3 * 7.5 / 5], rel=1e-12)
    assert torch.equal(with_term.rewards, plain.rewards)


@pytest.mark.parametrize(("loss", "wanted"), [(DPO(), math.log(2)), (DPO(label_smoothing=0.3), math.log(2))])
def test_a_policy_that_is_its_own_reference_costs_log_two_and_earns_nothing(loss, wanted):
    found = loss.evaluate(LOGPROBS, LOGPROBS, LENGTHS)
    assert found.loss.tolist() == pytest.approx([wanted, wanted], rel=1e-15)
    assert not found.rewards.any()


def test_rewards_carry_no_gradient():
    arguments = log_ratios(1.0, -1.0)
    assert not DPO().evaluate(*arguments).rewards.requires_grad


# The probability of a chosen and a rejected answer's average token: e^{log π / |y|}.
MEANS = [(-3.0 / 2, -4.0 / 3), (-7.5 / 5, -2.25 / 4)]


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_orpo_is_the_chosen_answers_loss_and_the_log_odds_ratio(beta):
    found = ORPO(beta=beta).evaluate(LOGPROBS, None, LENGTHS)
    odds = [[math.exp(mean) / (1 - math.exp(mean)) for mean in pair] for pair in MEANS]
    wanted = [
        -chosen - beta * math.log(sigmoid(math.log(better / worse)))
        for (chosen, _), (better, worse) in zip(MEANS, odds, strict=True)
    ]
    assert found.loss.tolist() == pytest.approx(wanted, rel=1e-12)
    assert found.rewards.T.flatten().tolist() == pytest.approx([beta * mean for pair in MEANS for mean in pair])


@pytest.mark.parametrize("beta", [2.0, 10.0])
@pytest.mark.parametrize("gamma", [0.0, 1.4])
def test_simpo_wants_mean_log_probabilities_to_differ_by_its_margin(beta, gamma):
    found = SimPO(beta=beta, gamma=gamma).evaluate(LOGPROBS, None, LENGTHS)
    wanted = [-math.log(sigmoid(beta * chosen - beta * rejected - gamma)) for chosen, rejected in MEANS]
    assert found.loss.tolist() == pytest.approx(wanted, rel=1e-12)
    assert found.rewards.T.flatten().tolist() == pytest.approx([beta * mean for pair in MEANS for mean in pair])


@pytest.mark.parametrize("beta", [0.1, 2.0])
@pytest.mark.parametrize("kl", [0.0, 0.8])
def test_kto_is_one_less_the_value_of_each_answer_beside_the_reference_point(beta, kl):
    ratios, desirable = torch.tensor([0.5, -0.75, -0.5, 2.0], dtype=torch.float64), torch.tensor([1, 0, 1, 0]).bool()
    found = KTO(beta=beta, desirable_weight=1.3, undesirable_weight=0.7).evaluate(ratios, desirable, kl)
    wanted = [
        1.3 * (1 - sigmoid(beta * (ratio - kl))) if good else 0.7 * (1 - sigmoid(beta * (kl - ratio)))
        for ratio, good in zip(ratios.tolist(), desirable.tolist(), strict=True)
    ]
    assert found.loss.tolist() == pytest.approx(wanted, rel=1e-12)
    assert found.rewards.tolist() == pytest.approx([beta * ratio for ratio in ratios.tolist()])


def test_ktos_point_of_reference_is_the_mean_of_the_step_and_never_negative():
    assert KTO.kl(torch.tensor([0.5, 1.5, -0.5])) == 0.5
    assert KTO.kl(torch.tensor([0.5, -1.5])) == 0.0


# gradients


@pytest.mark.parametrize("loss", [DPO(beta=0.7), IPO(sft_coef=0.3), ORPO(beta=0.7), SimPO()])
def test_gradients_are_those_of_the_formula(loss):
    logprobs = LOGPROBS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: loss.evaluate(values, REFERENCE, LENGTHS).loss, logprobs)


def test_ktos_gradient_pushes_each_answer_to_the_side_of_its_label_and_vanishes_far_from_the_point_of_reference():
    ratios = torch.tensor([0.0, 0.0, 40.0, -40.0], dtype=torch.float64, requires_grad=True)
    KTO(beta=1.0).evaluate(ratios, torch.tensor([True, False, False, True]), 0.0).loss.sum().backward()
    assert ratios.grad.tolist()[:2] == [-0.25, 0.25]
    assert ratios.grad.abs()[2:].max() < 1e-15


@pytest.mark.parametrize("mean", [0.0, -1e-12, -1e-7, -1e-3, -0.6931, -0.6932, -5.0, -80.0, -1e5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_orpos_odds_are_finite_and_right_from_certain_to_impossible_answers(mean, dtype):
    logprobs = torch.tensor([[mean], [-1.0]], dtype=dtype, requires_grad=True)
    found = ORPO(beta=1.0).evaluate(logprobs, None, torch.ones(2, 1, dtype=dtype))
    found.loss.sum().backward()
    assert found.loss.isfinite().all() and logprobs.grad.isfinite().all()
    least = torch.finfo(dtype).eps
    log_odds = min(mean, -least) - math.log(-math.expm1(min(mean, -least))) - (-1.0 - math.log(-math.expm1(-1.0)))
    wanted = -mean + (math.log1p(math.exp(-log_odds)) if log_odds > -700 else -log_odds)
    assert found.loss.item() == pytest.approx(wanted, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2, 0.499])
def test_smoothing_shrinks_the_gradient_of_an_undecided_pair_to_its_share_of_right_labels(smoothing):
    logprobs, *rest = log_ratios(0.0, 0.0)
    DPO(beta=2.0, label_smoothing=smoothing).evaluate(logprobs, *rest).loss.sum().backward()
    assert logprobs.grad.flatten().tolist() == pytest.approx([-2.0 * (0.5 - smoothing), 2.0 * (0.5 - smoothing)])


def test_labels_that_are_wrong_half_of_the_time_move_an_undecided_pair_nowhere():
    logprobs, *rest = log_ratios(-1.25, -1.25)
    half = DPO.model_construct(label_smoothing=0.5)  # past the settings' limit, since it could never learn
    half.evaluate(logprobs, *rest).loss.sum().backward()
    assert logprobs.grad.flatten().tolist() == [0.0, 0.0]


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_smoothed_dpo_is_content_at_the_margin_whose_odds_are_those_of_right_labels(smoothing):
    beta = 0.5
    margin = math.log((1 - smoothing) / smoothing) / beta
    logprobs, *rest = log_ratios(margin, 0.0)
    DPO(beta=beta, label_smoothing=smoothing).evaluate(logprobs, *rest).loss.sum().backward()
    assert logprobs.grad.abs().max() < 1e-15


def test_ipo_pulls_a_pair_back_that_went_beyond_its_margin():
    logprobs, *rest = log_ratios(6.0, 0.0)
    IPO(beta=0.1).evaluate(logprobs, *rest).loss.sum().backward()  # 6 > 1 / (2 · 0.1) = 5
    assert logprobs.grad[0] > 0 > logprobs.grad[1]


@given(
    st.lists(st.floats(-50, 50), min_size=2, max_size=2),
    st.sampled_from([DPO(), DPO(label_smoothing=0.2), DPO(beta=3.0), IPO(), IPO(beta=1.0)]),
    st.floats(-20, 20),
)
def test_only_the_difference_of_the_two_answers_counts(values, loss, shift):
    one, other = (loss.evaluate(*log_ratios(*(value + by for value in values))).loss.item() for by in (0.0, shift))
    assert other == pytest.approx(one, rel=1e-9, abs=1e-9)


def test_the_gradient_is_finite_however_sure_the_policy_is():
    for value in (-1e6, 1e6):
        logprobs, *rest = log_ratios(value, 0.0)
        found = DPO(beta=1.0, label_smoothing=0.1).evaluate(logprobs, *rest)
        found.loss.sum().backward()
        assert found.loss.isfinite().all() and logprobs.grad.isfinite().all()


# settings


def test_a_kind_may_stand_alone_and_without_one_it_is_dpo():
    adapter = TypeAdapter(PreferenceLoss)
    assert adapter.validate_python("ipo") == IPO()
    assert adapter.validate_python({"beta": 0.5}) == DPO(beta=0.5)
    assert adapter.validate_python({"kind": "ipo", "beta": 0.5}) == IPO(beta=0.5)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"beta": 0}, r"loss\.beta: .*greater than 0.* \(found 0\)"),
        ({"beta": -0.1}, r"loss\.beta: .*greater than 0.* \(found -0\.1\)"),
        ({"beta": math.inf}, r"loss\.beta: .*finite"),
        ({"kind": "ipo", "beta": 0}, r"loss\.beta: .*greater than 0"),
        ({"label_smoothing": 0.5}, r"loss\.label_smoothing: .*less than 0\.5 \(found 0\.5\)"),
        ({"label_smoothing": -0.1}, r"loss\.label_smoothing: .*greater than or equal to 0"),
        ({"sft_coef": -1}, r"loss\.sft_coef: .*greater than or equal to 0"),
        ({"kind": "ipo", "label_smoothing": 0.1}, r"loss\.label_smoothing: unknown setting of ipo, but one of dpo"),
        ({"kind": "orpo", "sft_coef": 1}, r"loss\.sft_coef: unknown setting of orpo, but one of dpo, ipo"),
        ({"kind": "simpo", "label_smoothing": 0.1}, r"loss\.label_smoothing: unknown setting of simpo, but one of dpo"),
        ({"kind": "kto", "gamma": 1}, r"loss\.gamma: unknown setting of kto, but one of simpo"),
        ({"kind": "dpo", "desirable_weight": 1}, r"loss\.desirable_weight: unknown setting of dpo, but one of kto"),
        ({"kind": "simpo", "beta": 0}, r"loss\.beta: .*greater than 0"),
        ({"kind": "kto", "undesirable_weight": 0}, r"loss\.undesirable_weight: .*greater than 0"),
        ({"kind": "sigmoid"}, r"loss\.kind: 'sigmoid' is not one of 'dpo', 'ipo'"),
    ],
)
def test_settings_out_of_range_are_refused_by_name_and_value(loss, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(Holder, {"loss": loss}, "settings")
