"""Languages of texts: short chat first, for that is what goes wrong."""

import logging
import socket
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.cleaning.languages import MAX_CHARACTERS, language_of

TEXTS = {
    "ko": [
        "안녕",
        "ㅋㅋㅋ",
        "ㅠㅠ",
        "뭐해?",
        "저도요.",
        "12시 땡!",
        "PPL 심하네",
        "GPT-4 써봤어?",
        "땀을 식혀주세요.",
        "3박4일 놀러가고 싶다",
        "다음 문장을 영어로 번역해줘: I go to school",
        "조선시대 大院君에 대해 알려줘",
    ],
    "en": [
        "hi",
        "Thanks!",
        "I’m sorry…",
        "HURRY",
        "lol ok",
        "How are you?",
        "Oh thank you darling! <3",
        "Translate '안녕' into English",
        "She has 16 - 3 - 4 = <<16-3-4=9>>9 eggs left.",
    ],
    "ja": ["こんにちは", "元気ですか？", "私は学生です", "「안녕하세요」は韓国語でこんにちはという意味です。"],
    "zh": ["你好", "我不知道", "今天天气怎么样？", "學習中文很有趣", "我哋今日去邊度食飯呀？"],
    "de": ["Wie geht es dir?", "Ich weiß es nicht", "Heute ist das Wetter schön."],
    "fr": ["Je ne sais pas", "Qu'est-ce que tu fais ?", "Le chat dort sur le canapé."],
    "es": ["¿Dónde está la biblioteca?"],
    "ru": ["Как дела?"],
    "hi": ["तुम कैसे हो? मैं ठीक हूँ।"],
    "th": ["สวัสดีครับ วันนี้อากาศดีมาก"],
    "vi": ["Bạn khỏe không?"],
}


@pytest.mark.parametrize(("wanted", "text"), [(code, text) for code, texts in TEXTS.items() for text in texts])
def test_short_sentences_are_in_the_language_that_people_would_say(wanted, text):
    assert language_of(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "  \n\t", "12345", "?!…", "👍🏽🎉", "1 + 2 = 3", "''’", "\u200b\ufeff", "　。「」！"]
)
def test_text_without_letters_is_undetermined(text):
    assert language_of(text) == "und"


def test_lines_are_one_text():
    assert language_of("Good morning!\r\n\nHow did you sleep?\n") == "en"


def test_only_the_beginning_of_a_long_text_counts():
    english = "The quick brown fox jumps over the lazy dog. " * 30
    assert len(english) > MAX_CHARACTERS
    assert language_of(english + "그리고 다음은 한국어입니다. " * 1000) == "en"


@given(st.text())
def test_any_text_has_one_language_whatever_was_asked_before(text):
    first = language_of(text)
    language_of("다른 글")
    language_of("another text")
    assert language_of(text) == first
    assert first.isalpha() and first.islower()


def test_nothing_is_logged_printed_or_asked_of_the_network(monkeypatch, caplog, capfd):
    def refuse(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert language_of("a long text about nothing " * 1000) == "en"
    assert caplog.records == []
    assert capfd.readouterr() == ("", "")
