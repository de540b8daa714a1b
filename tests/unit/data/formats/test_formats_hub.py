"""Sets of the hub and their relatives: scores become margins, what cannot be kept is refused by name."""

import pytest

from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.reader import default_kind, recognize
from rayrlhf.data.ingest.records import Answer, Message, Preference, PromptText, Record
from rayrlhf.data.ingest.sources import FileSource

USER, BOT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
ASKED = PromptText.of("q")
SYSTEM = PromptText((Message("system", "Be brief."), Message("user", "q")))


# names of columns


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "q", "response": "a"}, ASKED),
        ({"prompt": "q", "answer": "a"}, ASKED),
        ({"instruction": "q", "context": "c", "response": "a", "category": "open_qa"}, PromptText.of("q", "c")),
        ({"id": "niv.1", "system_prompt": "Be brief.", "question": "q", "response": "a"}, SYSTEM),
        ({"input": "q", "output": "a"}, ASKED),
        ({"query": "q", "response": "a", "type": "MATH"}, ASKED),
        ({"problem": "q", "solution": "a", "answer": "5"}, ASKED),
        ({"question": "q", "context": "c", "answer": "a"}, PromptText.of("q", "c")),
        ({"instruction": "q", "input": "", "output": "a", "system": "Be brief."}, SYSTEM),
        ({"messages": [USER, BOT], "system": "Be brief."}, SYSTEM),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}, ASKED),
        ({"prompt": "q", "prompt_id": "7", "messages": [USER, BOT]}, ASKED),
        ({"prompt": [USER], "completion": [BOT]}, ASKED),
        ({"prompt": [USER], "completion": "a"}, ASKED),
        ({"prompt": "q", "completion": [BOT]}, ASKED),
        ({"prompt": [USER], "solution": "a"}, ASKED),
        ({"prompt": [USER], "output": "a"}, ASKED),
        ({"conversations": ["q", "a"], "source": "LIMA"}, ASKED),
        ({"conversation": [{"input": "q", "output": "a"}], "source": "Capybara"}, ASKED),
        ({"conversations": [{"from": "human", "value": "q", "weight": 0}, BOT | {"weight": 1}]}, ASKED),
    ],
)
def test_answers_are_read_under_any_usual_name(file, read, row, prompt):
    assert read(file([row])).records == [Answer(prompt, "a")]


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"system": "Be brief.", "question": "q", "chosen": "a", "rejected": "b"}, (SYSTEM, "a", "b")),
        ({"instruction": "q", "input": "c", "chosen": "a", "rejected": "b"}, (PromptText.of("q", "c"), "a", "b")),
        (
            {"input": "q", "chosen": "a", "rejected": "b", "generations": ["a", "b"], "rating": [9, 8]},
            (ASKED, "a", "b"),
        ),
        (
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "a"},
                "rejected": {"from": "gpt", "value": "b"},
            },
            (ASKED, "a", "b"),
        ),
        (
            {
                "prompt": "q",
                "prompt_id": "7",
                "chosen": [USER, BOT],
                "rejected": [USER, {"role": "assistant", "content": "b"}],
                "messages": [USER, BOT],
                "score_chosen": 8.5,
                "score_rejected": 7,
            },
            (ASKED, "a", "b", 1.5),
        ),
        (
            {
                "instruction": "q",
                "chosen_response": "a",
                "rejected_response": "b",
                "chosen_rating": 5,
                "rejected_rating": 3,
            },
            (ASKED, "a", "b", 2),
        ),
        (
            {
                "instruction": "q",
                "generations": ["a", "b"],
                "ratings": [5, 3],
                "chosen_response": "a",
                "rejected_response": "b",
            },
            (ASKED, "a", "b"),
        ),
        (
            {
                "conversation": [{"input": "q", "output": ""}],
                "chosen": [USER, BOT],
                "rejected": [USER, {"role": "assistant", "content": "b"}],
                "rating_chosen": 5,
                "rating_rejected": 3,
            },
            (ASKED, "a", "b", 2),
        ),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "margin": 0.5}, (ASKED, "a", "b", 0.5)),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": None, "score_rejected": 3}, (ASKED, "a", "b")),
        (
            {"context": [USER], "response1": "a", "response2": "b", "overall_preference": -3, "domain": "code"},
            (ASKED, "a", "b", 3),
        ),
    ],
)
def test_pairs_are_read_under_any_usual_name_with_their_margins(file, read, row, pair):
    path = file([row])
    assert default_kind(FileSource(path=path)) == "preferences"
    assert read(path, "preferences").records == [Preference(*pair)]


