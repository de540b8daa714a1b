"""Conversations: chats of many turns, pairs of chats in all their shapes, dialogues in one string; instruction sets."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.ingest.reader import recognize
from rayrlhf.data.ingest.records import Answer, Message, Preference, PromptText, Record
from rayrlhf.data.ingest.sources import FileSource


def turns(*said) -> list[dict]:
    """Messages as files write them: `turns("user: hi", "assistant: hello")`."""
    return [dict(zip(("role", "content"), text.split(": ", 1), strict=True)) for text in said]


def asked(*said) -> PromptText:
    return PromptText(tuple(Message(turn["role"], turn["content"]) for turn in turns(*said)))


CHAT = ("system: be kind", "user: 1", "assistant: 2", "user: 3", "assistant: 4")


# chats


def test_the_last_answer_of_a_chat_is_learned_given_all_before_it(file, read):
    path = file([{"messages": turns(*CHAT)}])
    assert read(path).records == [Answer(asked(*CHAT[:4]), "4")]
    assert read(path, "prompts").records == [Record(asked(*CHAT[:4]))]


def test_each_answer_of_a_chat_can_be_learned_given_all_before_it(file, read):
    done = read(file([{"messages": turns(*CHAT)}]), rules={"turns": "all"})
    assert done.records == [Answer(asked(*CHAT[:2]), "2"), Answer(asked(*CHAT[:4]), "4")]
    assert [record.origin.siblings for record in done.records] == [2, 2]
    assert (done.account.rows, done.account.kept, done.account.records) == (1, 1, 2)


@given(st.lists(st.sampled_from(["system", "user", "assistant"]), max_size=8), st.sampled_from(["last", "all"]))
def test_any_order_of_turns_gives_its_answers_or_a_reason(tmp_path_factory, read, roles, which):
    path = tmp_path_factory.mktemp("chats") / "rows.jsonl"
    messages = [{"role": role, "content": str(at)} for at, role in enumerate(roles)]
    path.write_text(json.dumps({"messages": messages}))
    wanted = [str(at) for at, role in enumerate(roles) if role == "assistant" and at > 0]
    if which == "last":
        wanted = wanted[-1:] if roles and roles[-1] == "assistant" else []
    done = read(path, format="chat", rules={"turns": which})
    assert [record.text for record in done.records] == wanted
    assert all(len(record.prompt.messages) == int(record.text) for record in done.records)
    if not wanted:
        assert done.reasons == [(1, "no answer at the end" if roles else "malformed row")]


def test_a_chat_that_ends_with_a_question_is_a_prompt_and_no_answer(file, read):
    path = file([{"messages": turns(*CHAT[:4])}])
    assert read(path, "prompts").records == [Record(asked(*CHAT[:4]))]
    assert read(path).reasons == [(1, "no answer at the end")]
    assert read(path, rules={"turns": "all"}).records == [Answer(asked(*CHAT[:2]), "2")]


def test_other_names_of_the_roles_are_known(file, read):
    (answer,) = read(file([{"messages": turns("human: a", "gpt: b", "human: c", "bot: d")}])).records
    assert answer == Answer(asked("user: a", "assistant: b", "user: c"), "d")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (turns("narrator: a"), "wrong type: messages"),
        ([{"role": ["user"], "content": "a"}], "wrong type: messages"),
        ([{"role": "user", "content": None}], "wrong type: messages"),
        ([{"role": "user"}], "missing column: messages.content"),
        ([{"speaker": "user", "content": "a"}], "missing column: messages.role"),
        (["hello", 3], "wrong type: messages"),
        ([], "malformed row"),
        ("hello", "wrong type: messages"),
        ('[{"role": "user"', "wrong type: messages"),
        (None, "wrong type: messages"),
    ],
)
def test_messages_that_are_none_are_rejected(file, read, messages, reason):
    good = {"messages": turns("user: a", "assistant: b")}
    done = read(file([good, {"messages": messages}]))
    assert done.reasons == [(2, reason)]


def test_a_role_nobody_knows_is_told_with_its_place(file, read):
    ((_, _, detail, _),) = read(file([{"messages": turns("user: a", "narrator: b")}])).rejected
    assert detail.startswith("messages.1.role: ")
    assert detail.endswith("(found 'narrator')")


def test_plain_text_chats_are_chats(file, read):
    text = "<<start conversation>>\n<사람>: 1\n<챗봇>: 2\n<사람>: 3\n<챗봇>: 4\n<<start conversation>>\n<사람>: 5\n"
    path = file(text, "chats.jsonl")
    assert recognize(FileSource(path=path)).name == "chat"
    done = read(path)
    assert done.records == [Answer(asked("user: 1", "assistant: 2", "user: 3"), "4")]
    assert done.reasons == [(6, "no answer at the end")]
    assert [record.text for record in read(path, rules={"turns": "all"}).records] == ["2", "4"]


# pairs of chats

PROMPT = asked("user: q")
WANTED = [Preference(PROMPT, "good", "bad")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": turns("user: q"), "chosen": "good", "rejected": "bad"},
        {"messages": turns("user: q"), "chosen": "good", "rejected": "bad"},
        {"prompt": turns("user: q"), "chosen": turns("assistant: good"), "rejected": turns("assistant: bad")},
        {"prompt": "q", "chosen": turns("assistant: good"), "rejected": turns("assistant: bad")},
        {"prompt": "q", "chosen": turns("user: q", "assistant: good"), "rejected": turns("user: q", "assistant: bad")},
        {
            "prompt": " q\n",
            "chosen": turns("user: q", "assistant: good"),
            "rejected": turns("user: q", "assistant: bad"),
        },
        {"chosen": turns("user: q", "assistant: good"), "rejected": turns("user: q", "assistant: bad")},
        {"messages": turns("user: q"), "chosen": turns("user: q", "assistant: good"), "rejected": "bad"},
        {  # some sets repeat the chosen dialogue as the messages
            "prompt": "q",
            "messages": turns("user: q", "assistant: good"),
            "chosen": turns("user: q", "assistant: good"),
            "rejected": turns("user: q", "assistant: bad"),
        },
    ],
)
@pytest.mark.parametrize("in_a_table", [False, True])
def test_pairs_of_chats_in_any_shape_are_one_preference(file, read, row, in_a_table):
    if in_a_table:
        cells = [json.dumps(value) if isinstance(value, list) else value for value in row.values()]
        text = "\t".join(row) + "\n" + "\t".join('"' + cell.replace('"', '""') + '"' for cell in cells) + "\n"
        path = file(text, "rows.tsv")
    else:
        path = file([row])
    assert recognize(FileSource(path=path)).name == "chat_pair"
    assert read(path, "preferences").records == WANTED
    assert read(path, "answers").records == [Answer(PROMPT, "good")]
    assert read(path, "prompts").records == [Record(PROMPT)]


def test_pairs_of_long_chats_share_all_but_the_last_answer(file, read):
    row = {"chosen": turns(*CHAT), "rejected": turns(*CHAT[:4], "assistant: worse")}
    assert read(file([row]), "preferences").records == [Preference(asked(*CHAT[:4]), "4", "worse")]
    last_question = {**row, "prompt": "3"}
    assert read(file([last_question]), "preferences").records == [Preference(asked(*CHAT[:4]), "4", "worse")]
    first_question = {**row, "prompt": "1"}
    assert read(file([first_question]), "preferences").records == [Preference(asked(*CHAT[:4]), "4", "worse")]


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        (
            turns("user: q", "assistant: a"),
            turns("user: other", "assistant: b"),
            "dialogues differ before the last answer",
        ),
        (turns("user: q", "assistant: a"), turns("user: q"), "no answer at the end"),
        (turns("user: q", "assistant: a"), [], "no answer at the end"),
        (turns("user: q", "user: a"), turns("user: q", "user: b"), "no answer at the end"),
    ],
)
def test_pairs_of_chats_that_differ_elsewhere_are_rejected(file, read, chosen, rejected, reason):
    good = {"chosen": turns("user: q", "assistant: good"), "rejected": turns("user: q", "assistant: bad")}
    done = read(file([good, {"chosen": chosen, "rejected": rejected}]), "preferences")
    assert done.reasons == [(2, reason)]
    assert done.records == WANTED


def test_a_dialogue_that_does_not_follow_its_prompt_is_rejected(file, read):
    row = {"prompt": "q", "chosen": turns("user: x", "assistant: a"), "rejected": turns("user: x", "assistant: b")}
    assert read(file([row]), "preferences").reasons == [(1, "malformed row")]


@pytest.mark.parametrize(
    "answer", ["[1, 2]", '{"a": 1}', "[]", '[{"text": "x"}]', '[{"role": "user"', "[{'role': 'x'}]"]
)
def test_an_answer_that_is_json_itself_stays_an_answer(file, read, answer):
    row = {"prompt": turns("user: q"), "chosen": answer, "rejected": "bad"}
    assert read(file([row]), "preferences").records == [Preference(PROMPT, answer, "bad")]
    row = {"prompt": "q", "chosen": answer, "rejected": "bad"}
    assert recognize(FileSource(path=file([row]))).name == "preference_pair"
    assert read(file([row]), "preferences").records == [Preference(PROMPT, answer, "bad")]


# hh-rlhf


def hh(*said) -> str:
    names = {"user": "Human", "assistant": "Assistant"}
    return "".join(f"\n\n{names[turn['role']]}: {turn['content']}" for turn in turns(*said))


def test_dialogues_in_one_string_are_split_at_their_speakers(file, read):
    shared = ("user: Why?\n\nReally, human: why", "assistant: So.", "user: And?")
    row = {"chosen": hh(*shared, "assistant: good"), "rejected": hh(*shared, "assistant: bad\n\nand long")}
    (pair,) = read(file([row]), "preferences").records
    assert pair == Preference(asked(*shared), "good", "bad\n\nand long")


def test_dialogues_in_one_string_that_are_none_are_rejected(file, read):
    rows = [
        {"chosen": hh("user: q", "assistant: a"), "rejected": hh("user: q", "assistant: b")},
        {"chosen": hh("user: q", "assistant: a"), "rejected": hh("user: x", "assistant: b")},
        {"chosen": hh("user: q"), "rejected": hh("user: q")},
        {"chosen": "q", "rejected": "b"},
        {"chosen": None, "rejected": hh("user: q", "assistant: b")},
    ]
    done = read(file(rows), "preferences")
    assert done.reasons == [
        (2, "dialogues differ before the last answer"),
        (3, "no answer at the end"),
        (4, "malformed row"),
        (5, "wrong type: chosen"),
    ]
    assert read(file(rows[:3]), "prompts").records == [Record(PROMPT)] * 2


# instructions


def test_an_instruction_with_several_instances_gives_each(file, read):
    instances = [{"input": "x", "output": "1"}, {"input": "", "output": "2"}, {"output": "3"}]
    done = read(file([{"instruction": "i", "instances": instances}]))
    contexts = ["x", None, None]
    assert done.records == [
        Answer(PromptText.of("i", context), text) for context, text in zip(contexts, "123", strict=True)
    ]
    assert (done.account.rows, done.account.kept, done.account.records_kept) == (1, 1, 3)


def test_the_input_of_an_instruction_or_a_pair_is_its_context(file, read):
    assert read(file([{"instruction": "i", "input": "x", "output": "o"}])).records == [
        Answer(PromptText.of("i", "x"), "o")
    ]
    row = {"prompt": "p", "input": "x", "chosen": "a", "rejected": "b"}
    assert read(file([row]), "preferences").records == [Preference(PromptText.of("p", "x"), "a", "b")]


@pytest.mark.parametrize(
    ("completion", "text", "notes"),
    [
        ("'안녕\\n하세요", "안녕\n하세요", {"stray quote removed": 1, "literal \\n made a line break": 1}),
        ("'네' 라고", "'네' 라고", {}),
        ("don't", "don't", {}),
        ("한 줄\n두 줄", "한 줄\n두 줄", {}),
    ],
)
def test_the_stray_marks_of_kochatgpt_are_fixed_and_noted(file, read, completion, text, notes):
    done = read(file([{"prompt": "p", "completion": completion, "tokens": 3}]))
    assert [record.text for record in done.records] == [text]
    assert done.account.notes == notes
