import pytest

from loragrid.models.float16_range import FAMILIES, float16_family, overflows_float16


@pytest.mark.parametrize(
    ("model_type", "family"),
    [
        ("gemma3_text", "gemma3"),
        ("gemma3n", "gemma3"),
        ("gemma4_text", "gemma4"),
        ("gemma2", "gemma2"),
        ("glm4", "glm4"),
        ("glm4_moe_lite", "glm4_moe"),
        ("qwen3", "qwen3"),
        ("qwen3_moe", "qwen3_moe"),
        ("qwen3_5_text", "qwen3_5"),
        ("qwen2", "qwen2"),
        ("gemma", None),
        ("olmo2", None),
    ],
)
def test_the_longest_name_that_fits_counts(model_type: str, family: str | None) -> None:
    assert float16_family(model_type) is (FAMILIES[family] if family else None)


def test_float32_is_for_families_that_always_overflow() -> None:
    always = {"gemma3", "gemma3_text", "gemma4", "glm", "glm4", "glm4_moe", "gpt_oss", "qwen3_5", "qwen3_moe"}
    assert all(map(overflows_float16, always))
    assert not any(map(overflows_float16, ("llama", "gemma2", "qwen2", "qwen3", "mistral")))


def test_every_row_has_its_source() -> None:
    assert all(len(family.source) > 20 for family in FAMILIES.values())
