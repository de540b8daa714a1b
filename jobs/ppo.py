"""Train a policy with PPO against a reward model.

`python jobs/ppo.py CONFIG.yaml [key.sub=value …]`, or the same under `ray job submit --working-dir . --`.
"""

from pathlib import Path
from typing import Annotated

import typer

from rayrlhf.cli.describe import describe_ppo
from rayrlhf.cli.entry import run_job
from rayrlhf.ppo.config import PPOConfig
from rayrlhf.ppo.loop import run_ppo

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[Path, typer.Argument(help="settings, a YAML file below configs/ppo/")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, in place of the file's")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print settings and sizes, start nothing")] = False,
) -> None:
    """Train a policy with PPO against a reward model."""
    run_job(PPOConfig, config, overrides, dry_run, run_ppo, describe_ppo)


if __name__ == "__main__":
    app()
