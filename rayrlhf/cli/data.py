"""`rayrlhf data`: look at data files, convert, clean, pair and split them. The jobs read files by the same rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rayrlhf.cli.entry import file_errors
from rayrlhf.config import ConfigError

app = typer.Typer(no_args_is_help=True, help=__doc__)

Inputs = Annotated[
    list[str],
    typer.Argument(
        help="files, folders, patterns such as 'data/*.jsonl', - for standard input, or "
        "hf:NAME[:SPLIT][,subset=…][,revision=…][,data_dir=…] for a Hugging Face data set"
    ),
]
Out = Annotated[Path, typer.Option(help=".jsonl, .json, .csv or .parquet file to write")]
Force = Annotated[bool, typer.Option("--force", help="replace files that are there; inputs never are")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        help="a setting, as key=value: format, columns.FIELD, keep_columns, rules.ranking_is, rules.min_score, "
        "decoding.encoding, table.delimiter, table.header, clean.min_prompt_chars, clean.near_duplicates.kind, "
        "read_as, max_rows, seed, …; may be repeated",
    ),
]
Model = Annotated[str | None, typer.Option(help="model folder whose tokenizer counts tokens and renders chats")]


@app.command()
def inspect(
    inputs: Inputs,
    rows: Annotated[int, typer.Option(min=1, max=10_000, help="records to show of each input")] = 3,
    model: Model = None,
    settings: Settings = None,
) -> None:
    """Show the schema of each input and its first records, rendered with the template, what is trained in color."""
    with file_errors():
        from rayrlhf.data.tools.inspect import inspect

        inspect(_read(inputs, settings), rows, _tokenizer(model))


@app.command()
def convert(inputs: Inputs, out: Out, force: Force = False, settings: Settings = None) -> None:
    """Write all rows under one schema: {prompt, completion}, {prompt, chosen, rejected}, {prompt} or {messages}."""
    with file_errors():
        from rayrlhf.data.tools.transform import convert

        convert(_read(inputs, settings), out, force)


@app.command()
def clean(inputs: Inputs, out: Out, force: Force = False, settings: Settings = None) -> None:
    """Write the rows that the cleaning rules leave, and those that they reject with their reasons."""
    with file_errors():
        from rayrlhf.data.tools.transform import clean

        clean(_read(inputs, settings), out, force)


@app.command()
def pairs(inputs: Inputs, out: Out, force: Force = False, settings: Settings = None) -> None:
    """Make pairs {prompt, chosen, rejected} of rankings, choices, scores or ratings, by the rule of their schema."""
    with file_errors():
        from rayrlhf.data.tools.transform import pairs

        pairs(_read(inputs, ["read_as=preferences", *(settings or [])]), out, force)


@app.command()
def split(
    inputs: Inputs,
    out: Annotated[Path, typer.Option(help="folder to write into")],
    shares: Annotated[str, typer.Option(help="name=share of each part")] = "train=0.9,heldout=0.1",
    stratify: Annotated[str | None, typer.Option(help="column of which each value has the same shares")] = None,
    force: Force = False,
    settings: Settings = None,
) -> None:
    """Split rows by prompt: no prompt is in two parts, and, without --stratify, rows added later move none of the old
    ones."""
    with file_errors():
        from rayrlhf.data.tools.transform import split

        split(_read(inputs, settings), out, _shares(shares), stratify, force)


@app.command()
def leaks(
    inputs: Inputs,
    near: Annotated[
        float | None,
        typer.Option(min=0.01, max=1.0, help="cosine from which prompts count as near; not looked for without"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON lines of all leaks")] = None,
    drop: Annotated[
        Path | None, typer.Option(help="file to write the last input to, without rows whose prompts leak")
    ] = None,
    force: Force = False,
    settings: Settings = None,
) -> None:
    """Find prompts that are in two of the inputs. Exit status 1 if any are left."""
    with file_errors():
        from rayrlhf.data.tools.leaks import leaks

        read = _read(inputs, settings)
        if len(read.sources) < 2:
            raise ConfigError("leaks compares files: give at least two")
        if leaks(read, near, out, drop, force):
            raise typer.Exit(1)


@app.command()
def stats(
    inputs: Inputs,
    model: Model = None,
    sample: Annotated[int, typer.Option(min=1, help="records to count tokens and languages of")] = 2000,
    settings: Settings = None,
) -> None:
    """Rows, what cleaning would reject, lengths and languages. Writes nothing."""
    with file_errors():
        from rayrlhf.data.tools.transform import stats

        stats(_read(inputs, settings), _tokenizer(model), sample)


def _read(inputs: list[str], settings: list[str] | None) -> Any:
    from rayrlhf.data.tools.options import read_options

    return read_options(inputs, settings or [])


def _tokenizer(model: str | None) -> Any:
    if model is None:
        return None
    from rayrlhf.models import load_tokenizer
    from rayrlhf.run_directory import resolve

    return load_tokenizer(resolve(model))


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise ConfigError(f"--shares {text}: write it as train=0.9,heldout=0.1") from None
        if not name.strip().isidentifier():
            raise ConfigError(f"--shares {text}: {name.strip()!r} is no name for a file")
    return shares
