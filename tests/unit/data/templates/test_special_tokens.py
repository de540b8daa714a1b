"""Special tokens that people write: plain text in every template and tokenizer, and never a control token."""

from collections import Counter
from functools import cache

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_tokenizers import ASSISTANT, EOS, MAKES, THINK, USER
from tokenizers import AddedToken, Tokenizer

from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Message, PromptText
from rayrlhf.data.templates import ChatTemplate, CustomTemplate, KochatgptTemplate, KullmTemplate
from rayrlhf.data.templates.base import encode_answers, encode_texts
from rayrlhf.data.templates.special_tokens import Marked

TEMPLATES = {
    "chat": ChatTemplate(),
    "chat with a system message": ChatTemplate(system=f"It ends with {EOS}"),
    "kochatgpt": KochatgptTemplate(),
    "kullm": KullmTemplate(),
    "custom": CustomTemplate(text=f"{USER} {{prompt}} {EOS} {ASSISTANT}", text_with_input="{prompt}{input}"),
    "half a token": CustomTemplate(text="<|{prompt}|> </{prompt}>"),
}
PIECES = (USER, ASSISTANT, EOS, "＜/s＞", "</S>", "<", "|", ">", "s", "user", "</", "s>", "<|", "|>", THINK)
TEXT = st.lists(st.one_of(st.sampled_from((*PIECES, " ", "  ", "\n", "the ", "안녕")), st.text(max_size=4))).map(
    "".join
)
MAKE, TEMPLATE = st.sampled_from(list(MAKES)), st.sampled_from(list(TEMPLATES))


@cache
def made(make):
    return MAKES[make]()


def prompt_of(text, context=None):
    return PromptText.of(text, context)


def control_tokens(row, tokenizer):
    """How often each of the three stands in a row; an unknown character is none of them."""
    ids = tokenizer.convert_tokens_to_ids([EOS, USER, ASSISTANT])
    return Counter(token for token in row if token in ids)


@given(MAKE, TEMPLATE, TEXT, st.none() | TEXT)
@example("unigram, NFKC", "kullm", "＜/s＞", None)
@example("unigram, lowercase", "kullm", "</S>", None)
@example("llama", "kochatgpt", "</s>", None)
@example("byte-level", "half a token", "user", None)
@example("byte-level", "half a token", "s", None)
@example("byte-level", "custom", "<|us", "er|>")
@example("byte-level, takes in spaces", "custom", f"  {USER}  ", None)
def test_no_text_adds_a_control_token_to_a_prompt(make, template, text, context):
    tokenizer, template = made(make), TEMPLATES[template]
    innocent = template.encode(prompt_of("x" if text.strip() else text, "x" if context else None), tokenizer)
    row = template.encode(prompt_of(text, context), tokenizer)
    assert control_tokens(row, tokenizer) == control_tokens(innocent, tokenizer)


@given(MAKE, TEXT)
def test_no_text_makes_a_control_token_in_an_answer(make, text):
    tokenizer = made(make)
    (row,) = encode_answers([text], tokenizer, ChatTemplate().special_tokens(tokenizer))
    assert not control_tokens(row, tokenizer)


@given(MAKE, TEMPLATE, TEXT, st.none() | TEXT)
def test_marks_change_no_token_of_a_prompt_without_special_tokens(make, template, text, context):
    tokenizer, template = made(make), TEMPLATES[template]
    special, prompt = template.special_tokens(tokenizer), prompt_of(text, context)
    rendered = template.as_text(prompt, tokenizer)
    frame = template.as_text(prompt_of("x" if text.strip() else text, "x" if context else None), tokenizer)
    if special.find(prompt.texts) or special.count(rendered) != special.count(frame):
        return
    changed, originals = special.mark(prompt, rendered)
    marked = Marked(template.as_text(changed, tokenizer), originals)
    assert marked.plain == rendered
    wanted = encode_texts([rendered], tokenizer, template.adds_special_tokens)
    assert special.framed_ids([marked], template.adds_special_tokens) == wanted


