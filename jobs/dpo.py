"""Train a policy on preference pairs, without a reward model (DPO).

`python jobs/dpo.py CONFIG.yaml [key.sub=value …]`, or the same under `ray job submit --working-dir . --`.
"""

from pathlib import Path
from typing import Annotated

import typer

from rayrlhf.cli.describe import describe_offline
from rayrlhf.cli.entry import run_job
from rayrlhf.offline.dpo import DPOConfig, run_dpo

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    config: Annotated[Path, typer.Argument(help="settings, a YAML file below configs/dpo/")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key.sub=value, in place of the file's")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print settings and sizes, start nothing")] = False,
) -> None:
    """Train a policy on preference pairs, without a reward model (DPO)."""
    run_job(DPOConfig, config, overrides, dry_run, run_dpo, describe_offline)


if __name__ == "__main__":
    app()