def test_a_chosen_answer_that_is_scored_lower_is_rejected_and_a_small_margin_by_the_rule(file, read):
    row = {"prompt": "q", "chosen": "a", "rejected": "b"}
    scores = [(1, 2), (2, 2), (3, 2)]
    path = file([row | {"score_chosen": better, "score_rejected": worse} for better, worse in scores])
    done = read(path, "preferences")
    assert done.reasons == [(1, "scores contradict the choice")]
    assert [record.margin for record in done.records] == [0, 1]
    strict = read(path, "preferences", rules={"min_margin": 0.5})
    assert strict.reasons == [(1, "scores contradict the choice"), (2, "margin too small")]


def test_a_prompt_that_is_a_dialogue_in_one_string_keeps_its_turns(file, read):
    row = {"prompt": "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:", "response": " a"}
    path = file([row | {"chosen": " a", "rejected": " b"}])
    (pair,) = read(path, "preferences").records
    assert [(m.role, m.content) for m in pair.prompt.messages] == [
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
    ]
    assert pair.answers == ("a", "b")
    (text,) = read(path, "preferences", format="preference_pair").records
    assert text.prompt == PromptText.of(row["prompt"])  # as it stands, if that is asked for


def test_texts_in_turn_and_exchanges_are_chats_of_several_turns(file, read):
    turns = ("one", "two", "three", "four")
    exchanges = [{"input": "one", "output": "two"}, {"input": "three", "output": "four"}]
    for rows in (list(turns), exchanges):
        records = read(file([{"conversations": rows}]), rules={"turns": "all"}).records
        assert [record.text for record in records] == ["two", "four"]
        assert [m.role for m in records[1].prompt.messages] == ["user", "assistant", "user"]


# scores of several answers


def test_helpsteer_compares_the_answers_of_a_prompt_by_the_named_score(file, read):
    rows = [
        {"prompt": "q", "response": text, "helpfulness": helpfulness, "verbosity": verbosity}
        for text, helpfulness, verbosity in (("a", 4, 1), ("b", 1, 3))
    ]
    assert read(file(rows), "preferences").records == [Preference(ASKED, "a", "b", 3)]
    assert read(file(rows), "preferences", rules={"score": "verbosity"}).records == [Preference(ASKED, "b", "a", 2)]
    with pytest.raises(DataError, match=r"line 1: rules.score: a row has no 'tone'; .*helpfulness, correctness"):
        read(file(rows), "preferences", rules={"score": "tone"})
    with pytest.raises(DataError, match=r"'helpsteer' rows have no answer to train on.*: they are single answers"):
        read(file(rows), "answers")


def test_the_turns_of_a_helpsteer_prompt_are_told_apart(file, read):
    row = {"response": "a", "helpfulness": 4}
    text = "one\n<extra_id_1>Assistant\ntwo\n<extra_id_1>User\nthree"
    (record,) = read(file([row | {"prompt": text}]), "prompts").records
    assert [(m.role, m.content) for m in record.prompt.messages] == [
        ("user", "one"),
        ("assistant", "two"),
        ("user", "three"),
    ]


COMPLETIONS = [
    {
        "response": text,
        "overall_score": overall,
        "annotations": {"honesty": {"Rating": honesty}, "truthfulness": {"Rating": truthfulness}},
    }
    for text, overall, honesty, truthfulness in (("a", 5, "1", "N/A"), ("b", 8, "2", "3"), ("c", 5, "5", "4"))
]


@pytest.mark.parametrize(
    ("rules", "pairs"),
    [
        ({}, [("b", "a", 3), ("b", "c", 3)]),
        ({"score": "honesty"}, [("c", "b", 3), ("c", "a", 4), ("b", "a", 1)]),
        ({"score": "honesty", "ranking": "best_vs_rest"}, [("c", "b", 3), ("c", "a", 4)]),
        ({"score": "honesty", "min_margin": 1}, [("c", "b", 3), ("c", "a", 4)]),
        ({"score": "truthfulness"}, [("c", "b", 1)]),
    ],
)
def test_every_two_completions_of_ultrafeedback_are_a_pair_by_the_rules(file, read, rules, pairs):
    done = read(file([{"instruction": "q", "completions": COMPLETIONS}]), "preferences", rules=rules)
    assert done.records == [Preference(ASKED, *pair) for pair in pairs]


