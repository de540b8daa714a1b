"""Records as tokens: eos, limits and what they leave out; and that a batch is encoded as one text is."""

import copy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Answer, Message, Preference, PromptText, Record
from rayrlhf.data.templates import ChatTemplate, CustomTemplate, KullmTemplate
from rayrlhf.data.templates.base import encode_texts
from rayrlhf.data.tokens.tokenise import PromptLimit, SequenceLimit, tokenize
from rayrlhf.models import load_tokenizer

KOGPT2 = Path(__file__).parents[4] / "../shared/data/tokenizer_kogpt2_v1"
TEMPLATE = CustomTemplate(text="{prompt}")
KOREAN = "불고기용 고기는 한우가 좋나요?"
ANY_TEXT = st.one_of(st.text(max_size=40), st.text("가나다 \nab<|endof>\u200b🙂é", max_size=40))


class Letters:
    """A tokenizer written in Python, with one token a letter: a is 1, b is 2, …"""

    eos_token_id = 99

    def __call__(self, texts, add_special_tokens=True):
        return type("Encoding", (), {"input_ids": [[ord(letter) - 96 for letter in text] for text in texts]})


LETTERS = Letters()


def of_letters(records, limit):
    """Rows of tokens, or the reason why there are none."""
    found = tokenize(records, TEMPLATE, LETTERS, limit)
    return [row.reason if isinstance(row, Rejected) else row for row in found]


# limits

PROMPTS = [Record(PromptText.of(text)) for text in ("abc", "abcd", "de")]


@pytest.mark.parametrize(
    ("overlong", "wanted"),
    [
        ("drop", [(([1, 2, 3], []),), "prompt too long", (([4, 5], []),)]),
        ("cut", [(([1, 2, 3], []),), (([2, 3, 4], []),), (([4, 5], []),)]),
        ("keep", [(([1, 2, 3], []),), (([1, 2, 3, 4], []),), (([4, 5], []),)]),
    ],
)
def test_overlong_prompts_are_dropped_cut_at_the_front_or_kept(overlong, wanted):
    assert of_letters(PROMPTS, PromptLimit(max_prompt_tokens=3, overlong_prompts=overlong)) == wanted


ANSWERS = [
    Answer(PromptText.of(prompt), text) for prompt, text in [("ab", "c"), ("ab", "cd"), ("abcd", "e"), ("abc", "d")]
]


def test_answers_end_with_eos_and_over_the_limit_are_dropped():
    found = of_letters(ANSWERS, SequenceLimit(max_tokens=4, overlong="drop"))
    assert found == [(([1, 2], [3, 99]),), "too long", "too long", "too long"]


def test_answers_over_the_limit_are_cut_without_eos_unless_none_would_be_left():
    found = of_letters(ANSWERS, SequenceLimit(max_tokens=4, overlong="cut"))
    assert found == [(([1, 2], [3, 99]),), (([1, 2], [3, 4]),), "too long", (([1, 2, 3], [4]),)]


def test_a_pair_is_dropped_whole():
    pairs = [Preference(PromptText.of("a"), "b", "c"), Preference(PromptText.of("a"), "bbbb", "c")]
    found = of_letters(pairs, SequenceLimit(max_tokens=4, overlong="drop"))
    assert found == [(([1], [2, 99]), ([1], [3, 99])), "too long"]


def test_a_pair_is_cut_on_both_sides_and_dropped_when_that_makes_them_equal():
    pairs = [
        Preference(PromptText.of("a"), "bcde", "f"),
        Preference(PromptText.of("a"), "bcdx", "bcdy"),
        Preference(PromptText.of("abcd"), "b", "c"),
    ]
    found = of_letters(pairs, SequenceLimit(max_tokens=4, overlong="cut"))
    assert found == [(([1], [2, 3, 4]), ([1], [6, 99])), "equal after the cut", "too long"]


@given(
    st.lists(st.tuples(st.text("abc", max_size=8), st.text("abc", max_size=8), st.text("abc", max_size=8))),
    st.integers(1, 12),
    st.sampled_from(["drop", "cut"]),
)
def test_no_row_is_longer_than_the_limit_and_none_is_without_an_answer(pairs, max_tokens, overlong):
    records = [Preference(PromptText.of(prompt), chosen, rejected) for prompt, chosen, rejected in pairs]
    found = of_letters(records, SequenceLimit(max_tokens=max_tokens, overlong=overlong))
    assert len(found) == len(records)
    for row in found:
        if not isinstance(row, str):
            assert all(answer and len(prompt) + len(answer) <= max_tokens for prompt, answer in row)


def test_a_limit_of_no_tokens_is_refused():
    with pytest.raises(ValidationError):
        SequenceLimit(max_tokens=0)
    with pytest.raises(ValidationError):
        PromptLimit(max_prompt_tokens=0)


# kinds of records, with a real tokenizer

ROOM = SequenceLimit(max_tokens=10_000)


