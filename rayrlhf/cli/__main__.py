"""`python -m rayrlhf.cli` is `rayrlhf`."""

from rayrlhf.cli import app

app()
