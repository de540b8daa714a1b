"""Tokenizers of every make, trained on a few lines: how they split, normalize and find their special tokens differs."""

from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

LINES = [
    "안녕하세요. 오늘은 날씨가 참 좋습니다.",
    "The next train leaves at nine.",
    "user assistant end of text s <s> </s> |>",
] * 3
EOS, USER, ASSISTANT = "</s>", "<|user|>", "<|assistant|>"
THINK = "<think>"
"""An added token that is not special."""
CHAT = (
    "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|assistant|>' }}{{ m.content | trim }}"
    "{% if m.role == 'assistant' %}{{ '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _finish(backend: Tokenizer, **flags: bool) -> Any:
    names = (EOS, USER, ASSISTANT)
    backend.add_special_tokens([AddedToken(name, special=True, **flags) for name in names])
    backend.add_tokens([AddedToken(THINK, special=False, normalized=False), AddedToken("</think>", normalized=False)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token=AddedToken(EOS, **flags),
        additional_special_tokens=[AddedToken(name, **flags) for name in names[1:]],
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def _byte_level(normalizer: Any = None, **flags: bool) -> Any:
    backend = Tokenizer(models.BPE())
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        LINES, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return _finish(backend, **flags)


def _unigram(normalizer: Any, scheme: str, **flags: bool) -> Any:
    """Its vocabulary holds the special tokens: it would make them of plain text, too."""
    backend = Tokenizer(models.Unigram())
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", EOS, USER, ASSISTANT], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(LINES, trainer)
    return _finish(backend, **flags)


def _llama(**flags: bool) -> Any:
    """Merges that make `</s>` of its letters, bytes for unknown characters, a bos, and ▁ put before every piece."""
    vocabulary = ["<unk>", "<s>", EOS, *(f"<0x{byte:02X}>" for byte in range(256)), "</", "s>", "▁", "▁t", "th", "▁th"]
    vocabulary += sorted({letter for line in LINES for letter in line if letter != " "} - set(vocabulary))
    backend = Tokenizer(
        models.BPE(
            {name: index for index, name in enumerate(vocabulary)},
            [("<", "/"), ("s", ">"), ("</", "s>"), ("▁", "t"), ("t", "h"), ("▁", "th")],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens([AddedToken(name, special=True, **flags) for name in ("<unk>", "<s>")])
    return _finish(backend, **flags)


MAKES: dict[str, Callable[[], Any]] = {
    "byte-level": _byte_level,
    "byte-level, NFC": lambda: _byte_level(normalizers.NFC()),
    "byte-level, takes in spaces": lambda: _byte_level(lstrip=True, rstrip=True),
    "byte-level, finds them in normalized text": lambda: _byte_level(normalizers.NFKC(), normalized=True),
    "unigram": lambda: _unigram(None, "first"),
    "unigram, NFKC": lambda: _unigram(normalizers.NFKC(), "always"),
    "unigram, lowercase": lambda: _unigram(normalizers.Lowercase(), "first", normalized=True, rstrip=True),
    "llama": _llama,
    "llama, finds them in normalized text": lambda: _llama(normalized=True),
}
