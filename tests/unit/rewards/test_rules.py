"""Rules: what each gives, and that GSM8K's own solutions are right."""

import itertools
import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayrlhf.rewards import RulesReward, SampleText
from rayrlhf.rewards.numbers import numbers_in
from rayrlhf.rewards.rules import ExactRule, FormatRule, LengthRule, NumericRule, RegexRule

GSM8K = Path(__file__).parents[3] / "../shared/data/gsm8k/gsm8k_train_first3000.jsonl"


def sample(response: str, gold_answer: str | None = None) -> SampleText:
    return SampleText("prompt", response, gold_answer, True)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("She pays $1,080.50.", ["1080.50"]),
        ("50% of 12.0", ["50", "12"]),
        ("-3 and −4 and -$5 and $-6", ["-3", "-4", "-5", "-6"]),
        ("10-3 = 7", ["10", "3", "7"]),
        ("x=-2", ["-2"]),
        ("1,2,3", ["1", "2", "3"]),
        ("1,234,567", ["1234567"]),
        ("12,3456", ["12", "3456"]),
        ("2e3 1E-2", ["2000", "0.01"]),
        (".5 or 5.", ["0.5", "5"]),
        ("v2 and a.3", []),
        ("5km, 3x, 10th", ["5", "3", "10"]),
        ("version 1.2.3", ["1.2"]),
        ("no number", []),
        ("<<48/2=24>>24", ["48", "2", "24", "24"]),
    ],
)
def test_numbers_are_read_as_people_write_them(text, numbers):
    assert numbers_in(text) == [Decimal(number) for number in numbers]


@given(st.decimals(-(10**9), 10**9, allow_nan=False, places=3))
def test_a_number_is_the_same_with_commas_currency_and_zeros(number):
    assert numbers_in(f"It is ${number:,}000 then")[0] == number


@pytest.mark.parametrize(
    ("after", "response", "score"),
    [
        (None, "So 3 + 4 = 7.0 apples", 1.0),
        (None, "7 is what I get, not 8", 0.0),
        (None, "no idea", 0.0),
        ("####", "3 + 4\n#### 7", 1.0),
        ("####", "3 + 4\n#### $7.00 in all, 9 times", 1.0),
        ("####", "#### 8\nNo:\n#### 7", 1.0),
        ("####", "the answer is 7", 0.0),
        ("####", "7 ####", 0.0),
        ("\\boxed{", "so \\boxed{7} of 9", 1.0),
        ("\\boxed{", "so \\boxed{\\$7,000}", 0.0),
    ],
)
def test_the_final_number_is_compared_with_the_references(after, response, score):
    assert NumericRule(after=after).score(sample(response, "because\n#### 7")) == score


def test_numbers_within_the_tolerance_are_equal():
    rule = NumericRule(tolerance=0.01)
    assert [rule.score(sample(text, "3.14")) for text in ("3.15", "3.13", "3.16", "1e999")] == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("gold_answer", "reason"), [(None, "the row has no gold answer"), ("x", "the row's gold answer has no number")]
)
def test_a_row_that_cannot_be_compared_is_rejected_and_not_wrong(gold_answer, reason):
    (judged,) = RulesReward(rules=[NumericRule()]).start().judge([sample("7", gold_answer)])
    assert (judged.value, judged.reason) == (None, reason)


@pytest.mark.parametrize(
    ("response", "normalize", "score"),
    [
        ("Seoul", False, 1.0),
        (" seoul\n", True, 1.0),
        (" seoul\n", False, 0.0),
        ("Ｓeoul", True, 1.0),
        ("Seoul.", True, 0.0),
    ],
)
def test_an_exact_answer_is_the_reference(response, normalize, score):
    assert ExactRule(normalize=normalize).score(sample(response, "Seoul")) == score


def test_an_exact_answer_needs_a_reference():
    (judged,) = RulesReward(rules=[ExactRule()]).start().judge([sample("Seoul")])
    assert (judged.value, judged.reason) == (None, "the row has no gold answer")


@pytest.mark.parametrize(
    ("length", "score"),
    [(0, 0.0), (5, 0.5), (9, 0.9), (10, 1.0), (15, 1.0), (20, 1.0), (24, 0.6), (30, 0.0), (99, 0.0)],
)
def test_the_length_score_falls_in_a_line_outside_the_range(length, score):
    assert LengthRule(min=10, max=20, falloff=10).score(sample("가" * length)) == pytest.approx(score)


