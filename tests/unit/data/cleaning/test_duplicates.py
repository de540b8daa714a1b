"""Cleaning: which of two alike stays, and that cleaning twice is cleaning once."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_records import answer, at, pair, prompt
from pydantic import TypeAdapter

from rayrlhf.data.cleaning.rules import Cleaning
from rayrlhf.data.ingest.account import Account
from rayrlhf.data.ingest.reader import read_records
from rayrlhf.data.ingest.records import Answer, Message, Origin, Preference, PromptText, Record
from rayrlhf.data.ingest.sources import Source

SHARED = Path(__file__).parents[4] / "../shared/data"
END = "<|endoftext|>"


# duplicates


def test_an_id_may_stand_once_in_a_source(clean):
    records = [prompt("a", 1, id=7), prompt("b", 2, id=7), prompt("c", 3, id="8"), prompt("d", 4)]
    other = Record(PromptText.of("e"), origin=Origin("other.jsonl", 1, id=7))
    kept, why = clean([*records, prompt("f", 5), other])
    assert [record.prompt.text for record in kept] == ["a", "c", "d", "f", "e"]
    assert why == [(2, "duplicate id", "7 is the id of rows.jsonl, line 1 too")]
    assert clean([*records, other], keep_duplicate_ids=True)[1] == []


def test_records_of_one_row_share_its_id(clean):
    row = [pair("네", text, id=7, siblings=2) for text in ("음", "싫어")]
    again = [pair("그래", text, 2, id=7, siblings=2) for text in ("음", "싫어")]
    kept, why = clean(row + again)
    assert kept == row
    assert [reason for _, reason, _ in why] == ["duplicate id"] * 2


def test_records_of_several_rows_have_no_id_of_their_own(clean):
    kept, _ = clean([pair("네", text, line, id="dialogue 1", siblings=0) for line, text in [(1, "음"), (2, "싫어")]])
    assert len(kept) == 2


def test_the_first_of_equal_records_stays_and_the_others_say_which_it_is(clean):
    records = [
        answer("네", 3),
        answer("네", 5, asked="누구세요?"),
        answer(f"네{END}", 9),
        Answer(PromptText.of("안녕하세요?"), "네", origin=Origin("other.json", 2, "row")),
        Answer(PromptText.of("누구세요?", "긴 글"), "네", origin=Origin("other.json", 3, "row")),
        Answer(PromptText.of("누구세요?", "긴 글"), "네", origin=Origin("other.json", 8, "row")),
    ]
    kept, why = clean(records)
    assert kept == [records[0], records[1], records[4]]
    assert why == [
        (9, "exact duplicate", "of rows.jsonl, line 3, which stays"),
        (2, "exact duplicate", "of rows.jsonl, line 3, which stays"),
        (8, "exact duplicate", "of other.json, row 3, which stays"),
    ]
    assert clean(records, keep_duplicates=True)[1] == []


def test_a_record_that_breaks_a_rule_is_nobodys_duplicate(clean):
    records = [pair("네", "아니요", 1, id=1), pair("네", "네", 2, id=2), pair("네", "네", 3, id=2)]
    _, why = clean(records)
    assert [reason for _, reason, _ in why] == ["chosen equals rejected"] * 2


NEAR = [
    "오늘 서울 날씨가 어떤지 자세히 알려 주세요",
    "파이썬으로 정렬 함수를 짜 주세요",
    "오늘 서울 날씨가 어떤지 알려 주세요",
    "저녁으로 먹을 만한 요리는 무엇인가요",
    "오늘 부산 날씨가 어떤지 자세히 알려 주세요",
]


@pytest.mark.parametrize("rule", [{"kind": "tfidf"}, {"kind": "minhash", "threshold": 0.5}])
def test_near_duplicates_go_and_name_the_one_that_stays(rule, clean):
    records = [prompt(text, line) for line, text in enumerate(NEAR, start=11)]
    kept, why = clean(records, near_duplicates=rule)
    assert [record.origin.place for record in kept] == [11, 12, 14]
    detail = "of rows.jsonl, line 11, which stays"
    assert why == [(13, "near duplicate", detail), (15, "near duplicate", detail)]


def test_near_duplicates_may_be_judged_by_prompt_or_with_the_answers(clean):
    records = [answer("맑고 따뜻합니다", 1, asked=NEAR[0]), answer("집에 계세요 오늘만은 제발 부탁", 2, asked=NEAR[2])]
    assert len(clean(records, near_duplicates={"kind": "tfidf", "of": "prompt"})[0]) == 1
    assert len(clean(records, near_duplicates={"kind": "tfidf", "of": "all"})[0]) == 2


@pytest.mark.parametrize("of", ["prompt", "all"])
def test_pairs_of_one_row_are_no_near_duplicates_of_each_other(of, clean):
    texts = ["하나 둘 셋 넷", "하나 둘 셋", "하나 둘"]
    row = [pair(texts[i], texts[j], 1, asked=NEAR[0], siblings=3, rule="ranking") for i, j in ((0, 1), (0, 2), (1, 2))]
    like = [pair(texts[i], texts[j], 2, asked=NEAR[2], siblings=3, rule="ranking") for i, j in ((0, 1), (0, 2), (1, 2))]
    kept, why = clean(row + like, near_duplicates={"kind": "tfidf", "of": of})
    assert kept == row
    assert why == [(2, "near duplicate", "of rows.jsonl, line 1, which stays")] * 3


def test_pairs_that_several_rows_made_together_are_no_near_duplicates_of_each_other():
    pairs = [
        pair("좋은 요약", text, line, asked=NEAR[0], siblings=0)
        for line, text in enumerate(["나쁜 요약", "더 나쁜 요약"], start=1)
    ]
    others = [pair("네", "응", 9, asked=NEAR[3], siblings=0), pair("네", "응", 20, asked=NEAR[2], siblings=0)]
    account = Account()
    kept = list(Cleaning(near_duplicates={"kind": "tfidf"}).clean(iter([*pairs, *others]), account))
    assert kept == [*pairs, others[0]]
    assert account.records_rejected == {"near duplicate": 1}


def test_the_turns_of_a_chat_are_compared_by_the_whole_of_it_and_stay_together(clean):
    def chat(line: int, *questions: str) -> list[Answer]:
        messages = tuple(Message("user", text) for text in questions)
        return [
            Answer(PromptText(messages[:end]), f"답 {line}.{end}", origin=at(line, siblings=len(messages)))
            for end in range(1, len(messages) + 1)
        ]

    first, other = chat(1, "안녕하세요", NEAR[0]), chat(2, "안녕하세요", NEAR[1], NEAR[3])
    kept, why = clean([*first, *other, *chat(3, "안녕하세요", NEAR[2])], near_duplicates={"kind": "tfidf"})
    assert kept == [*first, *other]
    assert why == [(3, "near duplicate", "of rows.jsonl, line 1, which stays")] * 2


# everything together

TEXTS = st.one_of(
    st.sampled_from(
        ["네", "아니요", f"네{END}", f"네{END}{END}", END, "", "\u200b", "가 나 다 라", "hello there friend"]
    ),
    st.text("가나 <|>", max_size=6),
)
IDS = st.sampled_from([None, 1, 2, "x"])


def of_texts(made: list[tuple[type[Record], str | int | None, list[str]]]) -> list[Record]:
    return [
        kind(PromptText.of(texts[0]), *texts[1 : len(kind.__match_args__)], origin=at(line, id=name))
        for line, (kind, name, texts) in enumerate(made, start=1)
    ]


KINDS = st.sampled_from([Record, Answer, Preference])
RECORDS = st.lists(st.tuples(KINDS, IDS, st.lists(TEXTS, min_size=3, max_size=3)), max_size=12).map(of_texts)
RULES = st.fixed_dictionaries(
    {
        "min_prompt_chars": st.integers(0, 3),
        "min_answer_chars": st.integers(0, 3),
        "max_answer_chars": st.sampled_from([None, 4]),
        "keep_duplicates": st.booleans(),
        "keep_duplicate_ids": st.booleans(),
        "near_duplicates": st.sampled_from([None, {"kind": "minhash", "threshold": 0.7}]),
    }
)


@settings(max_examples=100)
@given(RECORDS, RULES)
def test_cleaning_what_was_cleaned_rejects_nothing_and_changes_nothing(clean, records, rules):
    kept, _ = clean(records, **rules)
    assert clean(kept, **rules) == (kept, [])


@settings(max_examples=100)
@given(RECORDS, RULES)
def test_cleaning_is_the_same_each_time_and_keeps_the_order(clean, records, rules):
    kept, why = clean(records, **rules)
    assert clean(records, **rules) == (kept, why)
    places = [record.origin.place for record in kept]
    assert places == sorted(places)


def test_cleaning_changes_none_of_its_records(clean):
    record = answer(f"네{END}")
    ((kept,), _) = clean([record])
    assert (kept.text, record.text) == ("네", f"네{END}")


def test_records_come_out_while_others_are_still_to_be_read():
    read_so_far: list[int] = []

    def endless():
        for line in range(1, 10_000):
            read_so_far.append(line)
            yield prompt(f"질문 {line}", line)

    stream = Cleaning(near_duplicates={"kind": "minhash"}, code_pages=False).clean(endless(), Account())
    assert next(stream).origin.place == 1
    assert len(read_so_far) < 5


# data at hand


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not on this machine")
def test_kochatgpts_prompts_have_3_empty_ones_and_54_duplicates():
    path = str(SHARED / "kochatgpt/kochatgpt_3_PPO.jsonl")
    account = Account()
    source = TypeAdapter(Source).validate_python(path)
    for record in Cleaning().clean(read_records([source], "prompts", account), account):
        account.keep(record)
    account.finish()
    assert account.rows == 12_000
    # Two of the 54 repeat the empty prompt.
    assert account.rejected == Counter({"exact duplicate": 52, "empty prompt": 3})
