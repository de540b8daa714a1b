"""A format is the pydantic model of one row; its fields are what it is recognised by."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from rayrlhf.data.records import Answer, Preference, PromptText


class Row(BaseModel):
    """One row of a data file. A subclass says what the row offers by overriding the methods that apply."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    name: ClassVar[str]

    def prompt_text(self) -> PromptText:
        """What is asked. Every format has it."""
        raise TypeError(f"{type(self).__name__} rows have no prompt")

    def answer(self) -> Answer | None:
        """The answer to imitate, or None if this format has none."""
        return None

    def preference(self) -> Preference | None:
        """The better and the worse answer, or None if this format has none."""
        return None

    @classmethod
    def required(cls) -> frozenset[str]:
        """The keys that a row of this format must have."""
        return frozenset(name for name, field in cls.model_fields.items() if field.is_required())
