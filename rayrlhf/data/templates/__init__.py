"""Prompt templates, one module each. `template: kullm` is short for `template: {kind: kullm}`."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from rayrlhf.data.templates.chat import ChatTemplate
from rayrlhf.data.templates.custom import CustomTemplate
from rayrlhf.data.templates.kochatgpt import KochatgptTemplate
from rayrlhf.data.templates.kullm import KullmTemplate


def _from_name(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


Template = Annotated[
    Annotated[ChatTemplate | KochatgptTemplate | KullmTemplate | CustomTemplate, Field(discriminator="kind")],
    BeforeValidator(_from_name),
]

__all__ = ["ChatTemplate", "CustomTemplate", "KochatgptTemplate", "KullmTemplate", "Template"]
