"""Tools that read records and write some of them: convert, clean, pairs, split, stats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rayrlhf.config import ConfigError
from rayrlhf.data.ingest.account import Account, DataError, RejectedFile
from rayrlhf.data.ingest.progress import reading_progress
from rayrlhf.data.ingest.reader import read_records
from rayrlhf.data.ingest.records import Preference, Record
from rayrlhf.data.tokens.splits import split_of
from rayrlhf.data.tools.options import Inputs
from rayrlhf.data.tools.report import print_account, print_files, print_statistics
from rayrlhf.data.tools.statistics import SAMPLE, Statistics
from rayrlhf.data.tools.writer import RecordWriter, write_lineage

Rule = Callable[[Iterable[Record], Account], Iterator[Record]]
"""Records → those that stay; the others are counted in the account."""


def transform(
    command: str,
    inputs: Inputs,
    rule: Rule,
    outputs: Mapping[str, Path],
    output_of: Callable[[Record], str],
    tokenizer: Any = None,
    sample_size: int = SAMPLE,
) -> Account:
    """Read all inputs, apply `rule`, write each record to the output that `output_of` names, and report.

    Rejected rows are written next to the first output, and a lineage file next to each. Without outputs, only reports.
    """
    first = next(iter(outputs.values()), None)
    rejected = RejectedFile(first.with_name(f"{first.name}.rejected.jsonl")) if first else None
    if rejected:
        rejected.path.unlink(missing_ok=True)  # of an earlier run
    statistics = Statistics(tokenizer, sample_size)
    with ExitStack() as stack:
        advance = stack.enter_context(reading_progress(f"data {command}", inputs.files))
        account = stack.enter_context(Account(inputs.config.clean.max_reject_share, rejected, advance=advance))
        try:
            writers = {name: stack.enter_context(RecordWriter(path)) for name, path in outputs.items()}
            for record in rule(read_records(inputs.sources, inputs.kind, account), account):
                if not record.origin.synthetic:
                    account.keep(record)
                statistics.add(record)
                if writers:
                    writers[output_of(record)].write(record)
            account.finish()
        except DataError:
            if account.rows:
                print_account(account, inputs.kind)
            raise
    print_account(account, inputs.kind)
    print_statistics(statistics)
    written: dict[str, str] = {}
    if outputs:
        sources = {source.label: source.content_hash() for source in inputs.sources}
        for name, path in outputs.items():
            rules = {**inputs.config.model_dump(mode="json"), "read_as": inputs.kind, "output": name}
            written[name] = f"{path} ({writers[name].num_records:,} {inputs.kind})"
            written[f"{name} lineage"] = str(write_lineage(path, f"rayrlhf data {command}", sources, rules, account))
    if rejected and rejected.path.exists():
        written["rejected rows"] = str(rejected.path)
    print_files(written)
    return account


def convert(inputs: Inputs, out: Path) -> Account:
    """All readable records in one schema, without cleaning."""
    return transform("convert", inputs, lambda records, _: iter(records), {"out": out}, lambda _: "out")


def clean(inputs: Inputs, out: Path) -> Account:
    """The records that pass the cleaning rules."""
    return transform("clean", inputs, inputs.config.clean.clean, {"out": out}, lambda _: "out")


def pairs(inputs: Inputs, out: Path) -> Account:
    """Pairs by the rules of the schema, without cleaning; with `augment`, synthetic negatives too."""
    if inputs.kind != "preferences":
        raise ConfigError(f"{inputs.sources[0].label}: rows of this schema give {inputs.kind}, not pairs")
    augmentation = inputs.config.augment

    def rule(records: Iterable[Record], account: Account) -> Iterator[Record]:
        kept: list[Preference] = []
        for record in records:
            if augmentation is not None and isinstance(record, Preference):
                kept.append(record)
            yield record
        if augmentation is not None:
            yield from augmentation.make(kept, inputs.config.seed, account)

    return transform("pairs", inputs, rule, {"out": out}, lambda _: "out")


def split(inputs: Inputs, out: Path, shares: Mapping[str, float]) -> Account:
    """One file per share in the folder `out`; no prompt is in two of them."""
    if out.suffix:
        raise ConfigError(f"--out {out}: split writes several files; name a folder")
    if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) <= 0:
        raise ConfigError(f"--shares: {', '.join(f'{k}={v:g}' for k, v in shares.items())} do not add up to 1")
    names = list(shares)

    def output_of(record: Record) -> str:
        return names[split_of(record.prompt, list(shares.values()), inputs.config.seed)]

    outputs = {name: out / f"{name}.jsonl" for name in names}
    return transform("split", inputs, lambda records, _: iter(records), outputs, output_of)


def stats(inputs: Inputs, tokenizer: Any, sample_size: int) -> Account:
    """Statistics of the files after cleaning; writes nothing."""
    return transform("stats", inputs, inputs.config.clean.clean, {}, lambda _: "", tokenizer, sample_size)
