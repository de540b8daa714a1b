"""Small models from scratch, with a byte-level BPE tokenizer trained on text files: enough for a laptop."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt, model_validator

from rayrlhf.config import Config, UserError
from rayrlhf.models.folder import load_tokenizer

EOS, PAD, USER, ASSISTANT = "<|endoftext|>", "<|pad|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|endoftext|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class ModelShape(Config):
    """Architecture and size of a model made from scratch."""

    architecture: Literal["qwen2", "llama"] = "qwen2"
    vocab_size: PositiveInt = 2048
    """Vocabulary of the tokenizer to train; a given tokenizer keeps its own."""
    hidden_size: PositiveInt = 256
    num_layers: PositiveInt = 4
    num_heads: PositiveInt = 4
    num_kv_heads: PositiveInt = 2
    intermediate_size: PositiveInt = 768
    max_length: PositiveInt = 512
    """Longest sequence in tokens."""
    tie_embeddings: bool = True
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelShape:
        if self.hidden_size % self.num_heads or self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of num_heads {self.num_heads}, "
                f"and num_heads a multiple of num_kv_heads {self.num_kv_heads}"
            )
        return self


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with a chat template; every byte has a token, so no text is unknown."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    trainer = ByteLevelBPETokenizer()
    trainer.train_from_iterator(
        texts, vocab_size=vocab_size, special_tokens=[EOS, PAD, USER, ASSISTANT], show_progress=False
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=trainer._tokenizer,
        eos_token=EOS,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def make_model(shape: ModelShape, tokenizer: Any) -> Any:
    """A randomly initialized transformers model of this shape, seeded."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        shape.architecture,
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_length,
        tie_word_embeddings=shape.tie_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(shape.seed)
        return AutoModelForCausalLM.from_config(config)


def init_model_folder(
    out: Path, shape: ModelShape, texts: Iterable[str] = (), tokenizer_folder: Path | None = None
) -> int:
    """Write a model folder to `out`; its tokenizer is trained on `texts`, or taken from `tokenizer_folder`.

    Returns the number of parameters. Raises UserError when `out` is not empty or there is no text.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: the folder is not empty; name a new one")
    from transformers import AutoTokenizer

    if tokenizer_folder is not None:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    else:
        texts = iter(texts)
        first = next(texts, None)
        if first is None:
            raise UserError("name at least one text file to train the tokenizer on, or give --tokenizer FOLDER")
        tokenizer = train_tokenizer(chain([first], texts), shape.vocab_size)
    model = make_model(shape, tokenizer)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    if tokenizer_folder is None:
        # transformers rebuilds the tokenizer for the architecture; save what it will load.
        AutoTokenizer.from_pretrained(out).save_pretrained(out)
    try:
        load_tokenizer(str(out))
    except UserError:
        shutil.rmtree(out)
        raise
    return sum(parameter.numel() for parameter in model.parameters())
