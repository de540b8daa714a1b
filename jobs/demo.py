"""The demo: a small model from nothing through SFT, reward model and PPO on this machine. `make demo` runs it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rayrlhf.cli.entry import user_errors
from rayrlhf.demo.job import run_demo

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(runs: Annotated[Path, typer.Option(help="folder for the runs")] = Path("runs")) -> None:
    """Train through all three stages and show what changed."""
    with user_errors():
        sys.exit(0 if run_demo(runs) else 1)


if __name__ == "__main__":
    app()
