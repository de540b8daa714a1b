"""Data files of every kind with mistakes in them, made from a seed, and what has to hold when a tool reads them.

`python tests/helpers/mutated_files.py COUNT [FIRST_SEED]` reads so many of them. A seed that breaks a rule is named
with the command that repeats it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow
import pyarrow.parquet

from rayrlhf.config import UserError
from rayrlhf.data.ingest.account import Account
from rayrlhf.data.tools import transform
from rayrlhf.data.tools.inspect import inspect
from rayrlhf.data.tools.options import read_options
from rayrlhf.metrics import console

WORDS = [
    "안녕",
    "하세요",
    "what",
    "is",
    "2 + 2",
    "[/INST]",
    "\x1b[2J",
    "𝄞",
    'said "so"',
    "a, b",
    "\n",
    "<|endoftext|>",
    "…",
]
TOKENS = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b";",
    b"\t",
    b"\\",
    b"\\u",
    b"\\ud83d",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
]
TOKENS += [
    b"\xff",
    b"\xfe\xff",
    b"\xef\xbb\xbf",
    b"\xc0\x80",
    b"\xed\xa0\x80",
    "가".encode("cp949"),
    b"null",
    b"NaN",
    b"1e999",
]
TOKENS += [
    b"9" * 5000,
    b"[" * 2000,
    b" " * 300,
    b'"prompt":',
    b'"choice": 7',
    b"<<start conversation>>\n",
    b"\x1f\x8b",
    b"PAR1",
]


def _text(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 6)))


ROWS: list[Callable[[random.Random], dict[str, Any]]] = [
    lambda rng: {"prompt": _text(rng), "completion": _text(rng)},
    lambda rng: {"id": rng.randrange(30), "prompt": _text(rng), "chosen": _text(rng), "rejected": _text(rng)},
    lambda rng: {"prompt": _text(rng)},
    lambda rng: {"messages": [{"role": role, "content": _text(rng)} for role in ("user", "assistant")]},
    lambda rng: {"prompt": _text(rng), "completions": [_text(rng) for _ in "abc"], "ranking": rng.sample(range(3), 3)},
    lambda rng: {"original_text": _text(rng), "summarize_0": "a", "summarize_1": "b", "choice": rng.randrange(2)},
    lambda rng: {"question": _text(rng), "answer": _text(rng)},
]


def _json_lines(rows: list[dict[str, Any]], rng: random.Random) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=rng.random() < 0.3) + "\n" for row in rows).encode()


def _json_array(rows: list[dict[str, Any]], rng: random.Random) -> bytes:
    return json.dumps(rows, ensure_ascii=False, indent=rng.choice([None, 2])).encode()


def _table(rows: list[dict[str, Any]], rng: random.Random) -> bytes:
    import csv

    text, delimiter = io.StringIO(), rng.choice(",\t;")
    table = csv.writer(text, delimiter=delimiter)
    table.writerow(rows[0])
    table.writerows([[v if isinstance(v, str) else json.dumps(v) for v in row.values()] for row in rows])
    return text.getvalue().encode()


def _parquet(rows: list[dict[str, Any]], rng: random.Random) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def _prose(rows: list[dict[str, Any]], rng: random.Random) -> bytes:
    return "".join(f"{next(iter(row.values()))}\n" for row in rows).encode()


def _chats(rows: list[dict[str, Any]], rng: random.Random) -> bytes:
    said = (f"<<start conversation>>\n<사람>: {_text(rng)}\n<챗봇>: {_text(rng)}\n" for _ in rows)
    return "".join(said).encode()


KINDS = {
    "rows.jsonl": _json_lines,
    "rows.json": _json_array,
    "rows.csv": _table,
    "rows.parquet": _parquet,
    "rows.txt": _prose,
    "rows": _chats,
}
PACKED = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: pyarrow.compress(data, "zstd", asbytes=True),
}
MANY_ROWS = 1500
"""So many that too many bad ones stop the reading early."""


def make(seed: int) -> tuple[str, bytes, list[str]]:
    """A file's name and content, and the settings to read it with."""
    rng = random.Random(seed)
    name, write = rng.choice(list(KINDS.items()))
    row = rng.choice(ROWS)
    count = MANY_ROWS if rng.random() < 0.02 else rng.randint(1, 12)
    content = write([row(rng) for _ in range(count)], rng)
    if rng.random() < 0.15:
        content = content.decode(errors="replace").encode(
            rng.choice(["utf-16", "utf-16-le", "cp949"]), errors="replace"
        )
    for _ in range(rng.choice([0, 1, 1, 2, 5, count])):
        content = _mutated(content, rng)
    if rng.random() < 0.15:
        suffix, pack = rng.choice(list(PACKED.items()))
        name, content = name + suffix, pack(content)
        if rng.random() < 0.5:
            content = _mutated(content, rng)
    settings = [f"clean.max_reject_share={rng.choice([1, 1, 0.1])}"]
    choices = ["decoding.invalid=replace", "decoding.invalid=strict", "decoding.encoding=cp949", "read_as=prompts"]
    choices += ["decoding.encoding=utf-16", "table.delimiter=;", "table.header=false", "rules.turns=all", "max_rows=3"]
    choices += ["rules.ranking_is=order", "keep_columns=[answer]", "clean.near_duplicates.kind=minhash"]
    return name, content, settings + [choice for choice in choices if rng.random() < 0.08]


