"""Values as text for pages and messages: numbers, units, names, untrusted text."""

import math
import re
import unicodedata
from typing import Any

MINUS = "\u2212"
UNKNOWN = "–"
THOUSANDS = "\u202f"  # a narrow space at which no line breaks
# Besides line breaks and tabs: emoji are joined and styled by these two, which no text can hide
# behind.
HARMLESS_FORMAT_CHARACTERS = "\n\t\u200d\ufe0f"
# Unicode categories of characters that hide, reorder or have no shape: control, format, surrogate,
# private, unassigned.
INVISIBLE_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Cn")


def visible(text: Any, limit: int | None = None) -> str:
    """Untrusted text for a page, with characters that hide or reorder text as their codes.

    Text over `limit` characters is cut with a note, unless it would not be shorter then. Line breaks and
    tabs stay. Escaping HTML is left to the template's autoescape, and to matplotlib.
    """
    text = str(text)
    note = "" if limit is None else f" … [{len(text) - limit:,} more characters]"
    too_long = limit is not None and len(text) > limit + len(note)
    # The fast way for nearly all text: a large study's page asks for it thousands of times.
    if text.isprintable() and not too_long:
        return text
    if too_long:
        text = text[:limit]
    shown = "".join(_visible_character(character) for character in text)
    return shown + note if too_long else shown


def _visible_character(character: str) -> str:
    is_invisible = unicodedata.category(character) in INVISIBLE_CATEGORIES
    if is_invisible and character not in HARMLESS_FORMAT_CHARACTERS:
        return f"[U+{ord(character):04X}]"
    return character


def number(value: float | None, digits: int = 3) -> str:
    """A number with about `digits` significant digits and narrow spaces for thousands, or a dash."""
    if not _is_finite(value):
        return UNKNOWN
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    size = int(exponent)  # of the rounded value: 0.009999 is 0.0100
    if size < -4:
        return f"{_minus(_without_trailing_zeros(mantissa))}e{MINUS}{abs(int(exponent))}"
    return _minus(f"{value:,.{max(0, digits - 1 - size)}f}".replace(",", THOUSANDS))


def whole(value: float | None) -> str:
    """A count: 120 000."""
    if not _is_finite(value):
        return UNKNOWN
    return f"{round(value):,}".replace(",", THOUSANDS)


def setting(value: float, *, scientific: bool = False) -> str:
    """A learning rate or another setting as people write it: 0.01, 2e-4; always as 2e-4 if `scientific`."""
    if not scientific and 0.001 <= abs(value) < 1000:
        return f"{value:g}"
    mantissa, exponent = f"{value:.6e}".split("e")
    sign = MINUS if int(exponent) < 0 else ""
    return f"{_without_trailing_zeros(mantissa)}e{sign}{abs(int(exponent))}"


def decimals(low: float | None, high: float | None) -> int:
    """Decimals for points beside their interval: 0 from 10 points of width, 1 from 1, 2 below."""
    if not _is_interval(low, high):
        return 0
    # The small addition: 0.1 in binary is a little under a tenth.
    return min(2, max(0, -1 - math.floor(math.log10(high - low) + 1e-9)))


def score(value: float | None, unit: str, places: int = 0) -> str:
    """A score: a share as percent with so many decimals, others with three significant digits."""
    if not _is_finite(value):
        return UNKNOWN
    if unit != "share":
        return number(value, 3)
    return f"{value * 100:.{places}f}%"


def change(value: float | None, unit: str, *, words: bool = False, places: int = 0) -> str:
    """A signed difference: of shares in points with so many decimals, +52 points.

    Of others as a number. `words`: with unit.
    """
    if not _is_finite(value):
        return UNKNOWN
    text = f"{abs(value) * 100:.{places}f}" if unit == "share" else number(abs(value), 3)
    sign = "+" if value > 0 else MINUS
    # What rounds to zero has no sign.
    if float(re.sub(r"[^\d.]", "", text) or 0) == 0:
        sign = ""
    if words:
        text += points(value, unit, places)
    return sign + text


