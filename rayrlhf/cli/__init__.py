"""The `rayrlhf` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rayrlhf.cli.config import app as config_app
from rayrlhf.cli.data import app as data_app
from rayrlhf.cli.entry import user_errors
from rayrlhf.cli.rollouts import app as rollouts_app
from rayrlhf.cli.rollouts import status
from rayrlhf.cli.train import train

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
model_app = typer.Typer(no_args_is_help=True, help="Make models.")
app.add_typer(model_app, name="model")
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(rollouts_app, name="rollouts")
app.command()(train)
app.command()(status)


@app.command()
def doctor() -> None:
    """Check this machine: versions and their pairing, cores, memory, disk, GPU, Ray and its authentication."""
    from rayrlhf.cluster.doctor import print_checks, run_checks

    with user_errors():
        if not print_checks(run_checks()):
            raise typer.Exit(1)


@app.command()
def up(
    port: Annotated[int, typer.Option(help="port of the cluster's control service")] = 6379,
    dashboard_port: Annotated[int, typer.Option(help="port of the dashboard and of `ray job submit`")] = 8265,
    num_cpus: Annotated[int | None, typer.Option(help="cores to offer; all by default")] = None,
    host: Annotated[
        str, typer.Option(help="this machine's address for other machines of the cluster; by default there are none")
    ] = "127.0.0.1",
    timeout_s: Annotated[float, typer.Option(help="seconds to wait for it")] = 120.0,
) -> None:
    """Start a Ray cluster on this machine, with authentication on; runs go to ./runs."""
    from rayrlhf.cluster import connection, local

    with user_errors():
        local.up(port=port, dashboard_port=dashboard_port, num_cpus=num_cpus, host=host, timeout_s=timeout_s)
        typer.echo("for `ray job submit`, set in your shell:")
        for name, value in connection.client_environment().items():
            typer.echo(f"  export {name}={value}")


@app.command()
def down() -> None:
    """Stop the cluster that `rayrlhf up` started, and nothing else."""
    from rayrlhf.cluster import local

    with user_errors():
        local.down()


@model_app.command("init")
def model_init(
    out: Annotated[Path, typer.Argument(help="folder to write")],
    texts: Annotated[list[Path] | None, typer.Argument(help="files to train the tokenizer on")] = None,
    tokenizer: Annotated[Path | None, typer.Option(help="use this folder's tokenizer instead")] = None,
    architecture: Annotated[str, typer.Option(help="qwen2 or llama")] = "qwen2",
    vocab_size: int = 2048,
    hidden_size: int = 256,
    num_layers: int = 4,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    intermediate_size: int = 768,
    max_length: Annotated[int, typer.Option(help="longest sequence, in tokens")] = 512,
    tie_embeddings: bool = True,
    seed: int = 0,
) -> None:
    """Make a small model from nothing, with a byte-level BPE tokenizer trained on TEXTS."""
    from rayrlhf.config import parse_config
    from rayrlhf.models.init import ModelShape, init_model_folder
    from rayrlhf.models.texts import read_texts

    shape = {
        "architecture": architecture,
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "intermediate_size": intermediate_size,
        "max_length": max_length,
        "tie_embeddings": tie_embeddings,
        "seed": seed,
    }
    with user_errors():
        parameters = init_model_folder(
            out, parse_config(ModelShape, shape, source="model init"), read_texts(texts or []), tokenizer
        )
    typer.echo(f"{out}: {parameters / 1e6:.1f}M parameters")


Temperature = Annotated[float, typer.Option(help="0 is greedy")]
Dtype = Annotated[
    Literal["auto", "float32", "bfloat16"], typer.Option(help="auto is float32 on CPU and bfloat16 on a GPU")
]


@app.command()
def generate(
    model: Annotated[str, typer.Argument(help="model folder")],
    prompts: Annotated[list[str], typer.Argument(help="one prompt each")],
    template: Annotated[str, typer.Option(help="chat, kochatgpt or kullm")] = "chat",
    temperature: Temperature = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    max_completion_length: Annotated[
        int | None, typer.Option(help="tokens of an answer; by default 128, or what the prompt leaves")
    ] = None,
    seed: int = 0,
    dtype: Dtype = "auto",
) -> None:
    """Answer prompts with a model, through the engine that the samplers use."""
    with user_errors():
        from rayrlhf.cli.talk import generate, load

        talker = load(model, template, temperature, top_p, top_k, max_completion_length, 128)
        generate(talker, prompts, seed, dtype)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="model folder")],
    temperature: Temperature = 0.7,
    max_completion_length: Annotated[
        int | None, typer.Option(help="tokens of an answer; by default 256, or what the conversation leaves")
    ] = None,
    dtype: Dtype = "auto",
) -> None:
    """Talk to a model with its chat template. Ctrl-C ends an answer; an empty line or end of input ends the chat."""
    with user_errors():
        from rayrlhf.cli.talk import chat, load

        chat(load(model, "chat", temperature, 1.0, 0, max_completion_length, 256), dtype)
