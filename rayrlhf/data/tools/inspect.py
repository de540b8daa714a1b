"""A few records as the model will see them: rendered with the template, trained tokens in color."""

from __future__ import annotations

from itertools import islice
from typing import Any

from rich.text import Text

from rayrlhf.data.ingest.account import Account, Rejected
from rayrlhf.data.ingest.reader import read_records, recognize
from rayrlhf.data.ingest.records import PromptText, Record
from rayrlhf.data.templates import ChatTemplate
from rayrlhf.data.templates.base import TextTemplate
from rayrlhf.data.tokens.tokenise import SequenceLimit, tokenize
from rayrlhf.data.tools.options import Inputs
from rayrlhf.data.tools.report import console

NOT_TRAINED, TRAINED, REJECTED = "bright_black", "green", "red"
STYLES = {"prompts": (NOT_TRAINED,), "answers": (TRAINED,), "preferences": (TRAINED, REJECTED)}
NO_LIMIT = SequenceLimit(max_tokens=2**31)


def inspect(inputs: Inputs, num_records: int, tokenizer: Any) -> None:
    """Print each input's schema and its first records."""
    for source in inputs.sources:
        row_format = recognize(source)
        console.print(f"{source.label}: {row_format.name}, read as {inputs.kind}", style="bold", markup=False)
        fields, kinds = ", ".join(sorted(row_format.required())), ", ".join(row_format.gives)
        console.print(f"fields: {fields}; can be read as {kinds}")
        account = Account()
        for record in islice(read_records([source], inputs.kind, account), num_records):
            console.print(f"\n[bold]{record.origin.unit} {record.origin.place}[/]" + _lineage(record))
            console.print(_with_tokens(record, inputs, tokenizer) if tokenizer else _as_text(record, inputs))
        if account.rejected:
            console.print(f"rejected so far: {account}", markup=False)
    console.print(
        Text.assemble(
            "\ncolours: ", ("not trained", NOT_TRAINED), ", ", ("trained", TRAINED), ", ", ("rejected answer", REJECTED)
        )
    )


def _lineage(record: Record) -> str:
    parts = [part for part in (record.origin.rule, *record.origin.notes) if part]
    return f" ({', '.join(parts)})" if parts else ""


def _with_tokens(record: Record, inputs: Inputs, tokenizer: Any) -> Text:
    """Decoded from the token ids and mask that training uses, with token counts."""
    template = inputs.config.template or ChatTemplate()
    try:
        if inputs.kind == "prompts":
            ids = template.encode(record.prompt, tokenizer)
            return Text.assemble((tokenizer.decode(ids), NOT_TRAINED), f"\n  {len(ids)} tokens")
        (rows,) = tokenize([record], template, tokenizer, NO_LIMIT)
    except Rejected as rejection:
        rows = rejection
    if isinstance(rows, Rejected):
        return Text(f"{rows.reason}: {rows.detail}")
    shown = Text()
    for index, ((prompt, answer), style) in enumerate(zip(rows, STYLES[inputs.kind], strict=True)):
        if index == 0:
            shown.append(tokenizer.decode(prompt), NOT_TRAINED)
        shown.append(tokenizer.decode(answer), style)
        shown.append(f"\n  {len(prompt)} tokens of prompt, {len(answer)} of answer\n")
    return shown


def _as_text(record: Record, inputs: Inputs) -> Text:
    shown = Text(_render(record.prompt, inputs), NOT_TRAINED)
    for answer, style in zip(record.answers, STYLES[inputs.kind], strict=False):
        shown.append(f"{answer}\n", style)
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
