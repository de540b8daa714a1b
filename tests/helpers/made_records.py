"""Records as a reader makes them of a file's rows: the fewest words that a test needs."""

from typing import Any

from rayrlhf.data.ingest.records import Answer, Origin, Preference, PromptText, Record


def at(line: int, **origin: Any) -> Origin:
    return Origin("rows.jsonl", line, **origin)


def prompt(text: str, line: int = 1, **origin: Any) -> Record:
    return Record(PromptText.of(text), origin=at(line, **origin))


def answer(text: str, line: int = 1, asked: str = "안녕하세요?", **origin: Any) -> Answer:
    return Answer(PromptText.of(asked), text, origin=at(line, **origin))


def pair(chosen: str, rejected: str, line: int = 1, asked: str = "안녕하세요?", **origin: Any) -> Preference:
    return Preference(PromptText.of(asked), chosen, rejected, origin=at(line, **origin))
