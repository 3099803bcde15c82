import math

import pytest

from loragrid.study.expressions import evaluate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("rank", 16),
        ("2 * rank", 32),
        ("rank*2", 32),
        ("sqrt(rank)", 4),
        ("8*sqrt( rank )", 32),
        ("2.0e-3 / rank", 1.25e-4),
        ("1e-3 / sqrt(rank) / 2", 1.25e-4),
        (".5 * rank * rank", 128),
        ("7", 7),
    ],
)
def test_an_expression_has_a_value(expression: str, value: float) -> None:
    assert math.isclose(evaluate(expression, rank=16), value)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "2 +rank",
        "rank ** 2",
        "rank rank",
        "sqrt(2)",
        "2 * ",
        "* rank",
        "r",
        "-rank",
        "1e999x",
        "1e999 * rank",
        "rank / 0",
        "__import__('os')",
        "()",
        "rank" + " * rank" * 5000,
        "rank" + " * rank" * 5000 + " / rank",
        "1_0 * rank",
        "٣ * rank",
        "１ * rank",
        "sqrt(sqrt(rank))",
        "lambda: rank",
        "rank.__class__",
        "nan * rank",
    ],
)
def test_all_else_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"is not a number|a factor is missing|division by 0|too large"):
        evaluate(expression, rank=16)
