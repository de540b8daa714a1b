"""Cleaning: each rule on one record, with its reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import answer, at, pair, prompt
from pydantic import ValidationError

from rayrlhf.data.cleaning.rules import Cleaning
from rayrlhf.data.ingest.records import Message, PromptText, Record

END = "<|endoftext|>"
EMPTY = ["", "  \t\r\n", "\u200b", "\ufeff\u200c\u200d\u2060", "\xa0 \u200b\n", "\u3000\u2003", "\u3164\u115f"]


@pytest.fixture(scope="session")
def reason_for(clean):
    """`reason_for(record, **settings)`: why it goes, or None."""

    def run(record: Record, **settings) -> str | None:
        _, why = clean([record], **settings)
        return why[0][1] if why else None

    return run


# empty and equal


@pytest.mark.parametrize("text", EMPTY)
def test_prompts_and_answers_with_nothing_to_read_go(text, reason_for):
    assert reason_for(prompt(text)) == "empty prompt"
    assert reason_for(answer("네", asked=text)) == "empty prompt"
    assert reason_for(answer(text)) == "empty answer"
    assert reason_for(pair(text, "아니요")) == "empty answer"
    assert reason_for(pair("네", text)) == "empty answer"


def test_an_answer_of_invisible_characters_is_told_from_none_at_all(clean):
    _, why = clean([answer("\u200b", 1), answer("", 2)])
    assert why == [(1, "empty answer", "it has no visible character"), (2, "empty answer", "")]


def test_a_conversation_that_ends_with_nothing_asked_is_an_empty_prompt(reason_for):
    chat = PromptText((Message("user", "안녕"), Message("assistant", "네"), Message("user", "\u200b")))
    assert reason_for(Record(chat, origin=at(1))) == "empty prompt"


def test_equal_sides_go_also_when_only_the_end_marker_told_them_apart(reason_for):
    assert reason_for(pair("네", "네")) == "chosen equals rejected"
    assert reason_for(pair("네", f"네{END}")) == "chosen equals rejected"
    assert reason_for(pair("네", "네 ")) is None


# end markers


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (f"끝{END}", "끝"),
        (f"{END}start", f"{END}start"),
        (f"middle{END}more", f"middle{END}more"),
        (f"끝{END}{END}", "끝"),
        (f"끝{END} ", f"끝{END} "),
        # str.strip would take these letters away as well.
        (f"the next>{END}", "the next>"),
        (" text ", " text "),
        ("<|end|>", "<|end|>"),
    ],
)
def test_the_end_marker_is_removed_as_a_suffix_only(text, wanted, clean):
    ((kept,), _) = clean([answer(text)])
    assert kept.text == wanted
    ((kept,), _) = clean([pair(text, "아니요")])
    assert kept.answers == (wanted, "아니요")
    ((kept,), _) = clean([pair("네", text)])
    assert kept.answers == ("네", wanted)


@given(st.text("가a<|endoftx>", min_size=1).filter(lambda text: not text.endswith(END)))
def test_whatever_stands_before_the_end_marker_is_kept(clean, text):
    ((kept,), _) = clean([answer(text + END)], code_pages=False)
    assert kept.text == text
    assert kept.origin == at(1)


def test_other_end_markers_can_be_named_and_none_is_possible(clean):
    ((kept,), _) = clean([answer("네</s>[끝]</s>")], end_markers=("</s>", "[끝]"))
    assert kept.text == "네"
    ((kept,), _) = clean([answer(f"네{END}")], end_markers=())
    assert kept.text == f"네{END}"
    with pytest.raises(ValidationError):
        Cleaning(end_markers=("",))


def test_a_prompt_keeps_its_end_marker(clean):
    ((kept,), _) = clean([prompt(f"끝{END}")])
    assert kept.prompt == PromptText.of(f"끝{END}")


# lengths


def test_prompts_of_15_characters_without_white_space_are_too_short_for_16(clean):
    texts = ["가" * 15, "가" * 16, "가 나\n" * 7 + "다 \t\xa0\u3000", "가 나\n" * 8]
    kept, why = clean([prompt(text, line) for line, text in enumerate(texts, start=1)], min_prompt_chars=16)
    assert [record.origin.place for record in kept] == [2, 4]
    detail = "15 characters, min_prompt_chars is 16"
    assert why == [(1, "prompt too short", detail), (3, "prompt too short", detail)]


def test_a_context_counts_towards_a_prompts_length(reason_for):
    record = Record(PromptText.of("요약해줘", "긴 글입니다"), origin=at(1))
    assert reason_for(record, min_prompt_chars=9) is None
    assert reason_for(record, min_prompt_chars=10) == "prompt too short"


@pytest.mark.parametrize(
    ("record", "setting", "limit", "reason"),
    [
        (prompt("가나다라"), "max_prompt_chars", 4, "prompt too long"),
        (answer("가나 다라"), "max_answer_chars", 5, "answer too long"),
        (pair("네", "아니요 그래"), "max_answer_chars", 6, "answer too long"),
        (pair("아니요 그래", "네"), "max_answer_chars", 6, "answer too long"),
    ],
)
def test_texts_over_a_length_go(record, setting, limit, reason, reason_for):
    assert reason_for(record, **{setting: limit}) is None
    assert reason_for(record, **{setting: limit - 1}) == reason


def test_the_shorter_answer_of_a_pair_decides(reason_for):
    assert reason_for(pair("가 나 다", "가 나"), min_answer_chars=2) is None
    assert reason_for(pair("가 나 다", "가 나"), min_answer_chars=3) == "answer too short"
    assert reason_for(pair("가 나", "가 나 다"), min_answer_chars=3) == "answer too short"


# languages and code pages


def test_records_in_other_languages_go_and_are_told_which(clean):
    korean = answer("네, 한우도 좋고 호주산도 좋습니다.", 1, asked="불고기용 고기는 한우가 좋나요?")
    english = answer("The next train leaves at nine in the morning.", 2, asked="When does the train leave?")
    kept, why = clean([korean, english], languages=("ko",))
    assert kept == [korean]
    assert why == [(2, "language", "en, languages are ko")]
    assert clean([korean, english], languages=("ko", "en"))[1] == []


def test_text_that_was_decoded_with_the_wrong_code_page_goes_wherever_it_stands(clean, reason_for):
    damaged = "안녕하세요? 오늘 날씨가 참 좋습니다.".encode().decode("latin-1")
    for record in (prompt(damaged), answer(damaged), pair("네", damaged), pair(damaged, "네")):
        (_, ((_, reason, detail),)) = clean([record])
        assert reason == "wrong code page"
        assert "안녕하세요" in detail
        assert reason_for(record, code_pages=False) is None
