"""Templates, character by character and token by token, with Korean text."""

import json
import re
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from rayrlhf.config import Config, ConfigError, UserError, parse_config
from rayrlhf.data.ingest.account import Rejected
from rayrlhf.data.ingest.records import Message, PromptText
from rayrlhf.data.templates import ChatTemplate, CustomTemplate, KochatgptTemplate, KullmTemplate, Template

SHARED = Path(__file__).parents[4] / "../shared/data"
KULLM_FILE = SHARED / "vaiv/templates/kullm.json"
KOGPT2 = SHARED / "tokenizer_kogpt2_v1"
QUESTION = "불고기용 고기는 한우가 좋나요?"
CONVERSATION = PromptText((Message("user", "안녕"), Message("assistant", "네"), Message("user", "누구세요?")))


class Holder(Config):
    template: Template


KOCHATGPT_TEXT = f"### Instruction(명령어):\n{QUESTION}\n\n### Response(응답):"
KULLM_TEXT = (
    "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요.\n\n"
    f"### 명령어:\n{QUESTION}\n\n### 응답:\n"
)
TEXTS = [
    (KochatgptTemplate(), KOCHATGPT_TEXT),
    (KullmTemplate(), KULLM_TEXT),
    (CustomTemplate(text="질문: {prompt}\n답: "), f"질문: {QUESTION}\n답: "),
]


@pytest.mark.parametrize(("template", "text"), TEXTS)
def test_a_prompt_reads_exactly_as_the_models_were_trained_on(template, text):
    assert template.render(PromptText.of(QUESTION)) == text


@pytest.mark.parametrize(("template", "text"), TEXTS)
def test_a_prompt_is_the_tokens_of_its_text_and_nothing_more(template, text, tokenizer):
    ids = template.encode(PromptText.of(QUESTION), tokenizer)
    assert ids == tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id not in ids


def test_the_chat_template_is_the_tokenizers_own_up_to_where_the_answer_begins(tokenizer):
    user, assistant = (tokenizer.convert_tokens_to_ids(token) for token in ("<|user|>", "<|assistant|>"))
    question = tokenizer(QUESTION, add_special_tokens=False).input_ids
    assert ChatTemplate().encode(PromptText.of(QUESTION), tokenizer) == [user, *question, assistant]


def test_a_conversation_keeps_its_turns_and_the_eos_after_each_answer(tokenizer):
    ids = ChatTemplate().encode(CONVERSATION, tokenizer)
    assert tokenizer.decode(ids) == "<|user|>안녕<|assistant|>네<|endoftext|><|user|>누구세요?<|assistant|>"
    assert ids.count(tokenizer.eos_token_id) == 1


def test_a_system_message_is_added_only_where_there_is_none(tokenizer):
    # The tiny chat template shows every message that is not the user's as the assistant's.
    template = ChatTemplate(system="친절하게")
    decoded = tokenizer.decode(template.encode(PromptText.of("안녕"), tokenizer))
    assert decoded.index("친절하게") < decoded.index("<|user|>안녕")
    own = PromptText((Message("system", "짧게"), Message("user", "안녕")))
    assert "친절하게" not in tokenizer.decode(template.encode(own, tokenizer))


def test_a_context_stands_below_the_last_message_of_a_chat(tokenizer):
    ids = ChatTemplate().encode(PromptText.of("요약해줘", "긴 글"), tokenizer)
    assert tokenizer.decode(ids) == "<|user|>요약해줘\n\n긴 글<|assistant|>"


def test_the_kullm_variant_with_input_has_its_own_opening():
    assert KullmTemplate().render(PromptText.of("요약해줘", "긴 글")) == (
        "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
        "요청을 적절히 완료하는 응답을 작성하세요.\n\n"
        "### 명령어:\n요약해줘\n\n### 입력:\n긴 글\n\n### 응답:\n"
    )


