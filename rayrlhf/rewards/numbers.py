"""Numbers in answers: `$1,080`, `12.0`, `50%`, `-3`."""

from __future__ import annotations

import re
from decimal import Decimal, DecimalException

NUMBER = re.compile(
    r"""
    (?P<sign>(?<![\w)\]])[-−])?          # in `10-3` and `(2)-3` it is no sign
    [$€£¥₩]?
    (?<![\w.])                          # not inside a word, nor behind another number's point
    (?P<digits>
        (?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)  # with commas between thousands, or without
        (?:\.\d+)?
        |\.\d+
    )
    (?P<exponent>[eE][-+]?\d{1,3}(?!\d))?
    """,
    re.VERBOSE,
)


def numbers_in(text: str) -> list[Decimal]:
    """All numbers of a text, in order. Signs of currency and percent do not change a number: `50%` is 50."""
    return [_value(match) for match in NUMBER.finditer(text)]


def final_number(text: str, marker: str | None, needs_marker: bool) -> Decimal | None:
    """The first number after the last `marker`, or the last number if there is no marker; None if there is none.

    needs_marker: a text without the marker has no answer.
    """
    _, found, after = text.rpartition(marker) if marker else ("", "", text)
    if found:
        numbers = numbers_in(after)
        return numbers[0] if numbers else None
    if marker and needs_marker:
        return None
    numbers = numbers_in(text)
    return numbers[-1] if numbers else None


def is_near(one: Decimal, other: Decimal, tolerance: float) -> bool:
    """Whether two numbers differ by at most `tolerance`; with 0 they must be equal, as 12.0 and 12 are."""
    if not tolerance:
        return one == other
    try:
        return abs(one - other) <= Decimal(str(tolerance))
    except DecimalException:
        return False


def _value(match: re.Match[str]) -> Decimal:
    value = Decimal(match["digits"].replace(",", "") + (match["exponent"] or ""))
    return value.copy_negate() if match["sign"] else value
