"""How fast pairs are read, cleaned and tokenized, and in how much memory; reading beside `datasets.load_dataset`.

    python benchmarks/data.py [--rows 1000000] [--tokenizer FOLDER] [--out FILE.json]

Makes a JSON lines file of synthetic preference pairs (a million are 1 GB), then runs each step in a process of its own
and prints rows/s and peak memory. Memory is what the process holds for itself: pages of mapped files, which the system
drops when it needs room, are not counted. All lies in a temporary folder, which takes 5 GB for a million rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

SAMPLE = Path(__file__).parents[1] / "data" / "sample"
REPEATS = 3
"""Reading is measured so often, in turns with load_dataset; the fastest of each counts."""


def make_pairs(path: Path, num_rows: int) -> None:
    """Write `num_rows` pairs of Korean and English words, all different, about 1 KB each."""
    from rayrlhf.models.texts import read_texts

    words = sorted({word for text in read_texts(sorted(SAMPLE.glob("*.jsonl"))) for word in text.split()})
    draw = random.Random(0)

    def text(num_words: int) -> str:
        return " ".join(draw.choices(words, k=num_words))

    with path.open("w", encoding="utf-8") as file:
        for row in range(num_rows):
            pair = {
                "id": f"pair-{row}",
                "prompt": f"{text(30)} {row}?",
                "chosen": text(draw.randint(40, 80)),
                "rejected": text(draw.randint(30, 70)),
            }
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")


def load_dataset(work: Path) -> int:
    """`datasets.load_dataset`, nothing cached: rows parsed, typed, and written as Arrow."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=work) as cache:
        return len(datasets.load_dataset("json", data_files=str(work / "pairs.jsonl"), split="train", cache_dir=cache))


def load_dataset_and_iterate(work: Path) -> int:
    """The same, and every row as Python values, as a program needs them."""
    import datasets

    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory(dir=work) as cache:
        data = datasets.load_dataset("json", data_files=str(work / "pairs.jsonl"), split="train", cache_dir=cache)
        return sum(1 for _ in data)


def parse(work: Path) -> int:
    """rayrlhf: rows as Python values, bad ones found."""
    return sum(len(chunk.values) for chunk in _source(work).chunks())


def rows(work: Path) -> int:
    """rayrlhf: rows parsed and checked against the schema's model."""
    from rayrlhf.data.formats.preference_pair import PreferencePair

    check = PreferencePair.__pydantic_validator__.validate_python
    count = 0
    for chunk in _source(work).chunks():
        for value in chunk.values:
            check(value)
            count += 1
    return count


def records(work: Path) -> int:
    """rayrlhf: rows as records with their origins, accounted for."""
    return _count(work, clean=False)


def clean(work: Path) -> int:
    """rayrlhf: read, and every default cleaning rule applied (exact duplicates, ids, code pages, …)."""
    return _count(work, clean=True)


def near_duplicates(work: Path) -> int:
    """rayrlhf: read, cleaned, and near-duplicate prompts removed with MinHash."""
    return _count(work, clean=True, near_duplicates={"kind": "minhash"})


def tokenize(work: Path) -> int:
    """rayrlhf: what a reward-model job does before it trains: read, clean, split, tokenize, write, map."""
    prepared = _prepare(work)
    return len(prepared.train[0]) + len(prepared.heldout[0])


def tokenize_cached(work: Path) -> int:
    """rayrlhf: the same job a second time: the content hash finds the tokens."""
    return tokenize(work)


def _source(work: Path) -> Any:
    from rayrlhf.data.ingest.sources import Source

    return TypeAdapter(Source).validate_python(str(work / "pairs.jsonl"))


def _count(work: Path, clean: bool, **rules: Any) -> int:
    from rayrlhf.data.cleaning.rules import Cleaning
    from rayrlhf.data.ingest.account import Account
    from rayrlhf.data.ingest.reader import read_records

    account = Account()
    found = read_records([_source(work)], "preferences", account)
    for record in Cleaning(**rules).clean(found, account) if clean else found:
        account.keep(record)
    account.finish()
    return account.rows


