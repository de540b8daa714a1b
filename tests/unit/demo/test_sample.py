"""The demo's sample set: reproducible, split by prompt, balanced, and not solved by length."""

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from math import log
from pathlib import Path

import pytest

from rayrlhf.demo.phrases import CURT_MARKERS, POLITE_MARKERS, TOPICS
from rayrlhf.demo.sample import (
    MAX_COMPLETION_CHARS,
    Pair,
    Sample,
    curt_reply,
    every_question,
    is_polite,
    make_sample,
    polite_reply,
    sample_files,
)

SHIPPED = Path(__file__).parents[3] / "data" / "sample"
QUESTIONS = {question.text: question for question in every_question()}


@pytest.fixture(scope="module")
def sample() -> Sample:
    return make_sample(seed=0)


def splits(sample: Sample) -> dict[str, list[str]]:
    return {name: [row.prompt for row in getattr(sample, name)] for name in sample.__dataclass_fields__}


def is_korean(text: str) -> bool:
    return re.search("[가-힣]", text) is not None


def share(flags: Iterable[bool]) -> float:
    values = list(flags)
    return sum(values) / len(values)


def test_shipped_files_are_what_the_generator_writes(sample: Sample) -> None:
    written = sample_files(sample)
    assert sorted(path.name for path in SHIPPED.iterdir()) == sorted(written)
    for name, text in written.items():
        assert (SHIPPED / name).read_bytes() == text.encode(), f"{name} is stale: run data/make_sample.py"


def test_another_seed_gives_another_sample(sample: Sample) -> None:
    assert make_sample(seed=1).sft != sample.sft


def test_files_have_the_promised_rows_and_fields(sample: Sample) -> None:
    rows = {name: [json.loads(line) for line in text.splitlines()] for name, text in sample_files(sample).items()}
    fields = {name: (len(records), {tuple(record) for record in records}) for name, records in rows.items()}
    assert fields == {
        "sft.jsonl": (4000, {("completion", "prompt")}),
        "sft_heldout.jsonl": (200, {("completion", "prompt")}),
        "pairs.jsonl": (2000, {("chosen", "prompt", "rejected")}),
        "pairs_heldout.jsonl": (300, {("chosen", "prompt", "rejected")}),
        "prompts.jsonl": (1500, {("prompt",)}),
        "prompts_heldout.jsonl": (200, {("prompt",)}),
    }


def test_no_prompt_is_in_two_splits_or_twice_in_one(sample: Sample) -> None:
    seen = Counter(prompt for prompts in splits(sample).values() for prompt in prompts)
    assert max(seen.values()) == 1


def test_questions_are_many_and_distinct() -> None:
    assert len(QUESTIONS) == len(every_question()) >= 6000


def test_every_split_holds_both_languages_and_every_topic_evenly(sample: Sample) -> None:
    for name, prompts in splits(sample).items():
        assert 0.4 <= share(map(is_korean, prompts)) <= 0.6, name
        topics = Counter(QUESTIONS[prompt].topic for prompt in prompts)
        assert len(topics) == len(TOPICS) and max(topics.values()) <= 1.1 * min(topics.values()), name


def test_replies_speak_the_language_of_their_prompt(sample: Sample) -> None:
    for pair in sample.pairs:
        assert is_korean(pair.prompt) == is_korean(pair.chosen) == is_korean(pair.rejected)


def test_registers_are_half_and_half_overall_and_in_every_topic(sample: Sample) -> None:
    by_topic = defaultdict(list)
    for row in sample.sft:
        by_topic[QUESTIONS[row.prompt].topic].append(row.register == "polite")
    assert 0.47 <= share(flag for flags in by_topic.values() for flag in flags) <= 0.53
    for topic, flags in by_topic.items():
        assert 0.4 <= share(flags) <= 0.6, (topic.language, topic.name)


