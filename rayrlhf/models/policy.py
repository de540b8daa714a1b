"""A causal language model as a policy: log-probabilities of response tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rayrlhf.functional import TokenLogprobs, chunked_token_logprobs
from rayrlhf.models.checkpoint import load_model, probe_tokens
from rayrlhf.models.folder import ModelFolderError
from rayrlhf.models.lora import adapter_tensors, merged, save_adapter
from rayrlhf.models.quantized import writable

LOGITS_CHUNK_ROWS = 1024
"""Positions whose [rows, vocabulary] logits exist at the same time."""
PROBE_ROUNDING = {torch.float32: 32.0}
"""Rounding errors of the largest logit that a loaded model's two log-probabilities may differ by; 2 in lower precision,
where both round the same sums."""


class Policy(nn.Module):
    """π(token | before) over a Hugging Face causal language model.

    `forward` returns log-probabilities in the alignment of `rayrlhf.types` and computes logits at the masked positions
    only, `LOGITS_CHUNK_ROWS` at a time: prompt tokens take no vocabulary-sized memory.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._backbone = backbone_name(model)

    @classmethod
    def load(
        cls,
        folder: str,
        dtype: torch.dtype = torch.float32,
        load_in_4bit: bool = False,
        dropout: bool = False,
        float32_head: bool = False,
    ) -> Policy:
        """The policy in a Hugging Face folder or hub name. On the CPU; in 4 bits, on the GPU.

        dropout: keep the model's own. float32_head: compute logits in float32 whatever the precision of the rest.
        Raises ModelFolderError for a folder that lacks weights, and for one whose log-probabilities would be wrong.
        """
        from transformers import AutoModelForCausalLM

        policy = cls(load_model(AutoModelForCausalLM, folder, dtype, load_in_4bit, dropout)[0])
        check_logprobs(policy, folder)
        if float32_head:
            compute_in_float32(policy.model.get_output_embeddings())
        return policy

    def forward(
        self, tokens: Tensor, mask: Tensor, temperature: float = 1.0, with_entropy: bool = False
    ) -> TokenLogprobs:
        """Log-probabilities of `tokens` where `mask` is set, and the entropies if asked for.

        tokens: [B, T] int64, right-padded; mask: [B, T] bool, False at t = 0 (it has no prefix).
        Returns [B, T] float32 tensors, 0 outside the mask. Right padding needs no attention mask: attention is causal,
        so no real token sees the padding.
        """
        backbone = self.model.get_submodule(self._backbone)
        hidden = backbone(input_ids=tokens, use_cache=False).last_hidden_state  # [B, T, H]
        asked = mask[:, 1:].bool()  # the state at t − 1 predicts token t
        result = chunked_token_logprobs(
            self._logits, hidden[:, :-1][asked], tokens[:, 1:][asked], temperature, LOGITS_CHUNK_ROWS, with_entropy
        )
        entropy = None if result.entropy is None else _spread(result.entropy, asked)
        return TokenLogprobs(_spread(result.logprobs, asked), entropy)

    def _logits(self, hidden: Tensor) -> Tensor:
        """States [N, H] → logits [N, V], by the model's own way: head, scale, soft cap, whatever it has."""
        with _in_place_of_backbone(self.model, hidden):
            tokens = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
            logits: Tensor = self.model(input_ids=tokens, use_cache=False).logits
        return logits[0]

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


def backbone_name(model: Any) -> str:
    """Of the part of a causal model that ends in states, without head: `model`, `transformer`, `gpt_neox`."""
    prefix: str = model.base_model_prefix
    if prefix in model._modules:
        return prefix
    (name,) = (name for name, module in model.named_children() if hasattr(module, "config"))
    return name


class _States(nn.Module):
    """Stands where a causal model has its backbone, and answers with given states."""

    def __init__(self, backbone: nn.Module, hidden: Tensor) -> None:
        super().__init__()
        self.__dict__ |= {"_backbone": backbone, "_hidden": hidden}  # not as a submodule

    @property
    def decoder(self) -> _States:
        """Some models ask a part of their backbone."""
        return self

    def forward(self, *_: Any, **__: Any) -> _StatesOutput:
        return _StatesOutput(self._hidden.unsqueeze(0))

    def __getattr__(self, name: str) -> Any:
        """Numbers that a model keeps in its backbone."""
        return getattr(self._backbone, name)


class _StatesOutput:
    """What a backbone returns, with nothing but the last states in it."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None


@contextmanager
def _in_place_of_backbone(model: Any, hidden: Tensor) -> Iterator[None]:
    """Inside, calling `model` does nothing but turn `hidden` ([N, H]) into logits."""
    name = backbone_name(model)
    backbone = model._modules[name]
    model._modules[name] = _States(backbone, hidden)
    try:
        yield
    finally:
        model._modules[name] = backbone


@torch.no_grad()
def check_logprobs(policy: Policy, name: str) -> None:
    """Raises ModelFolderError unless `policy` gives a row of tokens the log-probabilities that transformers' whole
    forward pass gives them, to rounding."""
    model = policy.model
    tokens = probe_tokens(model)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[:, 0] = False
    try:
        logits = model(input_ids=tokens, use_cache=False).logits.float()
        ours = policy(tokens, mask).logprobs[:, 1:]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelFolderError(
            f"model {name!r}: rayrlhf cannot compute the log-probabilities of a {type(model).__name__} "
            f"({type(error).__name__}: {error}); docs/models.md lists the architectures it can"
        ) from error
    theirs = torch.log_softmax(logits[:, :-1], -1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    gap = float((ours - theirs).abs().max())
    if not gap <= PROBE_ROUNDING.get(model.dtype, 2.0) * torch.finfo(model.dtype).eps * max(
        1.0, float(logits.abs().max())
    ):
        raise ModelFolderError(
            f"model {name!r}: log-probabilities of a {type(model).__name__} would be wrong by {gap:.3g} nats; "
            "docs/models.md lists the architectures that are right"
        )


def compute_in_float32(head: nn.Module) -> None:
    """Make an output head, a linear layer, compute in float32 whatever its weights' dtype and the autocast."""

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if head.bias is None else head.bias.float()
            return torch.nn.functional.linear(hidden.float(), head.weight.float(), bias)

    head.forward = forward


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
