"""From files to token arrays: what is trained on, what is held out, how often, and that it is what was read."""

import json
import random
from collections import Counter

import pytest
from pydantic import ValidationError

from rayrlhf.data.cleaning.augment import Augmentation
from rayrlhf.data.ingest.account import DataError
from rayrlhf.data.ingest.records import Answer, Preference, PromptText, Record
from rayrlhf.data.templates import KochatgptTemplate
from rayrlhf.data.tokens import prepare as module
from rayrlhf.data.tokens.prepare import DataConfig, prepare
from rayrlhf.data.tokens.splits import split_of
from rayrlhf.data.tokens.tokenise import PromptLimit, SequenceLimit, tokenize

ROOM = SequenceLimit(max_tokens=10_000)
LONG_PROMPT = "질문 " * 200


class PairData(DataConfig):
    augment: Augmentation | None = None


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RAYRLHF_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path):
    """`file("a.jsonl", rows)` writes JSON lines and gives the path."""

    def write(name: str, rows: list[dict]) -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


def prompts(count: int, start: int = 0) -> list[dict]:
    return [{"prompt": f"질문 {index}"} for index in range(start, start + count)]


def answers(count: int, start: int = 0) -> list[dict]:
    return [{"prompt": f"질문 {index % 60}", "completion": f"답 {index}"} for index in range(start, start + count)]


def pairs(count: int) -> list[dict]:
    return [
        {"prompt": f"질문 {index % 60}", "chosen": f"좋은 답 {index}", "rejected": f"나쁜 답 {index}"}
        for index in range(count)
    ]


def rows_of(part) -> list[tuple[tuple[list[int], list[int]], ...]]:
    """Each row of a part as `tokenize` gives it: one (prompt, answer), or two for a pair."""
    sides = [
        [
            (data.row(row)[:prompt].tolist(), data.row(row)[prompt:].tolist())
            for row, prompt in enumerate(data.prompt_lengths)
        ]
        for data in part
    ]
    return list(zip(*sides, strict=True))


def texts_of(part, tokenizer) -> list[str]:
    """The prompts of a part, for templates that add nothing."""
    return [tokenizer.decode(prompt) for ((prompt, _), *_) in rows_of(part)]


PLAIN = {"kind": "custom", "text": "{prompt}"}

KINDS = [
    ("prompts", prompts(80), lambda row: Record(PromptText.of(row["prompt"])), PromptLimit()),
    ("answers", answers(80), lambda row: Answer(PromptText.of(row["prompt"]), row["completion"]), ROOM),
    ("preferences", pairs(80), lambda row: Preference(PromptText.of(row["prompt"]), *list(row.values())[1:]), ROOM),
]


@pytest.mark.parametrize(("kind", "rows", "record_of", "limit"), KINDS)
def test_the_arrays_are_what_direct_tokenization_gives_row_by_row_in_order(
    kind, rows, record_of, limit, file, tokenizer
):
    template = KochatgptTemplate()
    config = DataConfig(train=[file("a.jsonl", rows)], heldout_share=0.3, template=template)
    prepared = prepare(config, kind, tokenizer, limit, seed=3)
    wanted = {0: [], 1: []}
    for row in rows:
        record = record_of(row)
        wanted[split_of(record.prompt, (0.3, 0.7), 3)] += tokenize([record], template, tokenizer, limit)
    assert rows_of(prepared.heldout) == wanted[0]
    assert rows_of(prepared.train) == wanted[1]
    assert min(map(len, wanted.values())) > 5
    assert (prepared.account.rows, prepared.account.kept) == (80, 80)


@pytest.mark.parametrize("size", [1, 3])
def test_the_result_does_not_depend_on_the_size_of_batches(size, file, tokenizer, monkeypatch):
    rows = [*pairs(70), {"prompt": LONG_PROMPT, "chosen": "네", "rejected": "음"}, *pairs(3), {"prompt": "x"}]
    source = {"path": file("a.jsonl", rows), "weight": 1.5}
    config = PairData(train=[source], heldout_share=0.3, augment=Augmentation(), cache=False)
    limit = SequenceLimit(max_tokens=60)
    wanted = prepare(config, "preferences", tokenizer, limit, seed=0)
    monkeypatch.setattr(module, "BATCH", size)
    found = prepare(config, "preferences", tokenizer, limit, seed=0)
    assert rows_of(found.train) == rows_of(wanted.train)
    assert rows_of(found.heldout) == rows_of(wanted.heldout)
    assert found.account.as_dict() == wanted.account.as_dict()
    assert found.account.rejected == {"too long": 1, "exact duplicate": 3, "missing column: chosen": 1}