@pytest.mark.skipif(not KULLM_FILE.exists(), reason="the shared data are not on this machine")
@pytest.mark.parametrize(("key", "context"), [("prompt_no_input", None), ("prompt_input", "긴 글")])
def test_kullm_is_the_template_in_vaivs_file(key, context):
    wanted = json.loads(KULLM_FILE.read_text(encoding="utf-8"))[key]
    wanted = wanted.replace("{instruction}", QUESTION).replace("{input}", context or "")
    assert KullmTemplate().render(PromptText.of(QUESTION, context)) == wanted


def test_kochatgpt_puts_an_input_below_the_instruction():
    rendered = KochatgptTemplate().render(PromptText.of("요약해줘", "긴 글"))
    assert rendered == "### Instruction(명령어):\n요약해줘\n긴 글\n\n### Response(응답):"


def test_a_custom_template_may_have_a_variant_with_input():
    template = CustomTemplate(text="Q {prompt} A", text_with_input="Q {prompt} I {input} A")
    assert template.render(PromptText.of("q")) == "Q q A"
    assert template.render(PromptText.of("q", "i")) == "Q q I i A"
    assert CustomTemplate(text="Q {prompt} A").render(PromptText.of("q", "i")) == "Q q\ni A"


def test_braces_in_a_prompt_are_left_alone():
    assert CustomTemplate(text="{prompt}!").render(PromptText.of("{0} {name} %s")) == "{0} {name} %s!"
    assert KullmTemplate().render(PromptText.of("{x}")).count("{x}") == 1
    both = CustomTemplate(text="{prompt}", text_with_input="{prompt} + {input}")
    assert both.render(PromptText.of("{input} \\1", "{prompt}")) == "{input} \\1 + {prompt}"


@pytest.mark.parametrize("template", [KochatgptTemplate(), KullmTemplate(), CustomTemplate(text="{prompt}")])
def test_a_text_template_refuses_a_conversation_and_names_the_chat_template(template, tokenizer):
    with pytest.raises(Rejected) as refusal:
        template.encode(CONVERSATION, tokenizer)
    assert refusal.value.reason == "refused by the template"
    assert "takes one message, this prompt has 3: set template.kind=chat" in refusal.value.detail


def test_an_eos_that_a_tokenizer_puts_after_every_text_is_no_part_of_a_prompt():
    class EndsWithEos:
        eos_token_id = 7
        chat_template = "{{ messages[0].content }}"

        def __call__(self, texts, add_special_tokens):
            return type("Encoding", (), {"input_ids": [[1, 2] + [7] * add_special_tokens for _ in texts]})

        def apply_chat_template(self, messages, chat_template, tokenize, add_generation_prompt):
            return messages[0]["content"]

    assert KullmTemplate().encode(PromptText.of("a"), EndsWithEos()) == [1, 2]
    assert ChatTemplate().encode(PromptText.of("a"), EndsWithEos()) == [1, 2]


@pytest.mark.parametrize("template", [ChatTemplate(), KochatgptTemplate(), KullmTemplate()])
def test_many_prompts_are_encoded_as_each_by_itself(template, tokenizer):
    prompts = [PromptText.of(QUESTION * count, "긴 글" if count % 2 else None) for count in range(1, 5)]
    assert template.encode_batch(prompts, tokenizer) == [template.encode(prompt, tokenizer) for prompt in prompts]
    assert template.encode_batch([], tokenizer) == []


