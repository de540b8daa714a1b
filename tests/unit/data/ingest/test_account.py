"""The account: every row and every record ends as kept or rejected, and a bad file stops with the table."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.ingest.account import BAD_INPUT, MIN_ROWS_TO_JUDGE, Account, DataError, RejectedFile, describe, family
from rayrlhf.data.ingest.records import Answer, Origin, Preference, PromptText, Record

PROMPT = PromptText.of("안녕?")
REASONS = ("empty answer", "near duplicate", "too long")


def read_row(account: Account, place: int, num_records: int = 1, source: str = "rows.jsonl") -> list[Record]:
    """One row of `source` that gives so many records, or is rejected if it gives none."""
    account.read(source, 1, 10)
    origin = Origin(source, place, siblings=num_records)
    if not num_records:
        account.reject_row(replace(origin, siblings=1), "missing column: prompt", "the row has q, a", {"q": place})
        return []
    records = [Record(PROMPT, origin=origin) for _ in range(num_records)]
    account.made(records)
    return records


def read_bad_rows(account: Account, count: int, reason: str = "invalid JSON") -> None:
    for place in range(1, count + 1):
        account.read("rows.jsonl", 1, 10)
        account.reject_row(Origin("rows.jsonl", place), reason)


def keep_rows(account: Account, count: int) -> None:
    for place in range(1, count + 1):
        account.keep(*read_row(account, place))


# balance

ROWS = st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["a.jsonl", "b.csv"])), min_size=1, max_size=20)


@given(ROWS, st.data())
def test_rows_and_records_balance_whatever_is_rejected_in_whatever_order(rows, data):
    account = Account()
    waiting: list[Record] = []
    fates: dict[tuple[str, int], list[str]] = {}

    def decide() -> None:
        record = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        fate = data.draw(st.sampled_from(["keep", *REASONS]))
        fates.setdefault((record.origin.source, record.origin.place), []).append(fate)
        if fate == "keep":
            account.keep(record)
        else:
            account.reject(record, fate)

    empty = Counter()
    for place, (num_records, source) in enumerate(rows, start=1):
        waiting += read_row(account, place, num_records, source)
        empty[source] += num_records == 0
        for _ in range(data.draw(st.integers(0, len(waiting)))):
            decide()
    while waiting:
        decide()

    assert account.rows == len(rows) == account.kept + account.num_rejected
    assert account.records == sum(num for num, _ in rows) == account.records_kept + account.records_rejected.total()
    assert account.kept == sum("keep" in fate for fate in fates.values())
    last_reasons = Counter(fate[-1] for fate in fates.values() if "keep" not in fate)
    assert account.rejected == last_reasons + Counter({"missing column: prompt": empty.total()})
    assert account.records_rejected == Counter(fate for row in fates.values() for fate in row if fate != "keep")
    for source, counts in account.by_source.items():
        assert counts["rows"] == sum(name == source for _, name in rows)
        assert counts["records"] == sum(row.count("keep") for (name, _), row in fates.items() if name == source)
    if account.records_kept:
        account.finish()
    else:
        with pytest.raises(DataError, match="no usable row is left"):
            account.finish()


def test_a_row_is_rejected_for_the_last_of_its_records_only_if_none_is_kept():
    account = Account()
    first = read_row(account, 1, 3)
    second = read_row(account, 2, 2)
    account.reject(first[0], "empty answer")
    account.reject(second[0], "empty answer")
    account.keep(first[1])
    account.reject(second[1], "too long")
    account.keep(first[2])
    account.finish()
    assert (account.rows, account.kept, account.rejected) == (2, 1, {"too long": 1})
    assert (account.records, account.records_kept) == (5, 2)
    assert account.records_rejected == {"empty answer": 2, "too long": 1}
    assert str(account) == "2 records from 1 of 2 rows (left out: 1 too long)"


def test_rows_that_make_records_together_are_counted_apart_from_them():
    account = Account()
    account.read("ratings.jsonl", 3, 30)
    account.keep_row()
    account.keep_row()
    account.reject_row(Origin("ratings.jsonl", 3), "tie")
    pairs = [Preference(PROMPT, "a", text, origin=Origin("ratings.jsonl", 1, siblings=0)) for text in "bc"]
    for pair in pairs:
        account.made([pair])
    account.keep(pairs[0])
    account.reject(pairs[1], "exact duplicate")
    account.finish()
    assert (account.rows, account.kept, account.rejected) == (3, 2, {"tie": 1})
    assert (account.records, account.records_kept) == (2, 1)


def test_books_that_do_not_balance_are_a_broken_invariant():
    lost = Account()
    read_row(lost, 1)
    with pytest.raises(AssertionError, match="rows in = kept"):
        lost.finish()
    undecided = Account()
    record, _ = read_row(undecided, 1, 2)
    undecided.reject(record, "too long")
    with pytest.raises(AssertionError, match="every record is kept or rejected"):
        undecided.finish()


def test_notes_of_rows_are_counted_once_a_row():
    account = Account()
    for place, notes in enumerate([("stray quote",), ("stray quote", "literal \\n"), ()], start=1):
        account.read("rows.jsonl", 1, 1)
        records = [Record(PROMPT, origin=Origin("rows.jsonl", place, siblings=2, notes=notes)) for _ in range(2)]
        account.made(records)
        for record in records:
            account.keep(record)
    account.finish()
    assert account.notes == {"stray quote": 2, "literal \\n": 1}


def test_progress_is_told_the_bytes_as_they_are_read():
    told: list[int] = []
    account = Account(advance=told.append)
    account.read("rows.jsonl", 2, 100)
    account.read("rows.jsonl", 1, 40)
    assert told == [100, 40]


# too many bad rows


def test_only_bad_rows_count_towards_the_share_and_rules_do_not():
    account = Account(max_reject_share=0.0)
    keep_rows(account, 1)
    for reason in ("near duplicate", "exact duplicate", "too long", "prompt too short", "language"):
        (record,) = read_row(account, 2)
        account.reject(record, reason)
    assert account.bad_rows == 0
    account.finish()


@pytest.mark.parametrize("reason", sorted(BAD_INPUT))
def test_a_bad_row_counts_with_or_without_its_particulars(reason):
    account = Account(max_reject_share=0.4)
    keep_rows(account, 1)
    read_bad_rows(account, 1, reason)
    read_bad_rows(account, 1, f"{reason}: x")
    assert account.bad_rows == 2
    assert account.rejected == {reason: 1, f"{reason}: x": 1}  # particulars stay apart in the table
    with pytest.raises(DataError, match=r"2 of 3 rows are bad \(66\.7%\), more than max_reject_share=0\.4 allows"):
        account.finish()


def test_a_share_of_bad_rows_that_is_just_allowed_is_no_error():
    account = Account(max_reject_share=0.5)
    keep_rows(account, 2)
    read_bad_rows(account, 2)
    account.finish()


def test_a_long_stream_stops_early_and_says_why_and_where_the_rows_are(tmp_path):
    path = tmp_path / "rejected.jsonl"
    with Account(0.1, RejectedFile(path)) as account:
        keep_rows(account, MIN_ROWS_TO_JUDGE - 100)
        read_bad_rows(account, 60, "missing column: prompt")
        with pytest.raises(DataError) as error:
            read_bad_rows(account, 500)
    assert str(error.value) == (
        "rows.jsonl: 101 of 1001 rows are bad (10.1%), more than max_reject_share=0.1 allows; they are in "
        f"{path}: 900 of 1001 rows (left out: 60 missing column: prompt, 41 invalid JSON). "
        "The first: rows.jsonl, line 1: missing column: prompt"
    )
    assert len(path.read_text(encoding="utf-8").splitlines()) == 101


def test_rows_that_an_error_left_undecided_are_counted_as_such():
    account = Account()
    keep_rows(account, 2)
    account.read("rows.jsonl", 3, 10)  # of which one is looked at
    account.reject_row(Origin("rows.jsonl", 3), "invalid JSON")
    assert account.undecided == 2
    assert str(account) == "2 of 5 rows (left out: 1 invalid JSON; 2 not decided when the reading stopped)"


def test_a_short_stream_is_judged_at_its_end_only():
    account = Account(max_reject_share=0.1)
    read_bad_rows(account, MIN_ROWS_TO_JUDGE - 2)
    keep_rows(account, 1)
    with pytest.raises(DataError, match="998 of 999 rows are bad"):
        account.finish()


def test_an_empty_input_and_one_without_a_usable_row_are_told_apart():
    with pytest.raises(DataError, match=r"^the input: no rows$"):
        Account().finish()
    empty = Account()
    empty.read("none.jsonl", 0, 0)
    with pytest.raises(DataError, match=r"^none\.jsonl: no rows$"):
        empty.finish()
    useless = Account()
    read_bad_rows(useless, 1, "empty prompt")
    with pytest.raises(DataError, match=r"no usable row is left: 0 of 1 rows \(left out: 1 empty prompt\)"):
        useless.finish()


# the file of rejected rows


def test_rejected_rows_are_written_with_reason_detail_place_and_content(tmp_path):
    path = tmp_path / "new" / "rejected.jsonl"
    with Account(rejected_file=RejectedFile(path)) as account:
        account.read("rows.jsonl", 2, 1)
        account.reject_row(Origin("rows.jsonl", 7), "missing column: prompt", "the row has q", {"q": "안녕"})
        account.reject_row(Origin("list.json", 3, "row"), "invalid UTF-8", "byte 12", "\\xbe\ud83d")
        for text in (Record(PROMPT), Answer(PROMPT, "네"), Preference(PROMPT, "좋아", "싫어")):
            account.reject(replace(text, origin=Origin("rows.jsonl", 9)), "language", "en")
    first, second, *records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert first == {
        "reason": "missing column: prompt",
        "detail": "the row has q",
        "source": "rows.jsonl",
        "line": 7,
        "content": {"q": "안녕"},
    }
    assert second == {
        "reason": "invalid UTF-8",
        "detail": "byte 12",
        "source": "list.json",
        "row": 3,
        "content": "\\xbe\ud83d",  # half of a character is no UTF-8, and is written all the same
    }
    assert [entry["content"] for entry in records] == [
        {"prompt": "안녕?"},
        {"prompt": "안녕?", "answer": "네"},
        {"prompt": "안녕?", "chosen": "좋아", "rejected": "싫어"},
    ]


def test_no_file_is_made_when_nothing_is_rejected(tmp_path):
    with Account(rejected_file=RejectedFile(tmp_path / "rejected.jsonl")) as account:
        keep_rows(account, 3)
        account.finish()
    assert list(tmp_path.iterdir()) == []


# as values


@given(st.dictionaries(st.sampled_from(REASONS), st.integers(1, 9)), st.integers(1, 9))
def test_an_account_comes_back_from_its_values(rejected, num_kept):
    account = Account()
    keep_rows(account, num_kept)
    for reason, count in rejected.items():
        read_bad_rows(account, count, reason)
    account.notes["fixed"] = 2
    content = json.loads(json.dumps(account.as_dict()))
    again = Account.from_dict(content)
    assert again.as_dict() == content
    assert str(again) == str(account)
    assert (again.rejected, again.notes, again.by_source) == (account.rejected, account.notes, account.by_source)
    again.finish()


def test_the_values_of_an_account_name_reasons_from_the_most_frequent_on():
    account = Account()
    keep_rows(account, 1)
    read_bad_rows(account, 1, "empty prompt")
    read_bad_rows(account, 3, "wrong type: prompt")
    assert list(account.as_dict()["rejected"]) == ["wrong type: prompt", "empty prompt"]
    assert account.as_dict()["sources"] == {"rows.jsonl": {"rows": 5, "records": 1}}


def test_a_reason_is_one_family_with_or_without_particulars():
    assert family("missing column: chosen") == family("missing column") == "missing column"


def test_a_record_is_described_by_what_was_written_to_the_prompt():
    assert describe(Record(PromptText.of("요약해줘", "긴 글"))) == {"prompt": "요약해줘\n긴 글"}
