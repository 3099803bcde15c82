"""How the report says things: numbers with the digits they deserve, names people read, untrusted text made visible."""

import math
import re
import unicodedata
from typing import Any

MINUS = "\u2212"
AXIS_NAMES = {
    "learning_rate": "learning rate",
    "rank": "rank",
    "batch": "batch",
    "model": "model",
    "seed": "seed",
    "search": "search",
}


def visible(text: Any, limit: int | None = None) -> str:
    """Untrusted text for a page: control and direction-changing characters shown by their code, long text cut with a note.

    Line breaks and tabs stay. Escaping HTML is the template's (autoescape) and matplotlib's business, not this one's.
    """
    text = str(text)
    if text.isprintable() and (limit is None or len(text) <= limit):
        return text
    cut = ""
    if limit is not None and len(text) > limit:
        text, cut = text[:limit], f" … [{len(text) - limit:,} more characters]"
    return "".join(_shown(ch) for ch in text) + cut


def _shown(ch: str) -> str:
    if ch in "\n\t" or unicodedata.category(ch) not in ("Cc", "Cf", "Cs", "Co", "Cn") or ch in "\u200d\ufe0f":
        return ch
    return f"[U+{ord(ch):04X}]"


def number(value: float | None, digits: int = 3) -> str:
    """A plain number with about `digits` significant digits, thousands apart by thin spaces, or a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size < -4:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return (
            f"{_minus(mantissa.rstrip('0').rstrip('.') if '.' in mantissa else mantissa)}e{MINUS}{abs(int(exponent))}"
        )
    return _minus(f"{value:,.{max(0, digits - 1 - size)}f}".replace(",", "\u2009"))


def whole(value: float | None) -> str:
    """A count: 120 000."""
    return "–" if value is None or not math.isfinite(value) else f"{round(value):,}".replace(",", "\u2009")


def setting(value: float) -> str:
    """A learning rate as people write it: 0.01, 2e-4."""
    if 0.001 <= abs(value) < 1000:
        return f"{value:g}"
    mantissa, exponent = f"{value:.6e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{MINUS if int(exponent) < 0 else ''}{abs(int(exponent))}"


def decimals(low: float | None, high: float | None) -> int:
    """Decimals that a share's points deserve beside an interval: none where it is 10 points wide or more, one under that, two
    under one point."""
    if low is None or high is None or not math.isfinite(high - low) or high <= low:
        return 0
    return min(2, max(0, -1 - math.floor(math.log10(high - low) + 1e-9)))


def score(value: float | None, unit: str, places: int = 0) -> str:
    """A score: a share as percent with so many decimals, others as they are."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value * 100:.{places}f}%" if unit == "share" else number(value, 3)


def change(value: float | None, unit: str, *, words: bool = False, places: int = 0) -> str:
    """A signed difference: +52 points for shares, with so many decimals, else a signed number."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{abs(value) * 100:.{places}f}" if unit == "share" else number(abs(value), 3)
    sign = "" if float(re.sub(r"[^\d.]", "", text) or 0) == 0 else "+" if value > 0 else MINUS
    return sign + text + (points(value, unit, places) if words else "")


def points(value: float, unit: str, places: int = 0) -> str:
    """The unit of a difference, after its number."""
    return "" if unit != "share" else " point" if f"{abs(value) * 100:.{places}f}" == "1" else " points"


def between(low: float | None, high: float | None, unit: str) -> str:
    """An interval of a difference: −7 to +9. Both ends get the same decimals, as many as the width deserves."""
    if low is None or high is None or not math.isfinite(high - low) or high <= low:
        return f"{change(low, unit)} to {change(high, unit)}"
    if unit == "share":
        return " to ".join(change(end, unit, places=decimals(low, high)) for end in (low, high))
    places = max(0, 1 - math.floor(math.log10(high - low)))
    return " to ".join(_minus(f"{end:+.{places}f}") for end in (low, high))


def detectable(value: float | None, unit: str) -> str:
    """The smallest detectable difference in words; the test may be unable to prove any."""
    if value is None or not math.isfinite(value):
        return "none of any size"
    places = 1 if unit == "share" and value < 0.1 else 0
    return change(value, unit, places=places).lstrip("+") + points(value, unit, places)


def axis_value(axis: str, text: str) -> str:
    """An axis value of the tables as the page says it."""
    return setting(float(text)) if axis == "learning_rate" else visible(text, 80)


def p_value(p: float | None) -> str:
    """A p value with the digits that matter."""
    if p is None or not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def duration(seconds: float | None) -> str:
    """Seconds as 14 s, 2.3 min, 1.4 h."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def mebibytes(value: float | None) -> str:
    """Memory: 712 MiB, 6.5 GiB."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.0f} MiB" if value < 2048 else f"{value / 1024:.1f} GiB"


def plain_name(name: str) -> str:
    """A task's or metric's name as words."""
    return visible(name, 80).replace("_", " ").replace(",", ", ").replace("heldout", "held-out")


def listed(parts: list[str], word: str = "and") -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}" if parts else ""


def plural(count: int, one: str, many: str | None = None) -> str:
    """1 run, 2 runs; small counts stay digits, since readers look for them."""
    return f"{whole(count)} {one if count == 1 else many or one + 's'}"


def _minus(text: str) -> str:
    return text.replace("-", MINUS)