def test_sft_rows_are_the_templates_tokens_then_the_answers_and_its_eos(tokenizer):
    record = Answer(PromptText.of(KOREAN), "네, 한우도 좋고")
    ((prompt, answer),) = tokenize([record], KullmTemplate(), tokenizer, ROOM)[0]
    assert prompt == KullmTemplate().encode(record.prompt, tokenizer)
    assert answer[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(answer[:-1]) == record.text


def test_both_sides_of_a_pair_have_the_same_prompt(tokenizer):
    record = Preference(PromptText.of(KOREAN), "네", "아니요")
    better, worse = tokenize([record], ChatTemplate(), tokenizer, ROOM)[0]
    assert better[0] == worse[0] == ChatTemplate().encode(record.prompt, tokenizer)
    assert [tokenizer.decode(answer) for _, answer in (better, worse)] == ["네<|endoftext|>", "아니요<|endoftext|>"]


def test_a_prompt_alone_has_no_answer_and_no_eos(tokenizer):
    ((prompt, answer),) = tokenize([Record(PromptText.of(KOREAN))], TEMPLATE, tokenizer, PromptLimit())[0]
    assert tokenizer.decode(prompt) == KOREAN
    assert answer == []


def test_no_records_are_no_rows(tokenizer):
    assert tokenize([], TEMPLATE, tokenizer, PromptLimit()) == []
    assert of_letters([], SequenceLimit()) == []


def test_records_of_a_batch_keep_their_order_and_do_not_touch_each_other(tokenizer):
    records = [Answer(PromptText.of(f"질문 {i}" * i), f"답 {i}") for i in range(9)]
    alone = [tokenize([record], ChatTemplate(), tokenizer, ROOM)[0] for record in records]
    assert tokenize(records, ChatTemplate(), tokenizer, ROOM) == alone


def test_only_the_records_that_the_template_refuses_are_left_out(tokenizer):
    conversation = PromptText((Message("user", "안녕"), Message("assistant", "네"), Message("user", "누구?")))
    records = [Record(PromptText.of("a")), Record(conversation), Record(PromptText.of("b"))]
    first, refused, last = tokenize(records, KullmTemplate(), tokenizer, PromptLimit())
    assert refused.reason == "refused by the template"
    assert "set template.kind=chat" in refused.detail
    alone = [tokenize([record], KullmTemplate(), tokenizer, PromptLimit())[0] for record in (records[0], records[2])]
    assert [first, last] == alone


# a batch is encoded as the tokenizer itself encodes one text


@pytest.fixture(scope="module", params=["qwen2", "llama", "bos", "kogpt2"])
def any_tokenizer(request):
    if request.param == "kogpt2":
        if not KOGPT2.is_dir():
            pytest.skip("the shared data are not on this machine")
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(KOGPT2)
    if request.param != "bos":
        return load_tokenizer(request.getfixturevalue(f"tiny_{request.param}"))
    return with_bos(load_tokenizer(request.getfixturevalue("tiny_qwen2")), "<|pad|> $A")


def with_bos(tokenizer, template: str):
    """A copy whose tokenizer puts special tokens around every text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = copy.deepcopy(tokenizer)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<|pad|>", "<|endoftext|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=special)
    return tokenizer


@given(st.lists(ANY_TEXT, max_size=5), st.booleans())
def test_a_batch_is_encoded_as_the_tokenizer_encodes_each_text(any_tokenizer, texts, special):
    alone = [any_tokenizer(text, add_special_tokens=special).input_ids for text in texts]
    assert encode_texts(texts, any_tokenizer, special) == alone


def test_truncation_and_padding_of_an_earlier_call_are_not_inherited(any_tokenizer):
    texts = [KOREAN, "네", KOREAN * 3]
    wanted = [any_tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    any_tokenizer.pad_token = any_tokenizer.pad_token or any_tokenizer.eos_token
    padded = any_tokenizer(texts, truncation=True, max_length=4, padding="max_length").input_ids
    assert {len(row) for row in padded} == {4}
    assert encode_texts(texts, any_tokenizer, False) == wanted
    # Nor does our call change what the next one asks for.
    again = any_tokenizer(texts, truncation=True, max_length=4, padding="max_length").input_ids
    assert again == padded


def test_a_bos_stands_before_a_text_and_never_before_an_answer(tokenizer):
    tokenizer = with_bos(tokenizer, "<|pad|> $A")
    bos = tokenizer.convert_tokens_to_ids("<|pad|>")
    ((prompt, answer),) = tokenize([Answer(PromptText.of(KOREAN), "네")], TEMPLATE, tokenizer, ROOM)[0]
    assert prompt == tokenizer(KOREAN).input_ids
    assert prompt.count(bos) == 1
    assert prompt[0] == bos
    assert bos not in answer


def test_a_chat_template_writes_its_special_tokens_itself(tokenizer):
    tokenizer = with_bos(tokenizer, "<|pad|> $A")
    ((prompt, _),) = tokenize([Record(PromptText.of(KOREAN))], ChatTemplate(), tokenizer, PromptLimit())[0]
    assert tokenizer.convert_tokens_to_ids("<|pad|>") not in prompt


def test_an_eos_that_the_tokenizer_puts_after_every_text_stands_after_the_answer_only(tokenizer):
    tokenizer = with_bos(tokenizer, "<|pad|> $A <|endoftext|>")
    ((prompt, answer),) = tokenize([Answer(PromptText.of(KOREAN), "네")], TEMPLATE, tokenizer, ROOM)[0]
    assert tokenizer.eos_token_id not in prompt
    assert answer.count(tokenizer.eos_token_id) == 1