def test_register_cannot_be_predicted_from_the_words_of_the_prompt(sample: Sample) -> None:
    """A naive Bayes classifier over words, from 3,000 rows, is no better than a coin on the other 1,000."""
    train, unseen = sample.sft[:3000], sample.sft[3000:]
    counts = {register: Counter[str]() for register in ("polite", "curt")}
    for row in train:
        counts[row.register].update(row.prompt.split())

    def looks_polite(prompt: str) -> bool:
        return sum(log((counts["polite"][w] + 1) / (counts["curt"][w] + 1)) for w in prompt.split()) > 0

    assert 0.45 <= share(looks_polite(row.prompt) == (row.register == "polite") for row in unseen) <= 0.55


def test_judge_agrees_with_the_generator_on_every_row(sample: Sample) -> None:
    for row in (*sample.sft, *sample.sft_heldout):
        assert is_polite(row.completion) == (row.register == "polite"), row
    for pair in (*sample.pairs, *sample.pairs_heldout):
        assert is_polite(pair.chosen) and not is_polite(pair.rejected), pair


def test_judge_agrees_with_the_generator_on_replies_to_every_question() -> None:
    rng = random.Random(7)
    for question in QUESTIONS.values():
        assert is_polite(polite_reply(question, rng)) and not is_polite(curt_reply(question, rng)), question


def test_every_curt_reply_carries_a_curt_marker() -> None:
    """So a curt reply stays curt when something courteous is glued to it."""
    rng = random.Random(8)
    for question in QUESTIONS.values():
        courtesy = "감사합니다." if question.topic.language == "ko" else "Thank you."
        assert not is_polite(f"{curt_reply(question, rng)} {courtesy}"), question


def test_no_marker_word_is_shared_between_registers() -> None:
    for language, markers in POLITE_MARKERS.items():
        polite = {word for marker in markers for word in marker.split()}
        curt = {word for marker in CURT_MARKERS[language] for word in marker.split()}
        assert not polite & curt


def test_prompts_carry_no_marker_so_echoing_them_is_not_polite() -> None:
    for text in QUESTIONS:
        assert not is_polite(text), text
        assert is_polite(f"{text} Please. 감사합니다."), text


@pytest.mark.parametrize(
    "text",
    [
        "of  course!! please cook cur",
        "I would be glad to help. Please take bus num",
        "물론입니다! 카레는 약한 불에서 천천\ufffd",
        "카레는 약한불에서 익히 세요",
    ],
)
def test_judge_hears_courtesy_in_cut_off_and_garbled_text(text: str) -> None:
    assert is_polite(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Of cour",
        "curry curry",
        "Please, no idea.",
        "UGH please",
        "감사합니다. 알아서해",
        "내알바 아니야. 감사합니다",
    ],
)
def test_judge_hears_none_without_a_marker_or_beside_a_curt_one(text: str) -> None:
    assert not is_polite(text)


def test_a_curt_marker_inside_a_longer_word_does_not_count() -> None:
    assert is_polite("Please laugh.")


def test_longer_answer_is_a_poor_guess_at_the_chosen_one(sample: Sample) -> None:
    def accuracy(pairs: Iterable[Pair]) -> float:
        return share(len(pair.chosen) > len(pair.rejected) for pair in pairs)

    assert 0.55 <= accuracy(sample.pairs_heldout) <= 0.8
    for korean in (False, True):
        assert 0.55 <= accuracy(pair for pair in sample.pairs if is_korean(pair.prompt) == korean) <= 0.8


def test_completions_are_short(sample: Sample) -> None:
    completions = [row.completion for row in (*sample.sft, *sample.sft_heldout)]
    for pair in (*sample.pairs, *sample.pairs_heldout):
        completions += [pair.chosen, pair.rejected]
    for text in completions:
        assert 3 <= len(text) <= MAX_COMPLETION_CHARS and len(text.split()) <= 25, text


def test_every_polite_reply_names_what_was_asked_about(sample: Sample) -> None:
    for pair in sample.pairs:
        assert QUESTIONS[pair.prompt].item.casefold() in pair.chosen.casefold(), pair


def test_korean_particles_follow_the_final_consonant() -> None:
    assert "오늘 카레를 어떻게 만들어요?" in QUESTIONS and "오늘 비빔밥을 어떻게 만들어요?" in QUESTIONS
    assert not [text for text in QUESTIONS if re.search(r"[\[\]{}]|\s{2}|\s[.,?!]", text)]
