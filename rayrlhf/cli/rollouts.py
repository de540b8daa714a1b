"""`rayrlhf status` and `rayrlhf rollouts`: a running job's samplers, seen and resized from outside."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from rayrlhf.cli.entry import user_errors

app = typer.Typer(no_args_is_help=True, help="The samplers of a running job.")

Run = Annotated[str, typer.Option(help="run.name of a job that is alive")]


@app.command()
def scale(num_samplers: Annotated[int, typer.Argument(help="samplers from now on, 1 or more")], run: Run) -> None:
    """Change the number of samplers of a running job; the others do not pause."""
    from rayrlhf.ppo import pool_actor

    with user_errors():
        before = pool_actor.scale(run, num_samplers)
        typer.echo(f"{run}: requested {num_samplers} samplers (before: {before}); see `rayrlhf status --run {run}`")


def status(run: Run, json: Annotated[bool, typer.Option(help="as JSON, for programs")] = False) -> None:
    """Show a running job: its step, its samplers with their weight versions, its ledger, and where the time goes."""
    from rayrlhf.ppo import pool_actor
    from rayrlhf.ppo.status import print_status

    with user_errors():
        loop, pool = pool_actor.status(run)
        if json:
            import json as encoder

            typer.echo(encoder.dumps({"run": run, "loop": asdict(loop), "rollouts": asdict(pool)}, indent=2))
        else:
            print_status(run, loop, pool)
