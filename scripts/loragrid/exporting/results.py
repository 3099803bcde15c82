"""What is measured of an exported form."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Mean held-out loss, nats per loss token, of `rows` rows; answers as text, the prompts' token ids; arithmetic."""

    loss: float
    rows: int
    answers: list[str]
    prompts: list[list[int]]
    arithmetic: str
