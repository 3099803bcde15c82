"""Texts far longer than the limit, cut before they are tokenised: the tokens of a whole book take gigabytes.

The kept tokens are those of the whole text. Tokenizers split a text where a blank stands between two
letters or digits, or have no token with such a place in it, so what follows many of these places
changes nothing before them.
"""

import re
from typing import Any

# Texts up to twice this length are tokenised whole; hardly any row of chat is longer.
FEWEST_CHARACTERS = 65_536
# Tokens of common tokenizers have two to six characters, so such a text has several times the tokens that are kept.
CHARACTERS_PER_TOKEN = 32
# Between the last kept token and the cut.
SPARE_TOKENS, SPARE_WORDS = 128, 64
SEARCH_CHARACTERS = 4_096
WORD_END = re.compile(r"[A-Za-z0-9](?= [A-Za-z0-9])")


def early_cut(text: str, *, max_length_tokens: int) -> int | None:
    """The length to cut a text to before it is tokenised, at the end of a word; None to tokenise all of it."""
    limit = max(FEWEST_CHARACTERS, CHARACTERS_PER_TOKEN * max_length_tokens)
    if len(text) <= 2 * limit:
        return None
    ends = [found.end() for found in WORD_END.finditer(text, limit - SEARCH_CHARACTERS, limit)]
    return ends[-1] if ends else None


def keeps_tokens(encoding: Any, text: str, *, max_length_tokens: int) -> bool:
    """Whether the first tokens of a cut `text` are certain to be those of the whole text."""
    if len(encoding) < max_length_tokens + SPARE_TOKENS:
        return False
    _, end = encoding.token_to_chars(max_length_tokens - 1)
    return sum(1 for _ in WORD_END.finditer(text, end)) >= SPARE_WORDS
