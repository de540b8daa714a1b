"""From files to tokens: split, weighted, cached, the same every time."""

import json

import numpy as np
import pytest

from rayrlhf.data import prepare as module
from rayrlhf.data.account import DataError
from rayrlhf.data.prepare import prepare
from rayrlhf.data.tokens import tokenize
from rayrlhf.stages.offline_config import OfflineData
from rayrlhf.stages.reward_model import PairData

ROWS = [{"prompt": f"질문 {i}", "completion": f"대답 {i}"} for i in range(60)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYRLHF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path):
    def write(rows, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def run(tokenizer, kind="answers", cls=OfflineData, seed=0, **data):
    config = cls(**{"template": "kochatgpt", "heldout_share": 0.2, **data})
    return prepare(config, kind, tokenizer, config, seed)


def rows_of(sequences):
    return [tuple(sequences.row(index).tolist()) for index in range(len(sequences))]


def test_prompts_are_on_one_side_and_tokens_are_those_of_the_records(file, tokenizer):
    prepared = run(tokenizer, train=[file(ROWS)])
    train, heldout = rows_of(prepared.train[0]), rows_of(prepared.heldout[0])
    assert len(train) + len(heldout) == prepared.account.kept == 60
    assert not set(train) & set(heldout)
    assert heldout
    answer = tokenizer(ROWS[0]["completion"], add_special_tokens=False).input_ids
    first = next(row for row in train + heldout if row[: prepared.train[0].prompt_lengths[0]])
    assert first[-1] == tokenizer.eos_token_id
    assert any(list(row[-len(answer) - 1 : -1]) == answer for row in train + heldout)


@pytest.mark.parametrize("batch", [1, 7])
def test_the_batch_size_never_changes_the_tokens(file, tokenizer, monkeypatch, batch):
    path = file(ROWS)
    whole = run(tokenizer, train=[path])
    monkeypatch.setattr(module, "BATCH", batch)
    again = run(tokenizer, train=[path], cache=False)
    assert rows_of(whole.train[0]) == rows_of(again.train[0])
    assert rows_of(whole.heldout[0]) == rows_of(again.heldout[0])


def test_a_second_run_reads_nothing_and_changed_content_is_read_again(file, tokenizer, monkeypatch):
    path = file(ROWS)
    first = run(tokenizer, train=[path])
    calls = []
    monkeypatch.setattr(module, "tokenize", lambda *args: calls.append(1) or tokenize(*args))
    second = run(tokenizer, train=[path])
    assert not calls
    assert rows_of(first.train[0]) == rows_of(second.train[0])
    assert first.account.as_dict() == second.account.as_dict()
    for changed in ({"seed": 1}, {"template": "kullm"}, {"clean": {"min_prompt_chars": 2}}):
        calls.clear()
        run(tokenizer, train=[path], **changed)
        assert calls
    calls.clear()
    run(tokenizer, train=[file(ROWS[:50])])
    assert calls


def test_heldout_files_are_used_and_prompts_that_leak_are_noted(file, tokenizer):
    prepared = run(tokenizer, train=[file(ROWS[:40])], heldout=[file(ROWS[35:], "heldout.jsonl")])
    assert (len(prepared.train[0]), len(prepared.heldout[0])) == (40, 25)
    assert prepared.account.notes["held-out prompts that are trained on too"] == 5


def test_weights_say_how_often_an_epoch_shows_a_row(file, tokenizer):
    heldout = [file(ROWS[:5], "heldout.jsonl")]
    twice = run(tokenizer, train=[{"path": file(ROWS), "weight": 2}], heldout=heldout)
    assert len(twice.train[0]) == 120
    half = run(tokenizer, train=[{"path": file(ROWS), "weight": 0.5}], heldout=heldout)
    assert 15 < len(half.train[0]) < 45
    left_out = half.account.rejected["left out by the weight of its source"]
    assert left_out + len(half.train[0]) == 60


def test_made_negatives_join_the_training_side_only(file, tokenizer):
    pairs = [{"prompt": f"p {i}", "chosen": f"good {i} words", "rejected": "bad"} for i in range(40)]
    plain = run(tokenizer, "preferences", PairData, train=[file(pairs)])
    more = run(tokenizer, "preferences", PairData, train=[file(pairs)], augment={"share": 1.0})
    assert len(more.heldout[0]) == len(plain.heldout[0])
    assert len(more.train[0]) == len(plain.train[0]) + more.account.notes["synthetic pairs"]
    assert len(more.train[0]) == len(more.train[1])
    np.testing.assert_array_equal(more.train[0].row(0), plain.train[0].row(0))


def test_too_many_bad_rows_stop_the_run_and_lie_where_the_message_says(file, tokenizer):
    path = file([*ROWS[:10], *({"prompt": "", "completion": str(i)} for i in range(10))])
    with pytest.raises(DataError, match=r"10 of 20 rows are bad \(50.0%\).*10 empty prompt") as error:
        run(tokenizer, train=[path])
    named = str(error.value).split("they are in ")[1].split(": ")[0]
    with open(named, encoding="utf-8") as left_out:
        assert [json.loads(line)["line"] for line in left_out] == list(range(11, 21))


def test_a_source_that_is_missing_is_named(tmp_path, tokenizer):
    with pytest.raises(DataError, match="no such file"):
        run(tokenizer, train=[str(tmp_path / "none.jsonl")])
