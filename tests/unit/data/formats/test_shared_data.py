"""The files of the four systems: each is recognized, no row goes missing, and published pairs come out again.

Oracles read the raw files with Python's own json and csv.
"""

import csv
import json
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from rayrlhf.data.ingest.reader import default_kind, recognize
from rayrlhf.data.ingest.records import Message, PromptText
from rayrlhf.data.ingest.sources import FileSource

SHARED = Path(__file__).parents[4] / "../shared/data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not on this machine")

TLDR = {"columns": {"prompt": "context", "completion": "sample"}}
FILES = {
    "vaiv/sft/conversation.jsonl": ("instruction", "answers", 1495),
    "vaiv/sft/evol.jsonl": ("instruction", "answers", 476),
    "vaiv/rm/conversation_train.json": ("preference_pair", "preferences", 1037),
    "vaiv/rm/translation_train.json": ("preference_pair", "preferences", 960),
    "vaiv/rm/conversation_score_final.json": ("vaiv_scores", "preferences", 1310),
    "vaiv/ppo/step3_conversation.json": ("prompt_only", "prompts", 1144),
    "vaiv/ppo/step3_selfInstruct.json": ("prompt_only", "prompts", 500),
    "vaiv/ppo/step3_translation.json": ("prompt_only", "prompts", 1538),
    "vaiv/geval/gpt_conversation_eval.csv": ("instruction", "answers", 201),
    "vaiv/geval/koalpaca_conversation_eval.csv": ("instruction", "answers", 161),
    "vaiv/geval/kullm_orig_conversation_eval.csv": ("instruction", "answers", 161),
    "vaiv/eval/user_oriented_instructions_eval.jsonl": ("self_instruct", "answers", 252),
    "kochatgpt/kochatgpt_3_PPO.jsonl": ("prompt_only", "prompts", 12000),
    "kochatgpt/kochatgpt_1_SFT_conversation.jsonl": ("chat", "answers", 439),
    "kochatgpt/kochatgpt_seed_data.txt": ("text_line", "prompts", 11997),
    "kochatgpt/kochatgpt_2_RM_excerpt4.json": ("kochatgpt_ranking", "preferences", 4),
    "songys/ChatbotData.csv": ("songys", "answers", 11823),
    "gsm8k/gsm8k_train_first3000.jsonl": ("question_answer", "answers", 3000),
    "summarization/dialsummeval_train80.jsonl": ("dialsummeval", "preferences", 80 * 14),
    "summarization/tldr_train70.csv": ("prompt_completion", "answers", 70 * 12),
}


def raw(name) -> list[dict]:
    text = (SHARED / name).read_text(encoding="utf-8-sig")
    return (
        json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.split("\n") if line]
    )


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_recognized_and_all_its_rows_are_accounted_for(read, name):
    settings = TLDR if "tldr" in name else {}
    source = FileSource(path=str(SHARED / name), **settings)
    kind = default_kind(source)
    assert (recognize(source).name, kind) == FILES[name][:2]
    done = read(SHARED / name, kind, **settings)
    assert done.account.rows == FILES[name][2]
    if name != "vaiv/rm/conversation_score_final.json":
        assert done.rejected == []


def test_no_file_of_rows_is_left_out_of_this_test():
    data = {".json", ".jsonl", ".csv", ".txt"}
    found = {str(path.relative_to(SHARED)) for path in SHARED.rglob("*") if path.suffix in data}
    assert found - {"vaiv/templates/kullm.json"} - {name for name in found if name.startswith("tokenizer")} == set(
        FILES
    )


def test_the_scores_of_vaiv_give_the_pairs_that_vaiv_published(read):
    done = read(SHARED / "vaiv/rm/conversation_score_final.json", "preferences")
    assert (done.account.rows, done.account.kept) == (1310, 1077)
    assert done.account.rejected == {"both scores low": 30, "tie": 203}
    ours = {record.origin.id: (record.prompt.text, record.chosen, record.rejected) for record in done.records}
    published = raw("vaiv/rm/conversation_train.json")
    theirs = {row["id"]: (row["prompt"], row["chosen"], row["rejected"]) for row in published}
    assert (len(ours), len(theirs)) == (1077, 1037)
    assert theirs.items() <= ours.items()


def test_a_lower_limit_keeps_five_more_pairs(read):
    path = SHARED / "vaiv/rm/conversation_score_final.json"
    assert len(read(path, "preferences", rules={"min_score": 19}).records) == 1082