def points(value: float, unit: str, places: int = 0) -> str:
    """The unit of a difference, to follow its number."""
    if unit != "share":
        return ""
    return " point" if f"{abs(value) * 100:.{places}f}" == "1" else " points"


def between(low: float | None, high: float | None, unit: str, *, least: int = 0) -> str:
    """An interval of a difference: −7 to +9.

    Both ends get the same decimals, as many as its width supports; `least`: decimals of points at least.
    """
    if not _is_interval(low, high):
        return f"{change(low, unit)} to {change(high, unit)}"
    if unit == "share":
        places = max(least, decimals(low, high))
        return " to ".join(change(end, unit, places=places) for end in (low, high))
    places = _places_beside(low, high)
    return " to ".join(_minus(f"{end:+.{places}f}") for end in (low, high))


def change_beside(value: float | None, low: float | None, high: float | None, unit: str, *, least: int = 0) -> str:
    """A signed difference with its unit, and with the decimals of its interval: −0.05 beside −0.10 to +0.01.

    `least`: decimals of points at least.
    """
    if unit == "share" or not _is_finite(value) or not _is_interval(low, high):
        return change(value, unit, words=True, places=max(least, decimals(low, high)))
    return _minus(f"{value:+.{_places_beside(low, high)}f}")


def _places_beside(low: float, high: float) -> int:
    """Decimals that show two digits of the width of an interval."""
    return max(0, 1 - math.floor(math.log10(high - low)))


def detectable(value: float | None, unit: str) -> str:
    """The smallest detectable difference with its unit.

    NaN if the test cannot prove a difference of any size.
    """
    if not _is_finite(value):
        return "none of any size"
    places = 1 if unit == "share" and value < 0.1 else 0
    return change(value, unit, places=places).lstrip("+") + points(value, unit, places)


def p_value(p: float | None) -> str:
    """A p value with two to four decimals, never 0."""
    if not _is_finite(p):
        return UNKNOWN
    if p < 0.0001:
        return "< 0.0001"
    if p < 0.001:
        return f"{p:.4f}"
    if p < 0.1:
        return f"{p:.3f}"
    return f"{p:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as 14 s, 2.3 min, 25 min, 1.4 h: one decimal below ten."""
    if not _is_finite(seconds):
        return UNKNOWN
    amount, unit = seconds, "s"
    if seconds >= 90 * 60:
        amount, unit = seconds / 3600, "h"
    elif seconds >= 90:
        amount, unit = seconds / 60, "min"
    # 9.96 would read as 10.0.
    places = 1 if amount < 9.95 else 0
    return f"{amount:.{places}f} {unit}"


def mebibytes(value: float | None) -> str:
    """Memory: 712 MiB, 6.5 GiB."""
    if not _is_finite(value):
        return UNKNOWN
    if value < 2048:
        return f"{value:.0f} MiB"
    return f"{value / 1024:.1f} GiB"


def plain_name(name: str) -> str:
    """The name of a task or metric as words."""
    return visible(name, 80).replace("_", " ").replace(",", ", ").replace("heldout", "held-out")


def as_sentence(text: str) -> str:
    """The text with a capital, unless it begins with a name of the code, and a full stop."""
    if "_" not in text.split(maxsplit=1)[0]:
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def listed(parts: list[str], word: str = "and") -> str:
    """a, b and c."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """1 run, 2 runs; small counts stay digits, since readers look for them."""
    if count == 1:
        return f"1 {one}"
    return f"{whole(count)} {many or one + 's'}"


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _is_interval(low: float | None, high: float | None) -> bool:
    return _is_finite(low) and _is_finite(high) and high > low


def _without_trailing_zeros(mantissa: str) -> str:
    if "." not in mantissa:
        return mantissa
    return mantissa.rstrip("0").rstrip(".")


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
