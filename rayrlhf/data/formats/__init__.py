"""Formats of data files, one module each. Adding one is one module and one line in `FORMATS`."""

from rayrlhf.data.formats.base import Row
from rayrlhf.data.formats.chat import Chat
from rayrlhf.data.formats.instruction import Instruction
from rayrlhf.data.formats.preference_pair import PreferencePair
from rayrlhf.data.formats.prompt_completion import PromptCompletion
from rayrlhf.data.formats.prompt_only import PromptOnly

FORMATS: tuple[type[Row], ...] = (PreferencePair, PromptCompletion, Instruction, Chat, PromptOnly)
"""In order of recognition: a format stands before those whose keys are a subset of its own."""

__all__ = ["FORMATS", "Chat", "Instruction", "PreferencePair", "PromptCompletion", "PromptOnly", "Row"]
