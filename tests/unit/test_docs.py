"""What documents tell people to type exists. `tests/e2e/test_docs.py` runs it."""

import re
import shlex
from collections.abc import Sequence
from typing import Any

import pytest
import typer.main
from shell_blocks import DOCUMENTS, ROOT, STARTS, Block, blocks, shell_blocks

from rayrlhf.cli import app
from rayrlhf.config import read_settings

BLOCKS = list(shell_blocks())
ALL_COMMANDS = [(block, words) for block in BLOCKS for words in block.commands]


def rayrlhf_words(words: Sequence[str]) -> list[str] | None:
    """What a command gives to `rayrlhf`, directly or as a job; None if it is another command."""
    words = list(words)
    if words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :]
    if words[:2] == ["cluster/local.sh", "submit"]:
        words = words[2:]
    if words[0] == "python" and words[1].startswith("jobs/"):
        return ["train", *words[2:]]
    return words[1:] if words[0] == "rayrlhf" else None


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The typer command that the words name, and the words that are left for it."""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        assert words[0] in command.commands, f"rayrlhf has no {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    return command, words


@pytest.mark.parametrize(("block", "words"), ALL_COMMANDS, ids=lambda value: getattr(value, "name", None))
def test_a_command_of_the_docs_has_this_subcommand_and_these_options(block: Block, words: list[str]) -> None:
    given = rayrlhf_words(words)
    if given is None:
        return
    command, arguments = command_of([word for word in given if word not in (">", "/dev/null")])
    command.make_context(command.name, arguments)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_the_text_exist_too(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for quoted in re.findall(r"`rayrlhf ([a-z][^`]*)`", text):
        command, arguments = command_of([word for word in shlex.split(quoted) if "…" not in word])
        options = {name for parameter in command.params for name in getattr(parameter, "opts", [])}
        assert {word for word in arguments if word.startswith("-")} <= options, quoted


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_of_the_repository_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:configs|jobs|data/sample)/[\w/]+\.\w+", text):
        assert (ROOT / name).is_file(), name


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_to_files_and_headings_that_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for path, heading in re.findall(r"\]\(([^)#:\s]*)(?:#([^)]*))?\)", text):
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), path
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, heading


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_that_a_document_names_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for name in re.findall(r"`([a-z][\w/]*/\w+\.py)`|`((?:engines|pool|ppo|tests)/[\w/]*)`", text):
        path = "".join(name)
        assert (ROOT / path).exists() or (ROOT / "rayrlhf" / path).exists(), path


def test_jobs_in_the_docs_get_configurations_of_their_own_stage() -> None:
    for block, words in ALL_COMMANDS:
        jobs = [word for word in words if word.startswith("jobs/")]
        configs = [word for word in words if word.startswith("configs/")]
        if jobs and configs:
            assert jobs == [f"jobs/{read_settings(ROOT / configs[0])['stage']}.py"], block.name


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.not_run is not None], ids=lambda b: b.name)
def test_a_block_that_no_test_runs_says_why(block: Block) -> None:
    assert block.not_run and re.search("needs|tests", block.not_run)


def test_most_commands_are_run() -> None:
    assert len([words for block, words in ALL_COMMANDS if block.not_run is None]) > 25


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_stand_in_blocks_that_say_so(document: str) -> None:
    for block in blocks(document):
        if block.language != "bash":
            assert not [line for line in block.text.splitlines() if line.split(" ")[0] in STARTS], block.name
