"""Records: end markers, emptiness and what makes two prompts equal."""

import pytest

from rayrlhf.data.ingest.records import Message, PromptText, visible


@pytest.mark.parametrize(
    "text", ["", "  \t\r\n", "\u200b", "\ufeff\u200c\u200d\u2060", "\xa0 \u200b\n", "\u3000\u2003", "\u3164\u115f"]
)
def test_white_space_and_zero_width_characters_are_nothing_to_read(text):
    assert visible(text) == ""
    assert PromptText.of(text).is_empty


def test_a_prompt_with_no_messages_is_empty_and_one_with_text_is_not():
    assert PromptText(()).is_empty
    assert not PromptText.of("안녕").is_empty


def test_prompts_have_equal_keys_exactly_when_they_are_equal():
    prompts = [
        PromptText.of("a"),
        PromptText.of("a", "b"),
        PromptText.of("ab"),
        PromptText((Message("system", "a"),)),
        PromptText((Message("user", "a"), Message("user", "b"))),
        PromptText((Message("user", "a"), Message("assistant", "b"))),
    ]
    assert len({prompt.key for prompt in prompts}) == len(prompts)
    assert PromptText.of("a", "").key == PromptText.of("a").key
