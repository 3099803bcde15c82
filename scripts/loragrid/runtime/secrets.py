"""Secrets of the environment, which no line and no file may hold."""

import os
import re
from collections.abc import Iterator
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
    secrets = [(name, value.encode()) for name, value in _secrets()]
    found, before = set(), b""
    with open(path, "rb") as file:
        while secrets and (block := file.read(BLOCK_BYTES)):
            # A value may begin in one block and end in the next.
            text = before + block
            found |= {name for name, value in secrets if value in text}
            before = text[-max(len(value) for _, value in secrets) :]
    return sorted(found)


def _secrets() -> Iterator[tuple[str, str]]:
    for name, value in os.environ.items():
        if SECRET_NAME.search(name) and len(value.strip()) >= SHORTEST_SECRET:
            yield name, value.strip()
