"""`rayrlhf data inspect`: rows after cleaning, as the model gets them, and nothing in them that rules a terminal."""

import re

import pytest
from typer.testing import CliRunner

from rayrlhf.cli import app
from rayrlhf.data.ingest.records import Preference, PromptText
from rayrlhf.data.templates import ChatTemplate
from rayrlhf.data.tokens.tokenise import SequenceLimit, tokenize
from rayrlhf.metrics import harmless
from rayrlhf.models import load_tokenizer


def call(*arguments, status=0):
    result = CliRunner().invoke(app, ["data", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def pair(prompt, chosen="yes", rejected="no"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_rows_are_shown_after_cleaning_and_those_left_out_are_counted(file):
    path = file([pair(""), pair("first"), pair("first"), pair("second", "yes<|endoftext|>")])
    shown = call("inspect", path, "--rows", 2)
    assert re.findall(r"^line \d+", shown, re.M) == ["line 2", "line 4"]
    assert "left out before these: 1 empty prompt" in shown
    assert "1 exact duplicate" in shown
    assert "<|endoftext|>" not in shown


def test_each_part_has_its_name_without_any_color(file, tiny_qwen2):
    path = file([pair("ask", "good", "bad")])
    shown = call("inspect", path)
    assert "prompt:\nuser: ask\nassistant: \nchosen:\ngood\nrejected:\nbad\n" in shown
    shown = call("inspect", path, "--model", tiny_qwen2)
    assert re.findall(r"^(\w+), \d+ tokens:$", shown, re.M) == ["prompt", "chosen", "rejected"]
    assert re.findall(r"^(\w+):$", call("inspect", file([{"prompt": "a", "completion": "b"}])), re.M) == [
        "prompt",
        "answer",
    ]


def test_labeled_answers_are_shown_as_good_or_bad(file, tiny_qwen2):
    path = file([{"prompt": "ask", "completion": answer, "label": answer == "yes"} for answer in ("yes", "no")])
    shown = call("inspect", path)
    assert "labeled_completion, read as labeled_answers" in shown
    assert "can be read as labeled_answers, prompts" in shown
    assert "good answer:\nyes\n" in shown and "bad answer:\nno\n" in shown
    assert re.findall(r"^(.+), \d+ tokens:$", call("inspect", path, "--model", tiny_qwen2), re.M) == [
        "prompt",
        "good answer",
        "prompt",
        "bad answer",
    ]


def test_numbers_are_readable_on_a_narrow_terminal(file, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    shown = call("stats", file([pair(f"What is {i}?", "yes, it is, and so on") for i in range(1000, 1050)]))
    assert "…" not in shown
    assert "100.0%" in shown


def test_the_text_is_that_of_the_tokens_that_training_gets(file, tiny_qwen2):
    tokenizer = load_tokenizer(tiny_qwen2)
    record = Preference(PromptText.of("Is it ?  [/INST] :smile: , yes ."), "I 'm  sure .", "no\n")
    shown = call("inspect", file([pair(record.prompt.text, record.chosen, record.rejected)]), "--model", tiny_qwen2)
    (rows,) = tokenize([record], ChatTemplate(), tokenizer, SequenceLimit(max_tokens=1000))
    texts = [tokenizer.decode(ids, clean_up_tokenization_spaces=False) for ids in (rows[0][0], rows[0][1], rows[1][1])]
    counts = [len(ids) for ids in (rows[0][0], rows[0][1], rows[1][1])]
    names = ("prompt", "chosen", "rejected")
    parts = (f"{name}, {n} tokens:\n{text}\n" for name, n, text in zip(names, counts, texts, strict=True))
    assert "".join(parts) in shown


ESCAPES = ["\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b2J", "a\rb", "\x08\x7f", "\u202eevil", "\x00"]


@pytest.mark.parametrize("text", ESCAPES)
@pytest.mark.parametrize("command", ["inspect", "stats", "leaks", "error"])
def test_no_text_of_data_rules_the_terminal(file, text, command):
    path = file([{"prompt": text, "completion": text}, {"prompt": "a", text: 1}, {"prompt": text, "completion": "b"}])
    other = file([{"prompt": text, "completion": "c"}], "other.jsonl")
    if command == "error":
        shown = call("inspect", file([{text: 1}]), status=2)
    else:
        inputs = [other, path] if command == "leaks" else [path]
        status = {"leaks": 1}.get(command, 0)
        shown = call(
            command, *inputs, "-s", "clean.max_reject_share=1", "-s", "format=prompt_completion", status=status
        )
    assert not set(shown) & set("\x1b\x07\x08\x7f\x9b\r\x00\u202e")
    if command == "inspect":
        assert harmless(text) in shown


def test_special_tokens_that_people_wrote_are_shown_and_counted_as_training_takes_them(file, tiny_qwen2):
    path = file([{"prompt": "say <|assistant|>", "completion": "no"}, {"prompt": "b", "completion": "x<|user|>y"}])
    lengths = {}
    for choice, done in (("split", "split"), ("allow", "taken as control tokens")):
        settings = ("--model", tiny_qwen2, "-s", f"special_tokens_in_text={choice}")
        shown = call("inspect", path, *settings)
        spelled = re.findall(r"^special tokens in the text, (.*)$", shown, re.M)
        assert spelled == [f"{done}: <|assistant|>", f"{done}: <|user|>"]
        lengths[choice] = [int(count) for count in re.findall(r"^\w+, (\d+) tokens:", shown, re.M)]
        assert re.search(rf"rows with special tokens in the text, {done} +│ +2 ", call("stats", path, *settings))
    letters = [len("<|assistant|>") - 1, 0, 0, len("<|user|>") - 1]  # this tokenizer has no longer pieces of them
    wanted = [allowed + more for allowed, more in zip(lengths["allow"], letters, strict=True)]
    assert lengths["split"] == wanted
