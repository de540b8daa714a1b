"""Text that was decoded with the wrong code page: '안녕' that reads 'ì•ˆë…•', '¾È³ç' or '�븞�뀞'.

Such text teaches a model to write nonsense, and no other rule detects it: its letters are letters. A false positive is
worse than a miss, so each check asks for a whole text that only a decoding error explains.
"""

from __future__ import annotations

import re

# UTF-8 read as latin-1 or cp1252 contains a lead byte and a continuation byte, CP949 two syllables (4 bytes) in a row.
# All other text passes after this one search.
_CONTINUATION = "".join(chr(c) for c in range(0x80, 0xC0)) + bytes(range(0x80, 0xA0)).decode("cp1252", "ignore")
# One set for the first character is four times as fast on healthy text as two alternatives.
_WESTERN_DAMAGE = re.compile(f"[\xa1-\xfe](?:(?<=[\xc2-\xf4])[{_CONTINUATION}]|[\xa1-\xfe]{{3}})")

_SYLLABLE = re.compile("[가-힣]")
_COMMON = frozenset("이다는에을를의가고하지기은도로나어사시리아한해요서세자라인스대그게거대있보니수일정전안부네면")

# Korean takes three bytes a syllable in UTF-8 and two in CP949, so every third character comes out as a Chinese
# character, U+FFFD or "?", and there are never three syllables in a row.
_THREE_SYLLABLES = re.compile("[가-힣]{3}")
_HANGUL_OR_HAN = re.compile("[가-힣一-鿿\uf900-\ufaff]")
_LOST = b"\xff"  # occurs in neither UTF-8 nor CP949
_LOST_CHARACTER = re.compile("[\ufffd?]")
_UTF8_KOREAN = re.compile(rb"[\xea-\xed][\x80-\xbf]{2}|\xff[\x80-\xbf]{2}")
_UTF8_WITH_LOSSES = re.compile(
    rb"(?:[\x00-\x7f]|[\xc2-\xdf][\x80-\xbf]|[\xe1-\xef][\x80-\xbf]{2}|\xf0[\x80-\xbf]{3}"
    rb"|[\xe1-\xef][\x80-\xbf]?\xff[\x80-\xbf]?|\xff[\x80-\xbf]{0,2})*[\xe1-\xef]?[\x80-\xbf]?"
)

MIN_SYLLABLES = 3
"""UTF-8 read as CP949 needs so many syllables: one or two may occur by chance."""
MAX_EXCERPT = 40
"""Characters of a description's excerpt."""


def wrong_code_page(text: str) -> str | None:
    """None if `text` is healthy, else what happened to it: "UTF-8 read as cp1252: reads '안녕' when decoded again".

    Finds UTF-8 of any language read as latin-1 or cp1252 (by ftfy's heuristic, which also finds other western code
    pages and partial damage), Korean CP949 read as latin-1 or cp1252, and Korean UTF-8 read as CP949, with or without
    lost characters. Misses short texts of the last two kinds: one or two syllables are no evidence.
    """
    if text.isascii():
        return None
    if _WESTERN_DAMAGE.search(text):
        return _cp949_read_as_western(text) or _utf8_read_as_western(text)
    if _HANGUL_OR_HAN.search(text) and not _THREE_SYLLABLES.search(text):
        return _utf8_read_as_cp949(text)
    return None


def korean_cp949(data: bytes) -> str | None:
    """An excerpt of the Korean text that bytes of another encoding, or of none, are in CP949; None if they are not."""
    try:
        text = data.decode("cp949")
    except UnicodeDecodeError:
        return None
    if not _is_korean(text):
        return None
    start = next(at for at, character in enumerate(text) if not character.isascii())
    return text[start : start + MAX_EXCERPT].strip()


def _is_korean(text: str) -> bool:
    # Letters of western languages can be read as Hangul ("ÀÁÂÃ" is 윕쩍), but not as syllables that Korean uses.
    syllables = _SYLLABLE.findall(text)
    others = len(text) - len(syllables) - sum(map(str.isascii, text))
    common = sum(syllable in _COMMON for syllable in syllables)
    return len(syllables) >= 2 and 4 * common >= len(syllables) and others <= len(syllables)


def _cp949_read_as_western(text: str) -> str | None:
    for page in ("latin-1", "cp1252"):
        try:
            fixed = text.encode(page).decode("cp949")
        except UnicodeError:
            continue
        if _is_korean(fixed):
            return _description("CP949", page, text, fixed)
    return None


def _utf8_read_as_western(text: str) -> str | None:
    import ftfy

    fixed, steps = ftfy.fix_encoding_and_explain(text)
    if pages := [step.parameter for step in steps or () if step.action == "encode"]:
        return _description("UTF-8", pages[0].removeprefix("sloppy-").replace("windows-", "cp"), text, fixed)
    # If only parts were fixed, the result must look healthy: a table of letters ("ÀÁÂÃ…") does not. Other steps of ftfy
    # (C1 control characters) are no evidence of a wrong code page.
    in_parts = any(step.parameter == "decode_inconsistent_utf8" for step in steps or ())
    if in_parts and not ftfy.badness.is_bad(fixed):
        return _description("UTF-8", "cp1252 in parts", text, fixed)
    return None


def _utf8_read_as_cp949(text: str) -> str | None:
    try:
        # A "?" may also be the text's own: it matches anywhere and is no evidence.
        raw = _LOST.join(part.encode("cp949") for part in _LOST_CHARACTER.split(text))
    except UnicodeEncodeError:
        return None
    if len(_UTF8_KOREAN.findall(raw)) < MIN_SYLLABLES or not _UTF8_WITH_LOSSES.fullmatch(raw):
        return None
    try:
        return _description("UTF-8", "cp949", text, raw.replace(_LOST, b"?").decode("utf-8"))
    except UnicodeDecodeError:
        return "UTF-8 read as cp949, with characters lost"


def _description(wanted: str, page: str, text: str, fixed: str) -> str:
    differs = next((i for i, (a, b) in enumerate(zip(text, fixed, strict=False)) if a != b), 0)
    start = fixed.rfind(" ", 0, differs) + 1
    excerpt = fixed[start : start + MAX_EXCERPT].strip()
    return f"{wanted} read as {page}: reads {excerpt!r} when decoded again"