def test_scores_that_make_no_pair_are_told(file, read):
    row = {"question": {"full_text": "q"}, "answer_0": "a", "answer_1": "b"}
    scores = [(0.5, 0.5), (0.75, 0.5), (-1, -0.5)]
    path = file([row | {"score_0": first, "score_1": second} for first, second in scores])
    assert read(path, "preferences").reasons == [(1, "tie")]
    strict = read(path, "preferences", rules={"min_margin": 0.25, "min_score": 0})
    assert strict.reasons == [(1, "tie"), (2, "margin too small"), (3, "both scores low")]
    rated = {"prompt": "q", "generations": ["a", None], "ratings": [3, 4]}
    rows = [rated, rated | {"generations": ["a", "b"], "ratings": [3]}, rated | {"generations": ["a", "b"]}]
    assert read(file(rows), "preferences").reasons == [(1, "fewer than two scores"), (2, "malformed row")]


# choices


def test_a_rule_chooses_the_better_or_the_safer_answer_of_pku_safe_rlhf(file, read):
    row = {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 1, "safer_response_id": 0}
    assert read(file([row]), "preferences").records == [Preference(ASKED, "b", "a")]
    assert read(file([row]), "preferences", rules={"prefer": "safer"}).records == [Preference(ASKED, "a", "b")]


