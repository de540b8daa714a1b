"""A few records as the model will see them: cleaned, rendered with the template, each part under its name."""

from __future__ import annotations

from itertools import islice
from typing import Any

from rich.text import Text

from rayrlhf.data.ingest.account import Account, Rejected
from rayrlhf.data.ingest.reader import NEEDED, columns_of, read_records, recognize
from rayrlhf.data.ingest.records import LabeledAnswer, Preference, PromptText, Record
from rayrlhf.data.templates import ChatTemplate, Template
from rayrlhf.data.templates.base import TextTemplate
from rayrlhf.data.tokens.tokenise import DONE, SequenceLimit, tokenize
from rayrlhf.data.tools.options import Inputs
from rayrlhf.metrics import console, harmless

NOT_TRAINED, TRAINED, REJECTED = "bright_black", "green", "red"
NO_LIMIT = SequenceLimit(max_tokens=2**31)


def inspect(inputs: Inputs, num_records: int, tokenizer: Any) -> None:
    """Print each input's schema and its first records that cleaning leaves."""
    for source in inputs.sources:
        row_format = recognize(source, inputs.config.keep_columns)
        console.print(f"{source.label}: {row_format.name}, read as {inputs.kind}", style="bold")
        columns = columns_of(source, row_format, inputs.config.keep_columns)
        kinds = ", ".join(kind for kind in NEEDED if row_format.can_give(kind))
        console.print(f"columns: {', '.join(columns.read)}; can be read as {kinds}")
        if columns.unread:
            console.print(f"columns that nothing reads, in the first rows: {columns}")
        account = Account()
        records = inputs.config.clean.clean(
            read_records([source], inputs.kind, account, inputs.config.keep_columns), account
        )
        for record in islice(records, num_records):
            console.print(f"\n{record.origin.unit} {record.origin.place}{_lineage(record)}", style="bold")
            console.print(_with_tokens(record, inputs, tokenizer) if tokenizer else _as_text(record, inputs))
            if tokenizer:
                _name_special_token(record, inputs, tokenizer)
        for reason, count in account.rejected.most_common():
            console.print(f"left out before these: {count} {reason}, for example {account.examples[reason]}")
    if tokenizer is None:
        console.print("\ntext only: with --model you see the model's own tokens and template")


def _lineage(record: Record) -> str:
    parts = [part for part in (record.origin.rule, *record.origin.notes) if part]
    return f" ({', '.join(parts)})" if parts else ""


def _answer_parts(record: Record) -> list[tuple[str, str]]:
    """(name, style) of each answer."""
    if isinstance(record, LabeledAnswer):
        return [("good answer", TRAINED) if record.desirable else ("bad answer", REJECTED)]
    if isinstance(record, Preference):
        return [("chosen", TRAINED), ("rejected", REJECTED)]
    return [("answer", TRAINED)] * len(record.answers)


def _template(inputs: Inputs) -> Template:
    return inputs.config.template or ChatTemplate()


def _with_tokens(record: Record, inputs: Inputs, tokenizer: Any) -> Text:
    """Decoded from the token ids that training uses, with their number."""
    template, in_text = _template(inputs), inputs.config.special_tokens_in_text
    try:
        if inputs.kind == "prompts":
            return _part("prompt", template.encode(record.prompt, tokenizer, in_text), NOT_TRAINED, tokenizer)
        (rows,) = tokenize([record], template, tokenizer, NO_LIMIT, in_text)
    except Rejected as rejection:
        rows = rejection
    if isinstance(rows, Rejected):
        return Text(f"{rows.reason}: {rows.detail}")
    shown = _part("prompt", rows[0][0], NOT_TRAINED, tokenizer)
    for (_, answer), (name, style) in zip(rows, _answer_parts(record), strict=True):
        shown.append_text(_part(name, answer, style, tokenizer))
    return shown


def _name_special_token(record: Record, inputs: Inputs, tokenizer: Any) -> None:
    """A control token and the same in plain text look alike: say which it is."""
    done = inputs.config.special_tokens_in_text
    spelled = _template(inputs).special_tokens(tokenizer).find(record.texts)
    if spelled and done != "reject":  # what is rejected says so already
        console.print(f"special tokens in the text, {DONE[done]}: {spelled}")


def _part(name: str, ids: list[int], style: str, tokenizer: Any) -> Text:
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return Text.assemble((f"{name}, {len(ids)} tokens:\n", "bold"), (harmless(text), style), "\n")


def _as_text(record: Record, inputs: Inputs) -> Text:
    shown = Text.assemble(("prompt:\n", "bold"), (harmless(_render(record.prompt, inputs)), NOT_TRAINED), "\n")
    for answer, (name, style) in zip(record.answers, _answer_parts(record), strict=True):
        shown.append_text(Text.assemble((f"{name}:\n", "bold"), (harmless(answer), style), "\n"))
    return shown


def _render(prompt: PromptText, inputs: Inputs) -> str:
    template = inputs.config.template
    if isinstance(template, TextTemplate):
        try:
            return template.render(prompt)
        except Rejected as rejection:
            return f"{rejection.reason}: {rejection.detail}\n"
    turns = [f"{message.role}: {message.content}" for message in prompt.messages]
    return "\n".join([*turns, *([prompt.context] if prompt.context else []), "assistant: "])