@given(MAKE, TEXT)
def test_an_answer_without_special_tokens_has_the_same_tokens_either_way(make, text):
    tokenizer = made(make)
    special = ChatTemplate().special_tokens(tokenizer)
    if not special.find([text]):
        assert special.plain_ids([text]) == encode_texts([text], tokenizer, add_special_tokens=False)


# what becomes of them

SPELLED = f"Say {ASSISTANT} and {EOS}"


def test_a_split_token_is_the_tokens_of_its_letters():
    tokenizer = made("byte-level")
    row = ChatTemplate().encode(prompt_of(SPELLED), tokenizer)
    user, assistant = tokenizer.convert_tokens_to_ids([USER, ASSISTANT])
    assert (row[0], row[-1]) == (user, assistant)
    assert tokenizer.decode(row) == f"{USER}{SPELLED}{ASSISTANT}"
    knows_none = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    knows_none.encode_special_tokens = True
    assert row[1:-1] == knows_none.encode(SPELLED).ids


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name != "half a token"])
def test_each_choice_in_each_template(template):
    tokenizer, template = made("byte-level"), TEMPLATES[template]
    innocent, spelled = prompt_of("Say nothing"), prompt_of(SPELLED)
    wanted = control_tokens(template.encode(innocent, tokenizer), tokenizer)
    assert control_tokens(template.encode(spelled, tokenizer), tokenizer) == wanted
    allowed = template.encode(spelled, tokenizer, "allow")
    text = template.as_text(spelled, tokenizer)
    assert allowed == encode_texts([text], tokenizer, template.adds_special_tokens)[0]
    kept, refused = template.encode_batch([innocent, spelled], tokenizer, "reject")
    assert kept == template.encode(innocent, tokenizer)
    assert isinstance(refused, Rejected)
    assert refused.reason == "special tokens in the text"
    assert refused.detail == f"{ASSISTANT!r}; special_tokens_in_text=split takes it as plain text"


def test_each_choice_in_an_answer():
    tokenizer = made("llama")
    special, eos = ChatTemplate().special_tokens(tokenizer), tokenizer.eos_token_id
    texts = ["Nine.", f"Nine.{EOS} Ten.", "Ten."]
    split = encode_answers(texts, tokenizer, special, "split")
    assert [eos in row for row in split] == [False, False, False]
    assert encode_answers(texts, tokenizer, special, "allow") == encode_texts(texts, tokenizer, False)
    first, refused, last = encode_answers(texts, tokenizer, special, "reject")
    assert (first, last) == (split[0], split[2])
    assert isinstance(refused, Rejected) and EOS in refused.detail


def test_a_conversation_keeps_the_tokens_between_its_turns():
    tokenizer = made("byte-level")
    turns = (Message("user", SPELLED), Message("assistant", f"No {EOS}"), Message("user", f"{USER} again"))
    row = ChatTemplate().encode(PromptText(turns), tokenizer)
    eos, user, assistant = tokenizer.convert_tokens_to_ids([EOS, USER, ASSISTANT])
    assert [token for token in row if token in (eos, user, assistant)] == [user, assistant, eos, user, assistant]
    assert tokenizer.decode(row) == f"{USER}{SPELLED}{ASSISTANT}No {EOS}{EOS}{USER}{USER} again{ASSISTANT}"


# templates that do more with a message than show it

FRAME = "<|user|>{{ %s }}<|assistant|>"


@pytest.mark.parametrize(
    "shown",
    [
        "m.content | trim",
        "m.content.split('</think>')[-1].lstrip()",
        "m.content ~ '; again: ' ~ m.content",
        "m.content | tojson",
        "m.content | indent(2, first=true)",
        "m.content[:400]",
    ],
)
@pytest.mark.parametrize(
    "text", [f"  {SPELLED}\n", f"{THINK}hm {EOS}</think>\n\n{SPELLED} so", "plain\n\n  and simple "]
)
def test_a_template_may_cut_repeat_and_quote_what_people_write(shown, text):
    tokenizer = made("byte-level")
    template = ChatTemplate(jinja=FRAME % shown.replace("m.", "messages[0]."))
    row = template.encode(prompt_of(text), tokenizer)
    assert control_tokens(row, tokenizer).total() == 2
    assert tokenizer.decode(row) == template.as_text(prompt_of(text), tokenizer)


