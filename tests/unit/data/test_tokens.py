"""Records as tokens: eos, limits and what they leave out."""

import numpy as np
import pytest

from rayrlhf.data.reader import Tally
from rayrlhf.data.records import Answer, Preference, PromptText
from rayrlhf.data.templates import CustomTemplate
from rayrlhf.data.tokens import (
    PromptLimit,
    Sequences,
    answer_tokens,
    tokenize_answers,
    tokenize_preferences,
    tokenize_prompts,
)
from rayrlhf.types import Prompt

TEMPLATE = CustomTemplate(text="{prompt}")


class Letters:
    """A tokenizer with one token a letter: a is 1, b is 2, …"""

    eos_token_id = 99

    def __call__(self, text, add_special_tokens=True):
        return type("Encoding", (), {"input_ids": [ord(letter) - 96 for letter in text]})


LETTERS = Letters()


def rows_of(data: Sequences) -> list[tuple[list[int], list[int]]]:
    rows = [data.tokens[start:end].tolist() for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True)]
    return [(row[:prompt], row[prompt:]) for row, prompt in zip(rows, data.prompt_lengths, strict=True)]


def test_an_answer_ends_with_its_eos(tokenizer):
    ids = answer_tokens("네, 한우도 좋고", tokenizer)
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[:-1]) == "네, 한우도 좋고"


def test_sft_rows_are_prompt_then_answer_then_eos():
    data = tokenize_answers([Answer(PromptText.of("ab"), "c")], TEMPLATE, LETTERS, 10, "drop", Tally())
    assert rows_of(data) == [([1, 2], [3, 99])]


ANSWERS = [
    Answer(PromptText.of(prompt), text) for prompt, text in [("ab", "c"), ("ab", "cd"), ("abcd", "e"), ("abc", "d")]
]


def test_sft_rows_over_the_limit_are_dropped_and_counted():
    tally = Tally(rows=4)
    data = tokenize_answers(ANSWERS, TEMPLATE, LETTERS, 4, "drop", tally)
    assert rows_of(data) == [([1, 2], [3, 99])]
    assert tally.dropped == {"too long": 3}


def test_sft_rows_over_the_limit_are_cut_without_eos_unless_no_answer_would_be_left():
    tally = Tally(rows=4)
    data = tokenize_answers(ANSWERS, TEMPLATE, LETTERS, 4, "cut", tally)
    assert rows_of(data) == [([1, 2], [3, 99]), ([1, 2], [3, 4]), ([1, 2, 3], [4])]
    assert tally.dropped == {"too long": 1}


def test_pairs_are_dropped_whole():
    pairs = [Preference(PromptText.of("a"), "b", "c"), Preference(PromptText.of("a"), "bbbb", "c")]
    tally = Tally(rows=2)
    chosen, rejected = tokenize_preferences(pairs, TEMPLATE, LETTERS, 4, "drop", tally)
    assert (rows_of(chosen), rows_of(rejected)) == ([([1], [2, 99])], [([1], [3, 99])])
    assert tally.dropped == {"too long": 1}


def test_pairs_are_cut_on_both_sides_and_dropped_when_the_cut_makes_them_equal():
    pairs = [
        Preference(PromptText.of("a"), "bcde", "f"),
        Preference(PromptText.of("a"), "bcdx", "bcdy"),
        Preference(PromptText.of("abcd"), "b", "c"),
    ]
    tally = Tally(rows=3)
    chosen, rejected = tokenize_preferences(pairs, TEMPLATE, LETTERS, 4, "cut", tally)
    assert (rows_of(chosen), rows_of(rejected)) == ([([1], [2, 3, 4])], [([1], [6, 99])])
    assert tally.dropped == {"equal after the cut": 1, "too long": 1}


@pytest.mark.parametrize(
    ("overlong", "kept", "dropped"),
    [
        ("drop", [(1, 2, 3), (4, 5)], {"prompt too long": 1}),
        ("cut", [(1, 2, 3), (2, 3, 4), (4, 5)], {}),
        ("keep", [(1, 2, 3), (1, 2, 3, 4), (4, 5)], {}),
    ],
)
def test_overlong_prompts_are_dropped_cut_at_the_front_or_kept(overlong, kept, dropped):
    tally = Tally(rows=3)
    limit = PromptLimit(max_prompt_tokens=3, overlong_prompts=overlong)
    prompts = [PromptText.of(text) for text in ("abc", "abcd", "de")]
    found = tokenize_prompts(prompts, TEMPLATE, LETTERS, limit, tally)
    assert found == [Prompt(index, ids) for index, ids in enumerate(kept)]
    assert tally.dropped == dropped


def test_sequences_are_padded_on_the_right_to_the_longest_of_the_rows():
    data = Sequences.build([([1, 2], [3]), ([4], [5]), ([6, 7, 8], [9, 10])])
    assert data.lengths.tolist() == [3, 2, 5]
    assert data.padded([1, 0]).tolist() == [[4, 5, 0], [1, 2, 3]]
    assert data.padded(np.array([2])).tolist() == [[6, 7, 8, 9, 10]]


def test_no_sequences_are_an_empty_set():
    data = Sequences.build([])
    assert len(data) == 0
    assert data.lengths.tolist() == []
