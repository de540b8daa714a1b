"""Tools that read records and write some of them: convert, clean, pairs, split, stats."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rayrlhf.config import ConfigError
from rayrlhf.data.ingest.account import Account, DataError
from rayrlhf.data.ingest.progress import reading_progress
from rayrlhf.data.ingest.reader import read_records
from rayrlhf.data.ingest.records import Preference, Record
from rayrlhf.data.ingest.sources import Snapshot
from rayrlhf.data.templates import ChatTemplate
from rayrlhf.data.templates.base import encode_answers
from rayrlhf.data.tokens.splits import split_of
from rayrlhf.data.tokens.tokenise import SpelledRows
from rayrlhf.data.tools.options import Inputs
from rayrlhf.data.tools.outputs import Outputs
from rayrlhf.data.tools.report import print_account, print_files, print_statistics
from rayrlhf.data.tools.statistics import SAMPLE, Encode, Statistics
from rayrlhf.data.tools.strata import Strata
from rayrlhf.data.tools.writer import OWN_COLUMNS, OWN_OF_KIND

Rule = Callable[[Iterable[Record], Account], Iterator[Record]]
"""Records → those that stay; the others are counted in the account."""


def transform(
    command: str,
    inputs: Inputs,
    rule: Rule,
    outputs: Mapping[str, Path],
    output_of: Callable[[Record], str] = lambda _: "out",
    *,
    force: bool = False,
    encode: Encode | None = None,
    sample_size: int = SAMPLE,
) -> Account:
    """Read all inputs, apply `rule`, write each record to the output that `output_of` names, and report.

    Rejected rows are written next to the first output, and a lineage file next to each. Without outputs, only reports.
    force: replace files that are there; inputs never are. Raises DataError for an input that cannot be used, after
    the account of what was read of it, and for outputs that cannot be written.
    """
    columns, kind = inputs.config.keep_columns, inputs.kind
    if taken := [name for name in columns if name in (*OWN_COLUMNS, OWN_OF_KIND.get(kind))]:
        raise ConfigError(
            f"keep_columns: {taken[0]!r} is a column of the output: give it another name with columns, for example "
            f"columns.its_{taken[0]}={taken[0]} keep_columns=[its_{taken[0]}]"
        )
    statistics = Statistics(encode, sample_size)
    with ExitStack() as stack:
        files = stack.enter_context(Outputs(outputs, inputs.given, force, columns))
        snapshot = Snapshot(inputs.sources) if outputs else None
        advance = stack.enter_context(reading_progress(f"data {command}", inputs.files))
        account = stack.enter_context(Account(inputs.config.clean.max_reject_share, files.rejected, advance=advance))
        try:
            for record in rule(read_records(inputs.sources, kind, account, columns), account):
                if not record.origin.synthetic:
                    account.keep(record)
                statistics.add(record)
                if files.writers:
                    files.writers[output_of(record)].write(record)
            account.finish()
        except DataError:
            if account.rows:
                print_account(account, kind)
            print_files(files.publish_rejected())
            raise
        written: dict[str, str] = {}
        if snapshot is not None:
            snapshot.check()
            rules = {**inputs.config.model_dump(mode="json"), "read_as": kind}
            written = files.publish(f"rayrlhf data {command}", snapshot.hashes, rules, account)
    print_account(account, kind)
    print_statistics(statistics)
    print_files(written)
    return account


def convert(inputs: Inputs, out: Path, force: bool = False) -> Account:
    """All readable records in one schema, without cleaning."""
    return transform("convert", inputs, lambda records, _: iter(records), {"out": out}, force=force)


def clean(inputs: Inputs, out: Path, force: bool = False) -> Account:
    """The records that pass the cleaning rules."""
    return transform("clean", inputs, inputs.config.clean.clean, {"out": out}, force=force)


def pairs(inputs: Inputs, out: Path, force: bool = False) -> Account:
    """Pairs by the rules of the schema, without cleaning; with `augment`, synthetic negatives too."""
    if inputs.kind != "preferences":
        raise ConfigError(
            f"{min(source.label for source in inputs.sources)}: rows of this schema give {inputs.kind}, not pairs"
        )
    augmentation = inputs.config.augment

    def rule(records: Iterable[Record], account: Account) -> Iterator[Record]:
        kept: list[Preference] = []
        for record in records:
            if augmentation is not None and isinstance(record, Preference):
                kept.append(record)
            yield record
        if augmentation is not None:
            yield from augmentation.make(kept, inputs.config.seed, account)

    return transform("pairs", inputs, rule, {"out": out}, force=force)


def split(
    inputs: Inputs, out: Path, shares: Mapping[str, float], stratify: str | None = None, force: bool = False
) -> Account:
    """One file per share in the folder `out`; no prompt is in two of them.

    stratify: a column of which each value is shared out alike. Without one, rows added later move none of the old ones.
    """
    if out.suffix:
        raise ConfigError(f"--out {out}: split writes several files; name a folder")
    if not abs(sum(shares.values()) - 1) <= 1e-6 or min(shares.values()) <= 0:
        raise ConfigError(f"--shares: {', '.join(f'{k}={v:g}' for k, v in shares.items())} do not add up to 1")
    names, sizes, seed = list(shares), list(shares.values()), inputs.config.seed
    part_of: Callable[[Record], int] = lambda record: split_of(record.prompt, sizes, seed)  # noqa: E731
    if stratify is not None:
        part_of = Strata.of(inputs, stratify, sizes).part_of
    outputs = {name: out / f"{name}.jsonl" for name in names}
    return transform(
        "split", inputs, lambda records, _: iter(records), outputs, lambda record: names[part_of(record)], force=force
    )


def stats(inputs: Inputs, tokenizer: Any, sample_size: int) -> Account:
    """Statistics of the files after cleaning; writes nothing."""
    config = inputs.config
    if tokenizer is None:
        return transform("stats", inputs, config.clean.clean, {}, sample_size=sample_size)
    special = (config.template or ChatTemplate()).special_tokens(tokenizer)
    spelled = SpelledRows(special, config.special_tokens_in_text)

    def rule(records: Iterable[Record], account: Account) -> Iterator[Record]:
        for record in config.clean.clean(records, account):
            spelled.add(record)
            yield record
        account.notes.update(spelled.note)

    encode = partial(encode_answers, tokenizer=tokenizer, special=special, in_text=config.special_tokens_in_text)
    return transform("stats", inputs, rule, {}, encode=encode, sample_size=sample_size)