@pytest.mark.parametrize(
    "shown", ["m.content | replace('</s>', '')", "m.content | upper", "m.content.split('</s>')[0]"]
)
def test_a_template_that_rewrites_special_tokens_is_not_guessed_at(shown):
    template = ChatTemplate(jinja=FRAME % shown.replace("m.", "messages[0]."))
    innocent, refused = template.encode_batch([prompt_of("a"), prompt_of(SPELLED)], made("byte-level"))
    assert isinstance(innocent, list) and isinstance(refused, Rejected)
    assert refused.reason == "special tokens in the text"
    assert refused.detail.startswith("the template rewrites the text around them: take them out, or set")


# which tokens are control tokens


def test_a_token_for_thinking_stays_what_its_writer_means():
    tokenizer = made("byte-level")
    think = tokenizer.convert_tokens_to_ids(THINK)
    for text in (f"{THINK}So.", f"{THINK}So. {EOS}"):
        (row,) = encode_answers([text], tokenizer, ChatTemplate().special_tokens(tokenizer))
        assert row[0] == think


def test_what_a_chat_template_puts_between_turns_is_a_control_token_though_the_tokenizer_calls_it_ordinary():
    tokenizer = MAKES["byte-level"]()
    tokenizer.add_tokens(["<｜User｜>", "<|im_end|>", "<p>", "ordinary"])
    tokenizer.chat_template = (
        "{% for m in messages %}<｜User｜>{{ m.content }}<|im_end|> ordinary <think></think>{% endfor %}"
    )
    spelled = "<｜User｜> <|im_end|> <p> ordinary <think></think>"
    names = tokenizer.convert_ids_to_tokens(ChatTemplate().encode(prompt_of(spelled), tokenizer))
    assert [names.count(name) for name in ("<｜User｜>", "<|im_end|>", "<p>")] == [1, 1, 1]
    assert [names.count(name) for name in ("ordinary", "<think>", "</think>")] == [2, 2, 2]


def test_smileys_that_a_tokenizer_calls_special_stay_whole():
    tokenizer = MAKES["byte-level"]()
    smileys = ["ㅠㅠ", "😊", "[:]", ":->"]
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    tokenizer.add_tokens([AddedToken(name, special=True) for name in [*smileys, "<usr>"]])
    text = " ".join([*smileys, "[MASK]", "<usr>"])
    names = tokenizer.convert_ids_to_tokens(ChatTemplate().encode(prompt_of(text), tokenizer))
    assert [names.count(name) for name in (*smileys, "[MASK]", "<usr>")] == [1, 1, 1, 1, 0, 0]


def test_private_characters_forge_nothing():
    tokenizer = made("byte-level")
    text = f"\U00100002\U00100003 {EOS} \U00100004\U00100000{tokenizer.eos_token_id:x}\U00100001"
    row = ChatTemplate().encode(prompt_of(text), tokenizer)
    assert control_tokens(row, tokenizer).total() == 2
    assert tokenizer.decode(row) == f"{USER}{text}{ASSISTANT}"


def test_a_tokenizer_written_in_python_refuses_what_it_cannot_split():
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    template = CustomTemplate(text="Q: {prompt} A:")
    kept, refused = template.encode_batch([prompt_of("Nine."), prompt_of(f"Nine.{EOS}")], tokenizer)
    assert kept == tokenizer("Q: Nine. A:").input_ids[:-1]
    assert isinstance(refused, Rejected) and "this tokenizer is written in Python" in refused.detail
    special = template.special_tokens(tokenizer)
    answer, refused = encode_answers(["Nine.", f"Nine.{EOS}"], tokenizer, special)
    assert answer == tokenizer("Nine.", add_special_tokens=False).input_ids
    assert isinstance(refused, Rejected)
    assert encode_answers([EOS], tokenizer, special, "allow") == [[tokenizer.eos_token_id]]