def test_the_rankings_of_kochatgpt_are_an_order_unless_told_otherwise(read):
    path = SHARED / "kochatgpt/kochatgpt_2_RM_excerpt4.json"
    rows = raw("kochatgpt/kochatgpt_2_RM_excerpt4.json")

    def found(**rules):
        return Counter(
            (record.prompt.text, *record.answers) for record in read(path, "preferences", rules=rules).records
        )

    by_order, by_rank = Counter(), Counter()
    for row in rows:
        texts, ranking = [row[f"completion_{index}"] for index in range(3)], row["ranking"]
        by_order.update((row["prompt"], texts[a], texts[b]) for a, b in combinations(ranking, 2))
        by_rank.update(
            (row["prompt"], texts[a], texts[b]) for a in range(3) for b in range(3) if ranking[a] < ranking[b]
        )
    assert found() == found(ranking_is="order") == by_order
    assert found(ranking_is="rank") == by_rank
    assert by_order.total() == by_rank.total() == 12
    assert sum(sorted(row["ranking"]) == [0, 1, 2] and row["ranking"] in ([1, 2, 0], [2, 0, 1]) for row in rows) == 2
    assert (by_order - by_rank).total() == 4


@pytest.mark.parametrize("which", ["all_pairs", "best_vs_rest"])
def test_the_ratings_of_dialsummeval_give_the_pairs_of_their_means(read, which):
    dialogues = defaultdict(list)
    for row in raw("summarization/dialsummeval_train80.jsonl"):
        marks = [mark for rater in row["annotations"] for mark in rater.values()]
        assert len(marks) == 3 * 4
        dialogues[row["dialogue"]].append((sum(marks), row["summary"]))  # of equally many marks: no need to divide
    wanted, ties = Counter(), 0
    for dialogue, systems in dialogues.items():
        best = max(total for total, _ in systems)
        for a, b in combinations(systems, 2):
            better, worse = (a, b) if a[0] > b[0] else (b, a)
            if which == "best_vs_rest" and better[0] < best:
                continue
            if better[0] > worse[0]:
                wanted[dialogue, better[1], worse[1]] += 1
            else:
                ties += 1
    done = read(SHARED / "summarization/dialsummeval_train80.jsonl", "preferences", rules={"ranking": which})
    assert Counter((record.prompt.text, *record.answers) for record in done.records) == wanted
    assert done.account.notes["pairs not made: tie"] == ties
    if which == "all_pairs":
        assert (len(dialogues), wanted.total() + ties) == (80, 80 * 14 * 13 // 2)


def test_the_chats_of_kochatgpt_alternate_and_give_each_answer_or_the_last(read):
    path = SHARED / "kochatgpt/kochatgpt_1_SFT_conversation.jsonl"
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    assert lines.count("<<start conversation>>") == 439
    answers = [line.removeprefix("<챗봇>:").strip() for line in lines if line.startswith("<챗봇>:")]
    done = read(path, rules={"turns": "all"})
    assert len(done.records) == len(answers)
    assert [record.text.split("\n")[0] for record in done.records] == [text.split("\n")[0] for text in answers]
    assert {message.role for record in done.records for message in record.prompt.messages[::2]} == {"user"}
    assert len(read(path).records) == 439


def test_the_table_of_songys_and_its_line_numbers_are_those_of_the_file(read):
    path = SHARED / "songys/ChatbotData.csv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    done = read(path)
    assert [(record.prompt.text, record.text) for record in done.records] == [(row["Q"], row["A"]) for row in rows]
    assert done.records[0].prompt == PromptText((Message("user", "12시 땡!"),))
    assert [record.origin.place for record in done.records[:2]] == [2, 3]


def test_the_solutions_of_gsm8k_without_calculations_lack_what_stands_between_their_marks(read):
    path = SHARED / "gsm8k/gsm8k_train_first3000.jsonl"
    solutions = [row["answer"] for row in raw("gsm8k/gsm8k_train_first3000.jsonl")]
    marked = sum("<<" in solution for solution in solutions)
    assert (len(solutions), marked) == (3000, 2957)
    wanted = []
    for solution in solutions:
        first, *rest = solution.split("<<")
        wanted.append(first + "".join(part.split(">>")[1] for part in rest))
    done = read(path, "answers", rules={"calculations": "remove"})
    assert [record.text for record in done.records] == wanted
    assert [record.text for record in read(path, "answers").records] == solutions