# held out


def test_no_prompt_is_trained_on_and_held_out(file, tokenizer):
    config = DataConfig(train=[file("a.jsonl", answers(200))], heldout_share=0.4, template=PLAIN)
    prepared = prepare(config, "answers", tokenizer, ROOM, seed=0)
    train, heldout = set(texts_of(prepared.train, tokenizer)), set(texts_of(prepared.heldout, tokenizer))
    assert not train & heldout
    assert train | heldout == {f"질문 {index}" for index in range(60)}
    assert 12 < len(heldout) < 36


def test_appended_rows_move_none_of_the_old_ones_to_the_other_part(file, tokenizer):
    parts = []
    for count in (100, 150):
        config = DataConfig(train=[file("a.jsonl", answers(count))], heldout_share=0.3, template=PLAIN)
        parts.append(prepare(config, "answers", tokenizer, ROOM, seed=0))
    before, after = parts
    assert rows_of(after.train)[: len(before.train[0])] == rows_of(before.train)
    assert rows_of(after.heldout)[: len(before.heldout[0])] == rows_of(before.heldout)


def test_held_out_files_are_read_whole_and_prompts_that_are_trained_on_too_are_noted(file, tokenizer):
    config = DataConfig(
        train=[file("a.jsonl", prompts(20))], heldout=[file("b.jsonl", prompts(6, start=17))], template=PLAIN
    )
    prepared = prepare(config, "prompts", tokenizer, PromptLimit(), seed=0)
    assert texts_of(prepared.train, tokenizer) == [row["prompt"] for row in prompts(20)]
    assert texts_of(prepared.heldout, tokenizer) == [row["prompt"] for row in prompts(6, start=17)]
    assert prepared.account.notes == {"held-out prompts that are trained on too": 3}
    assert prepared.account.rows == 26


def test_held_out_files_without_a_shared_prompt_are_not_noted(file, tokenizer):
    config = DataConfig(train=[file("a.jsonl", prompts(5))], heldout=[file("b.jsonl", prompts(5, start=9))])
    assert prepare(config, "prompts", tokenizer, PromptLimit(), seed=0).account.notes == {}


def test_nothing_is_held_out_where_nothing_is_asked_for(file, tokenizer):
    config = DataConfig(train=[file("a.jsonl", prompts(9))], heldout_share=0)
    prepared = prepare(config, "prompts", tokenizer, PromptLimit(), seed=0)
    assert (len(prepared.train[0]), len(prepared.heldout[0])) == (9, 0)


# weights and sources


def test_several_sources_are_read_one_after_the_other_each_up_to_its_own_cap(file, tokenizer):
    sources = [
        {"path": file("a.jsonl", prompts(10)), "max_rows": 2},
        file("b.jsonl", prompts(3, start=20)),
        {"path": file("c.jsonl", [{"q": "다른 열"}]), "columns": {"prompt": "q"}},
    ]
    prepared = prepare(
        DataConfig(train=sources, heldout_share=0, template=PLAIN), "prompts", tokenizer, PromptLimit(), 0
    )
    wanted = ["질문 0", "질문 1", "질문 20", "질문 21", "질문 22", "다른 열"]
    assert texts_of(prepared.train, tokenizer) == wanted
    counts = {name.rpartition("/")[2]: dict(counts) for name, counts in prepared.account.by_source.items()}
    assert counts == {
        "a.jsonl": {"rows": 2, "records": 2},
        "b.jsonl": {"rows": 3, "records": 3},
        "c.jsonl": {"rows": 1, "records": 1},
    }


def weighted(path: str, weight: float, tokenizer, seed=0, heldout_share=0.3):
    config = DataConfig(
        train=[{"path": path, "weight": weight}], heldout_share=heldout_share, template=PLAIN, cache=False
    )
    return prepare(config, "prompts", tokenizer, PromptLimit(), seed)


def test_a_weight_of_2_shows_each_row_twice_and_holds_each_out_once(file, tokenizer):
    path = file("a.jsonl", prompts(50))
    once, twice = (weighted(path, weight, tokenizer) for weight in (1, 2))
    assert rows_of(twice.train) == [row for row in rows_of(once.train) for _ in range(2)]
    assert rows_of(twice.heldout) == rows_of(once.heldout)
    assert twice.account.as_dict() == once.account.as_dict()