def _prepare(work: Path) -> Any:
    from transformers import AutoTokenizer

    from rayrlhf.data.tokens.inputs import prepare_with_progress
    from rayrlhf.offline.config import PairData

    os.environ["RAYRLHF_CACHE"] = str(work / "cache")
    data = PairData(train=[_source(work)], heldout_share=0.01, template="kullm", max_tokens=1024)
    tokenizer = AutoTokenizer.from_pretrained((work / "tokenizer").read_text())
    return prepare_with_progress(data, "preferences", tokenizer, data, seed=0)


STEPS: dict[str, Callable[[Path], int]] = {
    step.__name__: step
    for step in (
        load_dataset,
        load_dataset_and_iterate,
        parse,
        rows,
        records,
        clean,
        near_duplicates,
        tokenize,
        tokenize_cached,
    )
}


def run_step(name: str, work: Path) -> dict[str, float]:
    """Run one step in a process of its own: {rows, seconds, peak_gib}. Imports are not timed."""
    command = [sys.executable, __file__, "--step", name, "--work", str(work)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def measure(name: str, work: Path) -> None:
    """In the process of the step: run it and print the results."""
    for module in ("datasets", "transformers", "rayrlhf.data.ingest.reader", "rayrlhf.offline.reward_model"):
        __import__(module)
    memory = _PeakMemory()
    began = time.perf_counter()
    count = STEPS[name](work)
    seconds = time.perf_counter() - began
    print(json.dumps({"rows": count, "seconds": seconds, "peak_gib": memory.stop()}))


class _PeakMemory(threading.Thread):
    """Samples the process's anonymous memory."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._peak, self._stopped = 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._stopped.wait(0.05):
            with open("/proc/self/status") as file:
                held = next(int(line.split()[1]) for line in file if line.startswith("RssAnon"))
            self._peak = max(self._peak, held)

    def stop(self) -> float:
        """GiB."""
        self._stopped.set()
        self.join()
        return self._peak / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--tokenizer", type=Path, help="folder; without it one of 8,000 tokens is trained on the sample"
    )
    parser.add_argument("--out", type=Path, help="write the results as JSON")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        measure(options.step, options.work)
        return
    with tempfile.TemporaryDirectory(prefix="rayrlhf-data-") as folder:
        work = Path(folder)
        make_pairs(work / "pairs.jsonl", options.rows)
        (work / "tokenizer").write_text(str(options.tokenizer or _train_tokenizer(work)))
        results: dict[str, dict[str, float]] = {}
        for name in [*STEPS] + ["load_dataset", "parse", "rows"] * (REPEATS - 1):
            result = run_step(name, work)
            if name not in results or result["seconds"] < results[name]["seconds"]:
                results[name] = result
        size = (work / "pairs.jsonl").stat().st_size
    _print(results, size)
    if options.out:
        options.out.write_text(json.dumps({"bytes": size, "cores": os.cpu_count(), "steps": results}, indent=2) + "\n")


def _train_tokenizer(work: Path) -> Path:
    from rayrlhf.models.init import train_tokenizer
    from rayrlhf.models.texts import read_texts

    folder = work / "trained"
    train_tokenizer(read_texts(sorted(SAMPLE.glob("*.jsonl"))), 8000).save_pretrained(folder)
    return folder


def _print(results: dict[str, dict[str, float]], size: int) -> None:
    table = Table(title=f"{results['rows']['rows']:,.0f} pairs, {size / 1e9:.2f} GB, {os.cpu_count()} cores")
    for heading in ("step", "seconds", "rows/s", "MB/s", "peak GiB", "÷ load_dataset"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    for name, step in sorted(results.items(), key=lambda item: [*STEPS].index(item[0])):
        table.add_row(
            name,
            f"{step['seconds']:.1f}",
            f"{step['rows'] / step['seconds']:,.0f}",
            f"{size / 1e6 / step['seconds']:.0f}",
            f"{step['peak_gib']:.2f}",
            f"{results['load_dataset']['seconds'] / step['seconds']:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
