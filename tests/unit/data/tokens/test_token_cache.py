"""Tokens kept for the next run: what finds them again, what does not, and what a failed run leaves behind."""

import copy
import json
import re
from pathlib import Path

import numpy as np
import pytest

from rayrlhf.data.cleaning.rules import Cleaning
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.sources import FileSource
from rayrlhf.data.templates import KullmTemplate
from rayrlhf.data.tokens import cache
from rayrlhf.data.tokens import prepare as module
from rayrlhf.data.tokens.cache import cache_root
from rayrlhf.data.tokens.prepare import DataConfig, Prepared, prepare, tokenizer_hash
from rayrlhf.data.tokens.tokenise import PromptLimit, SequenceLimit

ROWS = [{"prompt": f"질문 {index}"} for index in range(40)]
BAD = [{"prompt": "\u200b"}, {"prompt": "질문 1"}, {"question": "?"}]

LIMIT = PromptLimit()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYRLHF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "prompts.jsonl"
    write(path, [*ROWS, *BAD])
    return path


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def config_of(path: Path, **settings) -> DataConfig:
    return DataConfig(train=[str(path)], **({"heldout_share": 0.3} | settings))


@pytest.fixture
def prepare_counted(tokenizer, monkeypatch):
    """`prepare_counted(config, …)`: (what was prepared, whether the files were read for it)."""
    reads: list[object] = []
    original = module.read_records
    monkeypatch.setattr(module, "read_records", lambda *given: reads.append(given) or original(*given))

    def run(config, kind="prompts", tokenizer=tokenizer, limit=LIMIT, seed=0) -> tuple[Prepared, bool]:
        before = len(reads)
        return prepare(config, kind, tokenizer, limit, seed), len(reads) > before

    return run


def entries() -> list[str]:
    return sorted(path.name for path in cache_root().iterdir())


def assert_same(one: Prepared, other: Prepared) -> None:
    for part in ("train", "heldout"):
        for first, second in zip(getattr(one, part), getattr(other, part), strict=True):
            for name in ("tokens", "offsets", "prompt_lengths"):
                np.testing.assert_array_equal(getattr(first, name), getattr(second, name), strict=True)
    assert one.account.as_dict() == other.account.as_dict()
    assert one.sources == other.sources
    assert one.rejected.exists() == other.rejected.exists()


# hits


def test_a_second_call_reads_no_source_and_gives_the_same_with_account_and_rejected_rows(file, prepare_counted):
    first, was_read = prepare_counted(config_of(file))
    assert was_read
    second, was_read = prepare_counted(config_of(file))
    assert not was_read
    assert_same(first, second)
    assert second.account.rejected == {"empty prompt": 1, "exact duplicate": 1, "missing column: prompt": 1}
    rejected = [json.loads(line) for line in second.rejected.read_text(encoding="utf-8").splitlines()]
    assert [(row["reason"], row["line"]) for row in rejected] == [
        ("empty prompt", 41),
        ("exact duplicate", 42),
        ("missing column: prompt", 43),
    ]
    assert rejected[1]["content"] == {"prompt": "질문 1"}


def test_the_cache_lies_where_the_environment_says(file, prepare_counted, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYRLHF_CACHE", str(tmp_path / "elsewhere"))
    prepared, _ = prepare_counted(config_of(file))
    assert prepared.rejected.is_relative_to(tmp_path / "elsewhere")
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv("RAYRLHF_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "rayrlhf" / "tokens"


def test_an_earlier_use_of_the_tokenizer_changes_no_key(file, prepare_counted, tokenizer):
    used = copy.deepcopy(tokenizer)
    used(["안녕", "네"], truncation=True, max_length=3, padding="max_length")
    prepare_counted(config_of(file))
    assert not prepare_counted(config_of(file), tokenizer=used)[1]


# misses


@pytest.mark.parametrize(
    "changed",
    [
        {"clean": Cleaning(min_prompt_chars=2)},
        {"template": KullmTemplate()},
        {"heldout_share": 0.4},
    ],
)
def test_other_settings_read_again(changed, file, prepare_counted):
    prepare_counted(config_of(file))
    assert prepare_counted(config_of(file, **changed))[1]
    assert not prepare_counted(config_of(file, **changed))[1]
    assert not prepare_counted(config_of(file))[1]


def test_settings_of_a_source_count_too(file, prepare_counted):
    prepare_counted(config_of(file))
    assert prepare_counted(DataConfig(train=[{"path": str(file), "max_rows": 30}], heldout_share=0.3))[1]
    assert prepare_counted(DataConfig(train=[{"path": str(file), "weight": 2}], heldout_share=0.3))[1]


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"limit": PromptLimit(max_prompt_tokens=100)},
        {"limit": PromptLimit(overlong_prompts="cut")},
    ],
)
def test_another_seed_or_limit_reads_again(changed, file, prepare_counted):
    prepare_counted(config_of(file))
    assert prepare_counted(config_of(file), **changed)[1]


def test_one_file_read_as_another_kind_is_another_entry(tmp_path, prepare_counted):
    path = tmp_path / "pairs.jsonl"
    write(path, [{"prompt": f"질문 {index}", "chosen": "네", "rejected": "음"} for index in range(40)])
    as_answers, _ = prepare_counted(config_of(path), kind="answers", limit=SequenceLimit())
    as_pairs, was_read = prepare_counted(config_of(path), kind="preferences", limit=SequenceLimit())
    assert was_read
    assert (len(as_answers.train), len(as_pairs.train)) == (1, 2)


