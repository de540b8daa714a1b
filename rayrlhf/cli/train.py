"""`rayrlhf train` and its aliases below `jobs/`: read a configuration, then show or run what it asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from rayrlhf.cli.entry import user_errors
from rayrlhf.cli.stages import STAGES, stage_of
from rayrlhf.config import parse_config, read_settings
from rayrlhf.metrics import console

ConfigFile = Annotated[Path, typer.Argument(help="YAML file whose `stage:` says what to train")]
Overrides = Annotated[list[str] | None, typer.Argument(help="key.sub=value, in place of the file's")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="print the resolved settings and sizes, start nothing")]


def train(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Train what CONFIG says: SFT, a reward model, DPO or PPO."""
    _train(config, overrides, dry_run, job=None)


def job(stage: str) -> None:
    """The command line of `jobs/STAGE.py`: `rayrlhf train`, for files of this stage only."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

    @app.command(help=f"`rayrlhf train` for configurations of stage {stage}.")
    def main(config: ConfigFile, overrides: Overrides = None, dry_run: DryRun = False) -> None:
        _train(config, overrides, dry_run, stage)

    app()


def _train(path: Path, overrides: list[str] | None, dry_run: bool, job: str | None) -> None:
    with user_errors():
        tree = read_settings(path, overrides or ())
        stage = STAGES[stage_of(path, tree, job)]()
        config = parse_config(stage.config, tree, source=str(path))
        if dry_run:
            console.print(_dump({"config": config.model_dump(mode="json"), **stage.describe(config)}))
        else:
            stage.run(config)


def _dump(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