def test_choices_that_are_none_or_ties_are_rejected(file, read):
    judged = {"prompt": "q", "response 1": "a", "response 2": "b"}
    done = read(file([judged | {"label": label} for label in (0, 1, 2, 3)]), "preferences")
    assert [record.chosen for record in done.records] == ["a", "b"]
    assert done.reasons == [(3, "tie"), (4, "choice out of range")]
    farm = {"instruction": "q", "output_1": "a", "output_2": "b"}
    done = read(file([farm | {"preference": which} for which in (0, 1, 2, 3)]), "preferences")
    assert [record.chosen for record in done.records] == ["a", "b"]
    assert done.reasons == [(1, "choice out of range"), (4, "choice out of range")]
    strength = {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": 0}
    assert read(file([strength]), "preferences").reasons == [(1, "tie")]
    upvoted = {"history": "q", "human_ref_A": "a", "human_ref_B": "b", "labels": 1, "score_A": 3, "score_B": 5}
    assert read(file([upvoted]), "preferences").reasons == [(1, "scores contradict the choice")]
    assert read(file([upvoted | {"score_A": 8}]), "preferences").records == [Preference(ASKED, "a", "b", 3)]


def test_nectars_prompts_are_dialogues_and_its_ranks_may_tie(file, read):
    ranked = [{"answer": text, "rank": rank} for text, rank in (("c", 2.0), ("a", 1.0), ("b", 2.0))]
    row = {"prompt": "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: ", "answers": ranked}
    done = read(file([row]), "preferences")
    assert [record.answers for record in done.records] == [("a", "c"), ("a", "b")]
    assert [m.content for m in done.records[0].prompt.messages] == ["one", "two", "three"]


# what is refused, or read only on request


def test_pairs_without_a_prompt_need_to_be_told_what_it_is(file, read):
    path = file([{"chosen": "The sky is blue.", "rejected": "The sky is blurred."}])
    for kind in ("preferences", "answers", "prompts"):
        with pytest.raises(DataError, match=r"line 1: .*no column is the prompt.*rules.implicit_prompt=common_prefix"):
            read(path, kind)
    rules = {"implicit_prompt": "common_prefix"}
    asked = PromptText.of("The sky is")
    assert read(path, "preferences", rules=rules).records == [Preference(asked, "blue.", "blurred.")]
    assert read(path, "prompts", rules=rules).records == [Record(asked)]
    assert read(file([{"chosen": "Yes.", "rejected": "No."}]), "preferences", rules=rules).reasons == [
        (1, "empty prompt")
    ]


def test_whole_texts_are_refused_unless_each_is_said_to_be_a_prompt(file, read):
    path = file([{"text": "Once upon a time"}])
    for kind in ("answers", "prompts"):
        with pytest.raises(DataError, match=r"'text' rows have no .* whole texts .* set format=text_line"):
            read(path, kind)
    with pytest.raises(DataError, match="'text' rows cannot be read: they are whole texts"):
        default_kind(FileSource(path=path))
    assert read(path, "prompts", format="text_line").records == [Record(PromptText.of("Once upon a time"))]


def test_steps_with_labels_are_prompts_and_nothing_to_imitate(file, read):
    row = {"prompt": "q", "completions": ["one", "two"], "labels": [True, False]}
    assert read(file([row]), "prompts").records == [Record(ASKED)]
    with pytest.raises(DataError, match=r"'stepwise' rows have no answer to train on .*label the steps"):
        read(file([row]))


# roles, parts and columns that change what is asked


def test_every_role_is_kept(file, read):
    said = [("developer", "d"), ("human", "q"), ("gpt", "look it up"), ("observation", "42"), ("gpt", "a")]
    (record,) = read(file([{"conversations": [{"from": role, "value": text} for role, text in said]}])).records
    assert [(m.role, m.content) for m in record.prompt.messages] == [
        ("developer", "d"),
        ("user", "q"),
        ("assistant", "look it up"),
        ("tool", "42"),
    ]


def test_parts_of_text_are_joined_and_other_parts_are_refused(file, read):
    text = {"type": "text", "text": "q"}
    rows = [
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi. "}, text]}, BOT]},
        {"messages": [{"role": "user", "content": [text, {"type": "image_url", "image_url": {"url": "x"}}]}, BOT]},
    ]
    done = read(file(rows))
    assert done.records == [Answer(PromptText.of("Hi. q"), "a")]
    assert done.rejected[0][1:3] == ("content that is not text", "a message holds a part of type 'image_url'")


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"tool_calls": [{"function": {"name": "f"}}]}, "tool calls"),
        ({"tool_calls": [], "name": None}, None),
        ({"function_call": {"name": "f"}}, "tool calls"),
        ({"reasoning_content": "First, …"}, "part of a message that is not read"),
        ({"weight": 0}, "part of a message that is not read"),
        ({"weight": 1}, None),
        ({"role": "function_call"}, "tool calls"),
    ],
)
def test_what_a_message_would_lose_rejects_its_row(file, read, more, reason):
    done = read(file([{"messages": [USER, BOT, USER, BOT | more, USER, BOT]}]))
    assert [why for _, why in done.reasons] == ([reason] if reason else [])


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER, BOT], "tools": [{"name": "f"}]}, "tools"),
        ({"messages": [USER, BOT], "tools": "[]"}, None),
        ({"prompt": "q", "completion": "a", "images": ["1.png"]}, "content that is not text"),
        ({"messages": [{"role": "system", "content": "x"}, USER, BOT], "system": "Be brief."}, "two system messages"),
        ({"messages": [{"role": "system", "content": "Be brief."}, USER, BOT], "system": "Be brief."}, None),
        ({"instruction": "q", "output": "a", "history": "earlier"}, "wrong type: history"),
    ],
)
def test_columns_that_change_what_is_asked_are_kept_or_refused(file, read, row, reason):
    done = read(file([row]))
    assert [why for _, why in done.reasons] == ([reason] if reason else [])


def test_a_column_is_left_out_if_it_is_said(file, read):
    row = {"messages": [USER, BOT], "tools": [{"name": "f"}], "system": "Be brief."}
    done = read(file([row]), columns={"tools": "", "system": ""})
    assert done.records == [Answer(ASKED, "a")]
    assert not done.account.unread


def test_history_is_earlier_turns_after_the_system_message(file, read):
    row = {"instruction": "q", "output": "a", "system": "Be brief.", "history": [["1", "2"]]}
    (record,) = read(file([row])).records
    assert [(m.role, m.content) for m in record.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "1"),
        ("assistant", "2"),
        ("user", "q"),
    ]
    table = read(file('instruction,output,history\nq,a,"[[""1"", ""2""]]"\nq,a,\n', "rows.csv"))
    assert [len(record.prompt.messages) for record in table.records] == [3, 1]


def test_pairs_are_never_read_as_chats_that_stand_beside_them(file):
    row = {"messages": [USER, BOT], "chosen": [USER, BOT], "rejected": [USER, BOT]}
    assert recognize(FileSource(path=file([row]))).name == "chat_pair"