# chat templates of the user's own, and what they refuse

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def test_a_chat_template_of_the_users_own_is_used_instead_of_the_tokenizers(tokenizer):
    template = ChatTemplate(jinja=CHATML, system="친절하게")
    text = (
        "<|im_start|>system\n친절하게<|im_end|>\n<|im_start|>user\n안녕<|im_end|>\n"
        "<|im_start|>assistant\n네<|im_end|>\n<|im_start|>user\n누구세요?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.as_text(CONVERSATION, tokenizer) == text
    assert template.encode(CONVERSATION, tokenizer) == tokenizer(text, add_special_tokens=False).input_ids


def test_a_tokenizer_without_chat_template_can_be_given_one(tokenizer, monkeypatch):
    wanted = ChatTemplate().encode(CONVERSATION, tokenizer)
    jinja = tokenizer.chat_template
    monkeypatch.setattr(tokenizer, "chat_template", None)
    assert ChatTemplate(jinja=jinja).encode(CONVERSATION, tokenizer) == wanted
    with pytest.raises(
        UserError, match=r"no chat template: set template\.jinja, or choose .*=kochatgpt, kullm or custom"
    ):
        ChatTemplate().encode(CONVERSATION, tokenizer)


@pytest.mark.parametrize(
    ("jinja", "problem"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{% for m in messages %}{{ m.content }}", "end of template"),
        ("{{ no_such_name.content }}", "'no_such_name' is undefined"),
    ],
)
def test_a_conversation_that_a_chat_template_refuses_is_rejected(jinja, problem, tokenizer, monkeypatch):
    with pytest.raises(Rejected) as refusal:
        ChatTemplate(jinja=jinja).encode(CONVERSATION, tokenizer)
    assert re.match(rf"template\.jinja cannot render this conversation: .*{problem}", refusal.value.detail)
    monkeypatch.setattr(tokenizer, "chat_template", jinja)
    with pytest.raises(Rejected) as refusal:
        ChatTemplate().encode(CONVERSATION, tokenizer)
    assert re.match(rf"the tokenizer's chat template cannot render .*{problem}", refusal.value.detail)


# KoGPT2, which writes no newline at all


@pytest.mark.skipif(not KOGPT2.is_dir(), reason="the shared data are not on this machine")
@pytest.mark.parametrize(
    ("template", "tokens"),
    [
        (
            KochatgptTemplate(),
            "▁# # # ▁In str u ction ( 명령 어 ): 한 우가 ▁좋 나요 ? # # # ▁Res p on se ( 응답 ):",
        ),
        (
            KullmTemplate(),
            "▁아래는 ▁작업을 ▁설명하는 ▁명령 어 입니다 . ▁요청을 ▁적절히 ▁완료 하는 ▁응답 을 ▁작성 하세요 . "
            "# # # ▁명령 어 : 한 우가 ▁좋 나요 ? # # # ▁응답 :",
        ),
        (CustomTemplate(text="질문: {prompt}\n답: "), "▁질문 : ▁한우 가 ▁좋 나요 ? 답 : ▁"),
    ],
)
def test_templates_token_by_token_in_kogpt2(template, tokens):
    from transformers import AutoTokenizer

    kogpt2 = AutoTokenizer.from_pretrained(KOGPT2)
    ids = template.encode(PromptText.of("한우가 좋나요?"), kogpt2)
    assert kogpt2.convert_ids_to_tokens(ids) == tokens.split()


# in a config


def test_a_template_may_be_named_by_its_kind_alone():
    adapter = TypeAdapter(Template)
    assert adapter.validate_python("kullm") == KullmTemplate()
    assert adapter.validate_python({"kind": "custom", "text": "{prompt}"}) == CustomTemplate(text="{prompt}")
    assert Holder(template="chat").template == ChatTemplate()


def test_a_custom_template_without_prompt_is_told_where_to_write_it():
    with pytest.raises(ConfigError, match=r"template.text: put \{prompt\} where the prompt goes"):
        parse_config(Holder, {"template": {"kind": "custom", "text": "no place"}}, "here")


@pytest.mark.parametrize("text", ["only {prompt}", "only {input}"])
def test_a_variant_with_input_without_a_place_for_either_is_told_so(text):
    with pytest.raises(ConfigError, match=r"template.text_with_input: put \{prompt\} and \{input\} where they go"):
        parse_config(Holder, {"template": {"kind": "custom", "text": "{prompt}", "text_with_input": text}}, "here")


def test_an_unknown_template_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"template.kind: 'kulm' is not one of .*'kullm'"):
        parse_config(Holder, {"template": "kulm"}, "here")
