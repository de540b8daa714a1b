"""A copy of a tokenizer that knows its control tokens by other names, and so reads their usual names as plain text."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Renamed:
    """The copy: the same ids for any text without control tokens, and for one in which they have their other names."""

    backend: Any
    names: dict[int, str]
    """The other name of each control token, which nobody can guess."""
    unknown_id: int | None
    """What stands for characters that the tokenizer does not know; it may be one of the control tokens."""

    @staticmethod
    def of(backend: Any, token_ids: Collection[int]) -> Renamed:
        """A copy of `backend` with other names for `token_ids`, which are added tokens of it."""
        from tokenizers import Tokenizer

        state = json.loads(backend.to_str())
        secret = secrets.token_hex(8)
        names = {token_id: f"\U00100000{secret}.{token_id:x}\U00100001" for token_id in token_ids}
        new_names = {}
        for token in state["added_tokens"]:
            if token["id"] in names:
                new_names[token["content"]] = token["content"] = names[token["id"]]
        model = state["model"] = _with_new_names(state["model"], new_names)
        copy = Tokenizer.from_str(json.dumps(state | {"truncation": None, "padding": None}))
        assert all(copy.token_to_id(name) == token_id for token_id, name in names.items()), "ids stay the same"
        unknown = model.get("unk_token")
        return Renamed(copy, names, model.get("unk_id") if unknown is None else copy.token_to_id(unknown))


def _with_new_names(model: dict[str, Any], new_names: Mapping[str, str]) -> dict[str, Any]:
    """A tokenizer's model whose vocabulary has new names, and whose merges make none of the old ones."""
    changed = dict(model)
    if isinstance(model["vocab"], dict):
        changed["vocab"] = {new_names.get(name, name): token_id for name, token_id in model["vocab"].items()}
    else:  # Unigram
        changed["vocab"] = [[new_names.get(name, name), score] for name, score in model["vocab"]]
    if "merges" in model:
        pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
        changed["merges"] = [[a, b] for a, b in pairs if not {a, b, a + b} & new_names.keys()]
    if model.get("unk_token") is not None:
        changed["unk_token"] = new_names.get(model["unk_token"], model["unk_token"])
    return changed
