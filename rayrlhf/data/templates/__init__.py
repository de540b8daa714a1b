"""Prompt templates, one module each. `template: kullm` is short for `template: {kind: kullm}`."""

from typing import Annotated

from pydantic import Field

from rayrlhf.config import short_form
from rayrlhf.data.templates.chat import ChatTemplate
from rayrlhf.data.templates.custom import CustomTemplate
from rayrlhf.data.templates.kochatgpt import KochatgptTemplate
from rayrlhf.data.templates.kullm import KullmTemplate

Template = Annotated[
    Annotated[ChatTemplate | KochatgptTemplate | KullmTemplate | CustomTemplate, Field(discriminator="kind")],
    short_form(),
]

__all__ = ["ChatTemplate", "CustomTemplate", "KochatgptTemplate", "KullmTemplate", "Template"]
