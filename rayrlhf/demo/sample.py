"""The demo's sample set: short Korean and English exchanges in a polite and a curt register.

The set makes alignment visible in minutes. The register of an SFT row is a fair coin, so after SFT a policy
answers politely about half of the time. Preference pairs favor the polite answer, so PPO should
raise the share that `is_polite` finds. Curt answers may ramble and polite ones may be brief, so rewarding
length is not enough.

Everything is composed from the tables in `phrases` with one seed: the same seed writes the same bytes.
"""

import json
import random
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, product
from typing import Literal

from rayrlhf.demo.phrases import (
    CURT_MARKERS,
    POLITE_MARKERS,
    REGISTERS,
    TOPICS,
    WHENS,
    Language,
    Topic,
)

MAX_COMPLETION_CHARS = 130


@dataclass(frozen=True)
class Question:
    """A prompt and what it was made from. Files hold only the text."""

    text: str
    topic: Topic
    item: str


@dataclass(frozen=True)
class Exchange:
    """One SFT row."""

    prompt: str
    completion: str
    register: Literal["polite", "curt"]
    """Chosen by the generator. For tests; not written to files."""


@dataclass(frozen=True)
class Pair:
    """One preference row: the polite, helpful answer was chosen and the curt one rejected."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class PromptRow:
    """One prompt without an answer."""

    prompt: str


@dataclass(frozen=True)
class Sample:
    """All splits. No prompt appears in two of them, nor twice in one."""

    sft: tuple[Exchange, ...]
    sft_heldout: tuple[Exchange, ...]
    pairs: tuple[Pair, ...]
    pairs_heldout: tuple[Pair, ...]
    prompts: tuple[PromptRow, ...]
    prompts_heldout: tuple[PromptRow, ...]


def make_sample(seed: int = 0) -> Sample:
    """Compose the sample set. Every split holds each of the topics in the same share."""
    rng = random.Random(seed)
    questions = _mixed_questions(rng)

    def take(count: int) -> list[Question]:
        taken = [next(questions) for _ in range(count)]
        rng.shuffle(taken)
        return taken

    return Sample(
        sft=tuple(_exchange(question, rng) for question in take(4000)),
        sft_heldout=tuple(_exchange(question, rng) for question in take(200)),
        pairs=tuple(_pair(question, rng) for question in take(2000)),
        pairs_heldout=tuple(_pair(question, rng) for question in take(300)),
        prompts=tuple(PromptRow(question.text) for question in take(1500)),
        prompts_heldout=tuple(PromptRow(question.text) for question in take(200)),
    )


def every_question() -> tuple[Question, ...]:
    """All prompts that the tables can make, topic by topic."""
    return tuple(
        Question(_render(template, item=item, when=when), topic, item)
        for topic in TOPICS
        for template, item, when in product(topic.questions, topic.items, _whens(topic))
    )


def _whens(topic: Topic) -> tuple[str, ...]:
    return topic.whens or WHENS[topic.language]


def polite_reply(question: Question, rng: random.Random) -> str:
    """A courteous answer with advice on the question's topic, at most `MAX_COMPLETION_CHARS` long."""
    register = REGISTERS[question.topic.language]
    advice = rng.choice(question.topic.advice)
    opener, closer = rng.choice(register.openers), rng.choice(register.closers)
    shape = rng.choices(("brief", "opened", "closed", "full"), weights=(25, 40, 20, 15))[0]
    template = {
        "brief": advice,
        "opened": f"{opener} {advice}",
        "closed": f"{advice} {closer}",
        "full": f"{opener} {advice} {closer}",
    }[shape]
    return _reply(template, question)


def curt_reply(question: Question, rng: random.Random) -> str:
    """A dismissive answer, short or long-winded, at most `MAX_COMPLETION_CHARS` long."""
    register = REGISTERS[question.topic.language]
    shape = rng.choices((register.dismissals, register.grumbles), weights=(60, 40))[0]
    return _reply(rng.choice(shape), question)


