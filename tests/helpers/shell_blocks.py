"""The shell blocks of the project's documents, in the order in which a newcomer runs them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "data/README.md", *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
             "cluster/README.md")  # fmt: skip
NOT_RUN = re.compile(r"<!-- not run:(.*)-->")
STARTS = ("rayrlhf", "python", "ray", "make", "kubectl", "cluster/local.sh")
"""What commands of these documents begin with."""


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    document: str
    line: int
    """Of its first command."""
    language: str
    text: str
    not_run: str | None
    """Why no test runs it, as `<!-- not run: … -->` above the block says; None if one does."""

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command; heredocs, variables and control words are left out."""
        text = re.sub(r"<< '(\w+)'\n.*?\n\1\n", "\n", self.text, flags=re.S).replace("\\\n", " ")
        found: list[list[str]] = []
        for line in text.splitlines():
            found.append([])
            shell = shlex.shlex(line, posix=True, punctuation_chars=True)
            shell.whitespace_split = True
            for word in shell:
                if word in ("until", "do"):
                    continue
                if set(word) <= set(";&|"):
                    found.append([])
                else:
                    found[-1].append(word)
        return [words for words in found if words and words[0] in STARTS]


def blocks(document: str) -> list[Block]:
    """All fenced blocks of a document, of any language."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    found, start = [], None
    for index, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = index
            continue
        marker = NOT_RUN.fullmatch(lines[start - 1].strip()) if start else None
        text = "\n".join(lines[start + 1 : index]) + "\n"
        reason = marker[1].strip() if marker else None
        found.append(Block(document, start + 2, lines[start].removeprefix("```"), text, reason))
        start = None
    assert start is None, f"{document}:{start}: a block without end"
    return found


def shell_blocks() -> Iterator[Block]:
    """Those of all documents that hold commands."""
    for document in DOCUMENTS:
        yield from (block for block in blocks(document) if block.language == "bash")