def test_a_file_with_other_content_is_read_again_and_with_the_old_content_found_again(file, prepare_counted):
    before, _ = prepare_counted(config_of(file))
    write(file, ROWS[:39])
    after, was_read = prepare_counted(config_of(file))
    assert was_read
    assert len(after.train[0]) + len(after.heldout[0]) == 39
    write(file, [*ROWS, *BAD])
    again, was_read = prepare_counted(config_of(file))
    assert not was_read
    assert_same(again, before)


def test_another_tokenizer_reads_again(file, prepare_counted, tokenizer):
    prepare_counted(config_of(file))
    other_template, other_eos, other_word = (copy.deepcopy(tokenizer) for _ in range(3))
    other_template.chat_template = tokenizer.chat_template + " "
    other_eos.eos_token = "<|pad|>"
    other_word.add_tokens(["질문"])
    assert len({tokenizer_hash(each) for each in (tokenizer, other_template, other_eos, other_word)}) == 4
    for other in (other_template, other_eos, other_word):
        assert prepare_counted(config_of(file), tokenizer=other)[1]


def test_other_code_reads_again(file, prepare_counted, monkeypatch):
    prepare_counted(config_of(file))
    monkeypatch.setattr(cache, "_code_hash", lambda: "of the next release")
    assert prepare_counted(config_of(file))[1]


def test_the_code_that_counts_is_all_that_makes_rows_into_tokens():
    folders = {path.parent.name for path in cache.code_files()}
    assert {"ingest", "files", "formats", "cleaning", "templates", "tokens"} <= folders


def test_without_a_cache_every_call_reads_and_gives_the_same(file, prepare_counted):
    config = config_of(file, cache=False)
    (first, _), (second, was_read) = prepare_counted(config), prepare_counted(config)
    assert was_read
    assert first.rejected != second.rejected
    assert_same(first, second)
    assert prepare_counted(config_of(file))[1]  # nor does it leave anything to a call with a cache


def test_a_source_whose_content_nobody_knows_beforehand_is_read_again(file, prepare_counted, monkeypatch):
    monkeypatch.setattr(FileSource, "content_hash", lambda self: None)
    prepare_counted(config_of(file))
    prepared, was_read = prepare_counted(config_of(file))
    assert was_read
    assert prepared.sources == {str(file): None}


# eviction


def test_what_was_used_longest_ago_goes(file, prepare_counted, monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 2)
    for seed in (0, 1, 0, 2):
        prepare_counted(config_of(file), seed=seed)
    assert len(entries()) == 2
    assert not prepare_counted(config_of(file), seed=0)[1]
    assert not prepare_counted(config_of(file), seed=2)[1]
    assert prepare_counted(config_of(file), seed=1)[1]


def test_arrays_outlive_their_entry(file, prepare_counted, monkeypatch):
    monkeypatch.setattr(cache, "MAX_ENTRIES", 1)
    first, _ = prepare_counted(config_of(file))
    tokens = first.train[0].tokens.tolist()
    prepare_counted(config_of(file), seed=1)
    assert not first.rejected.parent.exists()
    assert first.train[0].tokens.tolist() == tokens


# failures and races


def test_an_entry_that_two_jobs_make_at_once_is_made_once(file, tokenizer, monkeypatch):
    original = module.read_records
    inner: list[Prepared] = []

    def read(*given):
        monkeypatch.setattr(module, "read_records", original)
        inner.append(prepare(config_of(file), "prompts", copy.deepcopy(tokenizer), PromptLimit(), 0))
        return original(*given)

    monkeypatch.setattr(module, "read_records", read)
    outer = prepare(config_of(file), "prompts", tokenizer, PromptLimit(), 0)
    assert_same(outer, inner[0])
    assert entries() == [outer.rejected.parent.name]


def test_rows_too_bad_to_go_on_leave_the_file_that_the_message_names_and_nothing_else(file, prepare_counted):
    write(file, [*ROWS, *BAD * 9])
    with pytest.raises(DataError, match=r"bad .*max_reject_share=0\.1 allows; they are in ") as error:
        prepare_counted(config_of(file))
    named = Path(re.search(r"they are in (.*?\.jsonl)", str(error.value))[1])
    assert entries() == [named.name]
    assert len(named.read_text(encoding="utf-8").splitlines()) == 27
    assert prepare_counted(config_of(file, clean=Cleaning(max_reject_share=0.5)))[1]


def test_an_interrupted_run_leaves_nothing_and_the_next_one_reads_all(file, prepare_counted, monkeypatch):
    original = module.tokenize
    monkeypatch.setattr(module, "BATCH", 10)

    def interrupt(records, *given):
        if records[0].origin.place > 20:
            raise KeyboardInterrupt
        return original(records, *given)

    monkeypatch.setattr(module, "tokenize", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_counted(config_of(file))
    assert not [name for name in entries() if not name.endswith(".jsonl")]
    monkeypatch.setattr(module, "tokenize", original)
    prepared, was_read = prepare_counted(config_of(file))
    assert was_read
    assert prepared.account.kept == 40


def test_a_missing_file_is_named(tmp_path, tokenizer):
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        prepare(config_of(tmp_path / "none.jsonl"), "prompts", tokenizer, PromptLimit(), 0)