def test_a_weight_of_a_half_shows_a_seeded_half_and_holds_all_out_that_would_be(file, tokenizer):
    path = file("a.jsonl", prompts(300))
    whole, half, again = (weighted(path, weight, tokenizer) for weight in (1, 0.5, 0.5))
    kept = rows_of(half.train)
    assert rows_of(again.train) == kept
    assert kept == [row for row in rows_of(whole.train) if row in kept]
    assert abs(len(kept) / len(whole.train[0]) - 0.5) < 0.12
    assert rows_of(half.heldout) == rows_of(whole.heldout)
    left_out = len(whole.train[0]) - len(kept)
    assert half.account.rejected == {"left out by the weight of its source": left_out}
    assert rows_of(weighted(path, 0.5, tokenizer, seed=1, heldout_share=0).train) != kept


def test_a_weight_between_shows_each_row_at_least_as_often_as_its_whole_part(file, tokenizer):
    times = Counter(
        texts_of(weighted(file("a.jsonl", prompts(300)), 2.25, tokenizer, heldout_share=0).train, tokenizer)
    )
    assert set(times.values()) == {2, 3}
    assert abs(sum(times.values()) / 300 - 2.25) < 0.1


def test_a_source_named_twice_is_told_to_use_its_weight(file):
    path = file("a.jsonl", prompts(1))
    with pytest.raises(ValidationError, match=r"is named 2 times: name it once .*with weight: 2"):
        DataConfig(train=[path, {"path": path, "weight": 3}])


# made negatives


def test_made_negatives_join_the_training_pairs_only_and_those_too_long_are_counted(file, tokenizer):
    path = file("a.jsonl", pairs(150))
    config = {"train": [path], "heldout_share": 0.4, "template": PLAIN}
    plain = prepare(PairData(**config), "preferences", tokenizer, SequenceLimit(max_tokens=45), seed=0)
    augment = Augmentation(share=0.5, num_repeats=30)
    more = prepare(PairData(**config, augment=augment), "preferences", tokenizer, SequenceLimit(max_tokens=45), seed=0)
    assert rows_of(more.heldout) == rows_of(plain.heldout)
    real, made = rows_of(more.train)[: len(plain.train[0])], rows_of(more.train)[len(plain.train[0]) :]
    assert real == rows_of(plain.train)
    assert made
    heldout_answers = {tokenizer.decode(answer) for pair in rows_of(more.heldout) for _, answer in pair}
    for (asked, chosen), (_, rejected) in made:
        assert any(asked == prompt and chosen == answer for (prompt, answer), _ in real)
        assert rejected != chosen
        assert tokenizer.decode(rejected) not in heldout_answers
    assert more.account.notes["synthetic pairs"] == len(made)
    assert more.account.as_dict() | {"notes": {}} == plain.account.as_dict()
    dropping = SequenceLimit(max_tokens=45, overlong="drop")
    fewer = prepare(PairData(**config, augment=augment), "preferences", tokenizer, dropping, seed=0)
    dropped = fewer.account.notes["synthetic pairs left out: too long"]
    assert dropped > 0
    assert len(fewer.train[0]) == len(plain.train[0]) + fewer.account.notes["synthetic pairs"] - dropped


def test_one_seed_prepares_the_same_and_another_does_not(file, tokenizer):
    path = file("a.jsonl", random.Random(0).sample(pairs(60), 60))
    config = PairData(train=[path], heldout_share=0.3, augment=Augmentation(), cache=False)
    first, again, other = (prepare(config, "preferences", tokenizer, ROOM, seed) for seed in (0, 0, 1))
    assert rows_of(first.train) == rows_of(again.train)
    assert rows_of(first.train) != rows_of(other.train)


# what training knows besides the texts


def scored(count: int) -> list[dict]:
    return [pair | {"margin": index / 2} for index, pair in enumerate(pairs(count))]


@pytest.mark.parametrize("cache", [True, False])
def test_margins_go_with_their_pairs_over_splits_weights_and_the_cache(file, tokenizer, cache):
    path = file("a.jsonl", scored(60))
    config = PairData(train=[{"path": path, "weight": 1.5}], heldout_share=0.3, template=PLAIN, cache=cache)
    for _ in range(2):  # the second time from the cache
        prepared = prepare(config, "preferences", tokenizer, ROOM, seed=0)
        assert len(prepared.train[0]) > 60 * 0.7 * 1.2
        for part, values in ((prepared.train, prepared.train_values), (prepared.heldout, prepared.heldout_values)):
            numbers = [int(text.split()[-1]) for text in texts_of(part, tokenizer)]
            assert len(values) == len(numbers) > 10
            assert values.tolist() == [number / 2 for number in numbers]


