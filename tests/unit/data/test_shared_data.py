"""The real files: what they are recognised as, and the published pairs as an oracle."""

import json
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from rayrlhf.data.account import Account
from rayrlhf.data.reader import default_kind, read_records, recognise
from rayrlhf.data.sources import Source

DATA = (Path(__file__).parents[3] / "../shared/data").resolve()
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the shared data are not on this machine")
FILES = {
    "vaiv/sft/conversation.jsonl": ("instruction", 1495),
    "vaiv/sft/evol.jsonl": ("instruction", 476),
    "vaiv/rm/conversation_train.json": ("preference_pair", 1037),
    "vaiv/rm/translation_train.json": ("preference_pair", 960),
    "vaiv/rm/conversation_score_final.json": ("vaiv_scores", 1310),
    "vaiv/ppo/step3_conversation.json": ("prompt_only", 1144),
    "vaiv/eval/user_oriented_instructions_eval.jsonl": ("self_instruct", 252),
    "kochatgpt/kochatgpt_3_PPO.jsonl": ("prompt_only", 12000),
    "kochatgpt/kochatgpt_1_SFT_conversation.jsonl": ("chat", 439),
    "kochatgpt/kochatgpt_seed_data.txt": ("text_line", 11997),
    "kochatgpt/kochatgpt_2_RM_excerpt4.json": ("kochatgpt_ranking", 4),
    "songys/ChatbotData.csv": ("songys", 11823),
    "gsm8k/gsm8k_train_first3000.jsonl": ("question_answer", 3000),
    "summarization/dialsummeval_train80.jsonl": ("dialsummeval", 1120),
}


def read(name, kind=None, **rules):
    source = TypeAdapter(Source).validate_python({"path": str(DATA / name), "rules": rules})
    account = Account()
    records = []
    for record in read_records([source], kind or default_kind(source), account):
        account.keep(record)
        records.append(record)
    account.finish()
    return records, account


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_recognised_and_each_row_counted(name):
    row_format, num_rows = FILES[name]
    assert recognise(TypeAdapter(Source).validate_python(str(DATA / name))).name == row_format
    assert read(name)[1].rows == num_rows


def test_scores_give_the_published_pairs():
    records, account = read("vaiv/rm/conversation_score_final.json")
    assert (account.rows, account.kept, account.rejected) == (1310, 1077, {"tie": 203, "both scores low": 30})
    published = json.loads((DATA / "vaiv/rm/conversation_train.json").read_text(encoding="utf-8-sig"))
    ours = {r.origin.id: {"prompt": r.prompt.text, "chosen": r.chosen, "rejected": r.rejected} for r in records}
    assert len(published) == 1037
    for pair in published:
        assert ours[pair["id"]] == {key: pair[key] for key in ("prompt", "chosen", "rejected")}
    assert len(read("vaiv/rm/conversation_score_final.json", min_score=19)[0]) == 1082


def test_rankings_of_the_excerpt_give_three_or_two_pairs_a_row():
    assert len(read("kochatgpt/kochatgpt_2_RM_excerpt4.json")[0]) == 12
    best, _ = read("kochatgpt/kochatgpt_2_RM_excerpt4.json", ranking="best_vs_rest")
    assert len(best) == 8
    assert best[0].chosen == "라이언에게 말했다."
