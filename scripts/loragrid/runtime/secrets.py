"""Secrets of the environment, which no line and no file may hold."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

SECRET_NAME = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY|CONNECTION_STRING", re.IGNORECASE
)
# Shorter values are switches such as TOKENIZERS_PARALLELISM=false, or words of any sentence.
SHORTEST_SECRET = 8
BLOCK_BYTES = 2**20


def without_secrets(text: str) -> str:
    """`text` with every value of an environment variable that is named like a secret replaced by `***`."""
    # The longest first: one value may begin with another.
    for value in sorted((value for _, value in _secrets()), key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def secret_names_in(path: Path) -> list[str]:
    """Names of the environment variables whose secret values a file holds."""
    secrets = list(_secrets())
    held = texts_in(path, [value for _, value in secrets])
    return sorted({name for name, value in secrets if value in held})


def texts_in(path: Path, texts: Sequence[str]) -> list[str]:
    """Those of the texts that a file of any kind holds, in UTF-8."""
    sought, found, before = {text: text.encode() for text in texts}, set(), b""
    with open(path, "rb") as file:
        while sought and (block := file.read(BLOCK_BYTES)):
            # A text may begin in one block and end in the next.
            content = before + block
            found |= {text for text, encoded in sought.items() if encoded in content}
            before = content[-max(map(len, sought.values())) :]
    return [text for text in sought if text in found]


def _secrets() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value.strip()) >= SHORTEST_SECRET:
            yield name, value.strip()
