"""`rayrlhf config`: look at configuration files without starting anything."""

from __future__ import annotations

import typer

from rayrlhf.cli.entry import user_errors
from rayrlhf.cli.train import ConfigFile, Overrides

app = typer.Typer(no_args_is_help=True, help="Check configuration files.")


@app.command()
def check(config: ConfigFile, overrides: Overrides = None) -> None:
    """Read a configuration as `rayrlhf train` would, and print which settings its preset set."""
    from rayrlhf.cli.check import check_config

    with user_errors():
        for line in check_config(config, overrides or []):
            typer.echo(line)
