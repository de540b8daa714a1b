"""The demo as a newcomer runs it: three Ray jobs with authentication on, and a policy that learned."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2400)]


def summary(folder: Path) -> dict[str, float]:
    return dict(json.loads((folder / "summary.json").read_text()))


def test_each_stage_learns(demo: tuple[Path, str]) -> None:
    sft, reward_model, ppo = (summary(demo[0] / stage) for stage in ("sft", "reward_model", "ppo"))
    assert sft["eval/loss"] < 1.0 < sft["first/eval/loss"]
    assert reward_model["eval/accuracy"] > reward_model["eval/length_baseline_accuracy"] + 0.1
    assert ppo["eval/reward_mean"] > ppo["first/eval/reward_mean"] + 3 * ppo["first/eval/reward_se"]
    assert ppo["eval/kl_mean"] > 0


def test_sampler_and_learner_agree_in_every_step(demo: tuple[Path, str]) -> None:
    rows = [json.loads(line) for line in (demo[0] / "ppo" / "metrics.jsonl").read_text().splitlines()]
    gaps = [row["engine/logprob_gap_max"] for row in rows if "engine/logprob_gap_max" in row]
    assert len(gaps) == summary(demo[0] / "ppo")["num_steps"]
    assert max(gaps) <= 1e-4


def test_the_table_tells_what_changed(demo: tuple[Path, str]) -> None:
    table = demo[1][demo[1].index("rayrlhf demo") :]
    points = re.search(r"rose by ([\d.]+) points", table)
    assert points and float(points[1]) >= 25
    for row in ("SFT held-out loss", "reward-model accuracy", "held-out reward", "KL to the SFT model", "seconds"):
        assert row in table


def test_transformers_and_vllm_load_the_policy_and_say_the_same(demo: tuple[Path, str]) -> None:
    (policy,) = (demo[0] / "ppo" / "checkpoints").glob("step-*/policy")
    code = f"""
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from vllm import LLM, SamplingParams
folder = {str(policy)!r}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
engine = LLM(folder, dtype="float32", enforce_eager=True, kv_cache_memory_bytes=2**28, max_model_len=96)
for text in ["How is the weather in Daegu next week?", "주말에 역사를 어떻게 공부해요?"]:
    chat = [{{"role": "user", "content": text}}]
    prompt = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    ours = model.generate(ids, max_new_tokens=32, do_sample=False)[0, ids.shape[1]:]
    theirs = engine.generate(prompt, SamplingParams(temperature=0, max_tokens=32), use_tqdm=False)[0].outputs[0].text
    text = tokenizer.decode(ours, skip_special_tokens=True)
    print("SAME" if text == theirs else f"DIFFERENT {{text!r}} {{theirs!r}}", repr(text))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("SAME", "DIFFERENT"))]
    assert len(lines) == 2 and all(line.startswith("SAME") for line in lines), done.stdout + done.stderr[-3000:]
    assert all(len(line) > 12 for line in lines)


def test_generate_answers_from_the_checkpoint(demo: tuple[Path, str]) -> None:
    (policy,) = (demo[0] / "ppo" / "checkpoints").glob("step-*/policy")
    command = [sys.executable, "-m", "rayrlhf.cli", "generate", str(policy), "오늘 불고기를 쉽게 만들 수 있나요?"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip()
    assert done.stderr == ""
