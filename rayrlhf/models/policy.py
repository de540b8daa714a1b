"""A causal language model as a policy: log-probabilities of response tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rayrlhf.functional import TokenLogprobs, chunked_token_logprobs
from rayrlhf.models.lora import adapter_tensors, merged, save_adapter
from rayrlhf.models.quantized import loading, writable

LOGITS_CHUNK_ROWS = 1024
"""Positions whose [rows, vocabulary] logits exist at the same time."""


class Policy(nn.Module):
    """π(token | before) over a Hugging Face causal language model.

    `forward` returns log-probabilities in the alignment of `rayrlhf.types` and computes logits at the masked positions
    only, `LOGITS_CHUNK_ROWS` at a time: prompt tokens take no vocabulary-sized memory.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._softcap = getattr(model.config, "final_logit_softcapping", None)

    @classmethod
    def load(cls, folder: str, dtype: torch.dtype = torch.float32, load_in_4bit: bool = False) -> Policy:
        """The policy in a Hugging Face folder or hub name. On the CPU; in 4 bits, on the GPU."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **loading(load_in_4bit))
        model.config.use_cache = False
        return cls(model)

    def forward(
        self, tokens: Tensor, mask: Tensor, temperature: float = 1.0, with_entropy: bool = False
    ) -> TokenLogprobs:
        """Log-probabilities of `tokens` where `mask` is set, and the entropies if asked for.

        tokens: [B, T] int64, right-padded; mask: [B, T] bool, False at t = 0 (it has no prefix).
        Returns [B, T] float32 tensors, 0 outside the mask. Right padding needs no attention mask: attention is causal,
        so no real token sees the padding.
        """
        hidden = self.model.base_model(input_ids=tokens, use_cache=False).last_hidden_state  # [B, T, H]
        asked = mask[:, 1:].bool()  # the state at t − 1 predicts token t
        result = chunked_token_logprobs(
            self._logits, hidden[:, :-1][asked], tokens[:, 1:][asked], temperature, LOGITS_CHUNK_ROWS, with_entropy
        )
        entropy = None if result.entropy is None else _spread(result.entropy, asked)
        return TokenLogprobs(_spread(result.logprobs, asked), entropy)

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = self.model.get_output_embeddings()(hidden)
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap

    def blocks(self) -> list[nn.Module]:
        """The transformer layers, the units of sharding."""
        return transformer_blocks(self.model)

    def weights(self, whole: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of every parameter under its Hugging Face name, tied ones under each of their names.

        `whole` gathers a sharded tensor; all ranks must then iterate. Adapters are merged into the tensors yielded, one
        layer at a time; the module is unchanged. Tied weights must be sent under both names: vLLM packs its own copy of
        the output head, which stays stale without `lm_head.weight`.
        """
        return merged(self.model, dict(self.model.named_parameters(remove_duplicate=False)), whole)

    def adapters(self, whole: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor) of the adapters alone, A and B of one layer after another; `whole` as in `weights`."""
        return adapter_tensors(dict(self.model.named_parameters()), whole)

    def save(self, folder: Path, tokenizer: Any, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write a Hugging Face folder that transformers and vLLM load."""
        save_folder(self.model, folder, tokenizer, state_dict)


def transformer_blocks(model: Any) -> list[nn.Module]:
    """The layers of a transformer backbone: its longest ModuleList."""
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return max(lists, key=len, default=[])


def save_folder(model: Any, folder: Path, tokenizer: Any, state_dict: dict[str, Tensor] | None) -> None:
    """`model` and its tokenizer as a Hugging Face folder; `state_dict` replaces sharded parameters by full ones.

    Adapters are merged into the saved model, and also saved in `adapter/` in peft's format.
    """
    state = model.state_dict() if state_dict is None else state_dict
    writable(model).save_pretrained(folder, state_dict=dict(merged(model, state, lambda tensor: tensor)))
    save_adapter(model, folder / "adapter", state)
    tokenizer.save_pretrained(folder)


def _spread(values: Tensor, asked: Tensor) -> Tensor:
    """[N] values at the positions `asked` of [B, T−1] → [B, T], 0 elsewhere."""
    spread = torch.zeros(asked.shape, dtype=values.dtype, device=values.device)
    return torch.nn.functional.pad(spread.masked_scatter(asked, values), (1, 0))
