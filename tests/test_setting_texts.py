"""Settings and their values as the page names them."""

import pytest

from loragrid.setting_texts import axis_name, axis_value
from loragrid.study.completion import setting_names


@pytest.mark.parametrize(
    "axis, text, shown",
    [
        ("learning_rate", "1e-3", "0.001"),
        ("learning_rate", "2e-4", "2e−4"),
        ("alpha", "2 * rank", "2 × rank"),
        ("batch", "2x4", "2×4"),
        ("budget", "80000tokens", "80\u202f000 tokens"),
        ("budget", "0.5epochs", "0.5 epochs"),
        ("budget", "1epochs", "1 epoch"),
        ("warmup", "5steps", "5 steps"),
        ("warmup", "0.03ratio", "3% of the updates"),
        ("target_modules", "q_proj-v_proj", "q_proj, v_proj"),
        ("target_modules", "all-linear", "all-linear"),
        ("seed", "3407", "3407"),
        ("packing", "on", "on"),
        ("tied", "rank 64, learning_rate 1e-4, batch 2x4", "rank 64, learning rate 1e−4, batch 2×4"),
        ("model", "some-2x1e-3", "some-2x1e-3"),
    ],
)
def test_values(axis: str, text: str, shown: str) -> None:
    assert axis_value(axis, text) == shown


def test_every_setting_has_a_name_in_words() -> None:
    names = [axis_name(name) for name in setting_names()]
    assert not [name for name in names if "_" in name] and len(set(names)) == len(names)