def test_a_made_negative_has_no_margin(file, tokenizer):
    config = PairData(train=[file("a.jsonl", scored(40)[1:])], augment=Augmentation(share=0.5), template=PLAIN)
    prepared = prepare(config, "preferences", tokenizer, ROOM, seed=0)
    num_made = prepared.account.notes["synthetic pairs"]
    assert num_made > 5
    assert prepared.train_values[:-num_made].all() and not prepared.train_values[-num_made:].any()


def test_labels_go_with_their_answers(file, tokenizer):
    rows = [{"prompt": f"질문 {i}", "completion": f"답 {i}", "label": i % 3 == 0} for i in range(40)]
    config = DataConfig(train=[file("a.jsonl", rows)], heldout_share=0.3, template=PLAIN)
    prepared = prepare(config, "labeled_answers", tokenizer, ROOM, seed=0)
    for part, values in ((prepared.train, prepared.train_values), (prepared.heldout, prepared.heldout_values)):
        assert values.tolist() == [int(text.split()[-1]) % 3 == 0 for text in texts_of(part, tokenizer)]


# nothing left


def test_a_part_without_a_row_names_the_setting(file, tokenizer):
    path = file("a.jsonl", prompts(3))
    with pytest.raises(DataError, match=r"data\.heldout: no row is left: 3 of 3 rows"):
        prepare(DataConfig(train=[path], heldout_share=0.001), "prompts", tokenizer, PromptLimit(), seed=0)
    with pytest.raises(DataError, match=r"data\.train: no row is left: 3 of 3 rows"):
        prepare(DataConfig(train=[path], heldout_share=0.999), "prompts", tokenizer, PromptLimit(), seed=0)


def test_rows_that_are_all_too_long_are_no_usable_rows(file, tokenizer):
    config = DataConfig(train=[file("a.jsonl", [{"prompt": LONG_PROMPT}])], heldout_share=0)
    with pytest.raises(DataError, match=r"no usable row is left: 0 of 1 rows \(left out: 1 prompt too long\)"):
        prepare(config, "prompts", tokenizer, PromptLimit(max_prompt_tokens=5), seed=0)


SPELLED = [
    {"prompt": "질문 0", "completion": "답<|endoftext|> 더"},
    {"prompt": "<|assistant|>네<|user|>", "completion": "아니요"},
    {"prompt": "질문 1", "completion": "답<|endoftext|>"},  # a suffix that cleaning takes off
]


@pytest.mark.parametrize(
    ("in_text", "note"), [("split", "split"), ("allow", "taken as control tokens"), ("reject", None)]
)
def test_special_tokens_that_people_wrote_are_counted_by_rows(in_text, note, tokenizer, file):
    path = file("rows.jsonl", [*SPELLED, *answers(5, start=10)])
    config = DataConfig(train=[path], heldout_share=0, special_tokens_in_text=in_text)
    account = prepare(config, "answers", tokenizer, ROOM, 0).account
    assert account.notes == ({f"rows with special tokens in the text, {note}": 2} if note else {})
    assert account.rejected == ({"special tokens in the text": 2} if in_text == "reject" else {})


def test_tokens_kept_for_one_choice_about_special_tokens_are_not_taken_for_another(tokenizer, file):
    path = file("rows.jsonl", SPELLED)
    eos = []
    for in_text in ("split", "allow", "split"):
        config = DataConfig(train=[path], heldout_share=0, special_tokens_in_text=in_text)
        eos.append(
            int((prepare(config, "answers", tokenizer, ROOM, 0).train[0].tokens == tokenizer.eos_token_id).sum())
        )
    assert eos == [3, 4, 3]


@pytest.mark.parametrize("template", ["chat", "kochatgpt", "kullm", PLAIN])
def test_an_answer_holds_eos_only_at_its_end_and_a_pair_is_split_on_both_sides(template, tokenizer, file):
    rows = [
        {"prompt": f"{index}<|endoftext|>.", "chosen": "<|endoftext|>a", "rejected": "b<|assistant|>c"}
        for index in "xyz"
    ]
    config = DataConfig(train=[file("rows.jsonl", rows)], heldout_share=0, template=template)
    sides = prepare(config, "preferences", tokenizer, ROOM, 0).train
    control = set(tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|user|>", "<|assistant|>"]))
    for pair in rows_of(sides):
        for _, answer in pair:
            assert answer.pop() == tokenizer.eos_token_id
            assert not control & set(answer)