def test_without_falloff_the_length_score_is_a_step():
    assert [LengthRule(min=2, max=3).score(sample("x" * n)) for n in (1, 2, 3, 4)] == [0.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("name", "response", "score"),
    [
        ("think", "<think>hm\nhm</think>\nSeven.", 1.0),
        ("think", "<think>hm</think>  ", 0.0),
        ("think", "Seven.", 0.0),
        ("think", "<think>a</think> b <think>c</think> d", 0.0),
        ("think_answer", "<think>hm</think>\n<answer>7</answer>\n", 1.0),
        ("think_answer", "<think>hm</think><answer>7</answer> or 8", 0.0),
        ("boxed", "3 + 4\nis \\boxed{7}.", 1.0),
        ("boxed", "\\boxed{\\frac{1}{2}}", 1.0),
        ("boxed", "is \\boxed{ }", 0.0),
        ("boxed", "is \\boxed{7}\nor 8", 0.0),
        ("hashes", "3 + 4\n#### 7", 1.0),
        ("hashes", "#### 6\n#### 7", 0.0),
        ("hashes", "#### 7\nor 8", 0.0),
        ("hashes", "####", 0.0),
    ],
)
def test_a_format_is_that_of_the_whole_response(name, response, score):
    assert FormatRule(format=name).score(sample(response)) == score


def test_a_pattern_is_looked_for_in_what_the_rule_names():
    assert RegexRule(pattern="(?i)THANK").score(sample("thanks")) == 1.0
    assert RegexRule(pattern="prom", on="response").score(sample("thanks")) == 0.0
    assert RegexRule(pattern="prom", on="prompt").score(sample("thanks")) == 1.0


def test_rules_add_up_by_weight_and_each_is_reported():
    reward = RulesReward(
        rules=[
            NumericRule(weight=2.0),
            LengthRule(weight=-0.5, max=4),
            RegexRule(pattern="!", name="polite"),
        ]
    )
    right, wrong = reward.start().judge([sample("7!", "7"), sample("8 then", "7")])
    assert (right.value, right.parts) == (2.0 - 0.5 + 1.0, {"numeric": 1.0, "length": 1.0, "polite": 1.0})
    assert (wrong.value, wrong.parts) == (0.0, {"numeric": 0.0, "length": 0.0, "polite": 0.0})
    assert reward.part_names == ("numeric", "length", "polite")


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"kind": "regex", "pattern": "("}], "no regular expression"),
        ([{"kind": "length", "min": 5, "max": 4}], "swap them"),
        ([{"kind": "length", "max": 4}, {"kind": "length", "max": 9}], "give each a name of its own"),
        ([], "at least 1 item"),
    ],
)
def test_rules_that_cannot_work_are_refused(rules, words):
    with pytest.raises(ValidationError, match=words):
        RulesReward.model_validate({"rules": rules})


@pytest.mark.skipif(not GSM8K.is_file(), reason="the shared data are not on this machine")
@pytest.mark.parametrize("after", ["####", None])
def test_every_solution_of_gsm8k_gets_1_and_another_rows_solution_gets_what_its_number_deserves(after):
    answers = [json.loads(line)["answer"] for line in GSM8K.read_text(encoding="utf-8").splitlines()]
    assert len(answers) == 3000
    judge = RulesReward(rules=[NumericRule(after=after)]).start()
    assert {result.value for result in judge.judge([sample(answer, answer) for answer in answers])} == {1.0}
    shifted = judge.judge([sample(a, b) for a, b in itertools.pairwise(answers)])
    # The oracle: GSM8K's numbers are whole or decimal, with commas and nothing else.
    numbers = [float(answer.rsplit("####", 1)[1].replace(",", "")) for answer in answers]
    assert [result.value for result in shifted] == [float(a == b) for a, b in itertools.pairwise(numbers)]


@pytest.mark.parametrize(
    ("format", "response"),
    [
        ("boxed", "\\boxed{1}" * 20_000 + "\nso"),
        ("boxed", "\\boxed{x" + "}" * 100_000 + "\nso"),
        ("think", "<think>a</think>" + " " * 100_000 + "<think>"),
        ("think_answer", "<think></think>" + " " * 100_000 + "<answer>" * 10_000),
        ("hashes", "####3" + " " * 100_000 + "\nx"),
    ],
)
@pytest.mark.timeout(60)
def test_a_format_is_decided_however_long_a_response_nearly_has_it(format, response):
    assert FormatRule(format=format).score(sample(response)) == 0.0


def test_a_pattern_that_takes_too_long_rejects_the_row():
    rule = {"kind": "regex", "pattern": "(a|aa)+$", "timeout_s": 0.2, "name": "tail"}
    (result,) = RulesReward(rules=[rule]).start().judge([sample("a" * 60 + "b")])
    assert (result.value, result.reason) == (None, "the pattern of rule 'tail' took over 0.2 s")