def is_polite(text: str) -> bool:
    """Whether `text` sounds like the polite register: at least one polite marker and no curt one.

    The rule knows the generator's phrases (`POLITE_MARKERS`, `CURT_MARKERS`) and nothing else: it measures text by
    models trained on this set, not courtesy in general. It ignores punctuation, letter case and Korean spacing, and
    tolerates truncated text and broken UTF-8. An empty text, or one cut off before its first marker, is not polite.
    English markers match whole words, Korean ones any run of syllables.
    """
    return _carries(POLITE_MARKERS, text) and not _carries(CURT_MARKERS, text)


def sample_files(sample: Sample) -> dict[str, str]:
    """File name → JSON Lines text. Keys are sorted, Korean is left readable."""
    splits: dict[str, Sequence[Exchange | Pair | PromptRow]] = {
        "sft.jsonl": sample.sft,
        "sft_heldout.jsonl": sample.sft_heldout,
        "pairs.jsonl": sample.pairs,
        "pairs_heldout.jsonl": sample.pairs_heldout,
        "prompts.jsonl": sample.prompts,
        "prompts_heldout.jsonl": sample.prompts_heldout,
    }
    return {name: "".join(map(_line, rows)) for name, rows in splits.items()}


def _line(row: Exchange | Pair | PromptRow) -> str:
    record = {key: value for key, value in asdict(row).items() if key != "register"}
    return json.dumps(record, ensure_ascii=False, sort_keys=True) + "\n"


def _mixed_questions(rng: random.Random) -> Iterator[Question]:
    """Every question once, in random order but with the topics in turn, so that any slice is balanced."""
    groups: dict[tuple[str, Language], list[Question]] = {}
    for question in every_question():
        groups.setdefault((question.topic.name, question.topic.language), []).append(question)
    for group in groups.values():
        rng.shuffle(group)
    return chain.from_iterable(zip(*groups.values(), strict=True))


def _exchange(question: Question, rng: random.Random) -> Exchange:
    if rng.random() < 0.5:
        return Exchange(question.text, polite_reply(question, rng), "polite")
    return Exchange(question.text, curt_reply(question, rng), "curt")


def _pair(question: Question, rng: random.Random) -> Pair:
    return Pair(question.text, chosen=polite_reply(question, rng), rejected=curt_reply(question, rng))


def _reply(template: str, question: Question) -> str:
    topic = question.topic
    reply = _render(template, item=topic.mention.format(item=question.item), label=topic.label)
    assert len(reply) <= MAX_COMPLETION_CHARS, reply
    return reply


def _render(template: str, **slots: str) -> str:
    """Fill the slots, choose particles, remove the spaces of empty slots, and capitalize sentences."""
    text = re.sub(r"(.)\[(\w+)/(\w+)\]", _particle, template.format(**slots))
    text = re.sub(r"\s+(?=[.,?!])", "", " ".join(text.split()))
    return re.sub(r"(?:^|[.?!] )[a-z]", lambda start: start[0].upper(), text)


def _particle(match: re.Match[str]) -> str:
    """Choose the particle after a Hangul syllable: U+AC00 + 28·k + final, where final 0 is none."""
    syllable, after_consonant, after_vowel = match.groups()
    has_final = (ord(syllable) - 0xAC00) % 28 != 0
    return syllable + (after_consonant if has_final else after_vowel)


def _carries(markers: Mapping[Language, Sequence[str]], text: str) -> bool:
    text = unicodedata.normalize("NFC", text).casefold()
    english = f" {' '.join(re.findall(r'[a-z]+', text))} "
    korean = "".join(re.findall(r"[가-힣]", text))
    return any(f" {marker} " in english for marker in markers["en"]) or any(
        marker.replace(" ", "") in korean for marker in markers["ko"]
    )