def _mutated(content: bytes, rng: random.Random) -> bytes:
    at, to = sorted(rng.randint(0, len(content)) for _ in range(2))
    short = min(to, at + rng.randint(1, 20))
    middle = rng.choice(
        [
            b"",
            rng.choice(TOKENS),
            rng.randbytes(rng.randint(1, 4)),
            content[at:short] * 2,
            content[at:short] + rng.choice(TOKENS),
            content[at:short].swapcase(),
        ]
    )
    return content[:at] + middle + (b"" if rng.random() < 0.1 else content[short:])


def check(seed: int) -> str:
    """Read the seed's file with a tool: how it ended.

    Raises AssertionError if the books do not balance or files are left behind, and whatever is raised besides errors
    that a user is told.
    """
    name, content, settings = make(seed)
    out_name = random.Random(seed).choice(["out.jsonl", "out.json", "out.csv", "out.parquet"])
    seen: list[Account] = []
    with tempfile.TemporaryDirectory() as folder, patch.object(transform, "print_account", lambda a, _: seen.append(a)):
        path, out = Path(folder) / name, Path(folder) / "out" / out_name
        path.write_bytes(content)
        problem = ""
        try:
            inputs = read_options([str(path)], settings)
            inspect(inputs, 3, None)
            transform.clean(inputs, out)
        except UserError as error:
            problem = str(error)
        assert path.read_bytes() == content
        _check_books(seen, problem)
        _check_files(out, seen, problem)
    if not problem:
        return "read"
    return "stopped early" if seen and seen[0].rows and "rows are bad" in problem else "refused"


def _check_books(seen: list[Account], problem: str) -> None:
    assert len(problem) < 20_000
    assert "Traceback" not in problem
    for account in seen:
        assert account.undecided >= 0
        if not problem or "rows are bad" in problem:
            assert account.undecided == 0, f"{account}: {problem}"
        if "rows are bad" in problem:
            assert (
                f"{account.bad_rows} of {account.rows} rows are bad ({account.bad_rows / account.rows:.1%})" in problem
            )


def _check_files(out: Path, seen: list[Account], problem: str) -> None:
    rejected = out.with_name(f"{out.name}.rejected.jsonl")
    lineage = out.with_name(f"{out.name}.lineage.json")
    left = set(out.parent.iterdir()) if out.parent.exists() else set()
    assert left <= {out, rejected, lineage}
    assert out.exists() == lineage.exists() == (not problem)
    num_rejected = len(rejected.read_bytes().splitlines()) if rejected.exists() else 0
    assert num_rejected >= sum(account.num_rejected for account in seen)
    if out.exists() and out.suffix == ".jsonl":
        assert len(out.read_bytes().split(b"\n")) - 1 == seen[0].records_kept


def sweep(count: int, first: int = 0) -> Counter[str]:
    """How often each end came. Raises AssertionError with the seed and the command that repeats it."""
    ends: Counter[str] = Counter()
    with patch.object(console, "quiet", True):
        for seed in range(first, first + count):
            try:
                ends[check(seed)] += 1
            except Exception as error:
                command = f"python tests/helpers/mutated_files.py 1 {seed}"
                raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}; repeat it: {command}") from error
    return ends


if __name__ == "__main__":
    print(dict(sweep(*map(int, sys.argv[1:]))))
