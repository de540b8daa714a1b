"""`rayrlhf config`: look at configuration files without starting anything."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rayrlhf.cli.entry import user_errors

app = typer.Typer(no_args_is_help=True, help="Check configuration files.")


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="YAML file below configs/STAGE/")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, in place of the file's")] = None,
    stage: Annotated[
        str | None, typer.Option(help="sft, reward_model, dpo or ppo; the file's folder says it otherwise")
    ] = None,
) -> None:
    """Read a configuration as its job would, and print which rows its preset set."""
    with user_errors():
        from rayrlhf.cli.check import check_config

        for line in check_config(config, overrides or [], stage or config.absolute().parent.name):
            typer.echo(line)
