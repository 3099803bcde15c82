"""Values as text: numbers, units, names, untrusted text."""

import pytest

from loragrid import formatting, setting_texts


@pytest.mark.parametrize(
    "made, wanted",
    [
        (formatting.change(0.52, "share", words=True), "+52 points"),
        (formatting.change(-0.01, "share", words=True), "−1 point"),
        (formatting.change(0.001, "share"), "0"),
        (formatting.change(-1.4982, "plain"), "−1.50"),
        (formatting.change(0.004, "share", words=True, places=formatting.decimals(0.001, 0.007)), "+0.40 points"),
        (formatting.change(0.004, "share", words=True, places=formatting.decimals(-0.02, 0.03)), "+0.4 points"),
        (formatting.between(-0.02, 0.03, "share"), "−2.0 to +3.0"),
        (formatting.between(-0.2, 0.1, "share"), "−20 to +10"),
        (formatting.between(None, float("nan"), "plain"), "– to –"),
        (formatting.detectable(0.25, "share"), "25 points"),
        (formatting.detectable(float("nan"), "share"), "none of any size"),
        (formatting.score(0.655, "share"), "66%"),
        (formatting.score(0.655, "share", 1), "65.5%"),
        (formatting.score(None, "share"), "–"),
        (formatting.number(0.00002), "2e−5"),
        (formatting.number(123456), "123\u202f456"),
        (formatting.number(0.009999), "0.0100"),
        (formatting.number(9.999), "10.0"),
        (formatting.number(float("nan")), "–"),
        (formatting.setting(2e-4), "2e−4"),
        (formatting.setting(0.01), "0.01"),
        (formatting.setting(12000.0), "1.2e4"),
        (formatting.p_value(1e-50), "< 0.0001"),
        (formatting.p_value(0.0), "< 0.0001"),
        (formatting.p_value(0.00042), "0.0004"),
        (formatting.p_value(0.04321), "0.043"),
        (formatting.p_value(0.4321), "0.43"),
        (formatting.between(-1.10, -0.9, "plain"), "−1.10 to −0.90"),
        (setting_texts.axis_value("learning_rate", "3e-4"), "3e−4"),
        (formatting.duration(9.96), "10 s"),
        (formatting.duration(89), "89 s"),
        (formatting.duration(4000), "67 min"),
        (formatting.duration(5400), "1.5 h"),
        (formatting.mebibytes(2047), "2047 MiB"),
        (formatting.mebibytes(2048), "2.0 GiB"),
        (formatting.listed([]), ""),
        (formatting.listed(["a"]), "a"),
        (formatting.listed(["a", "b", "c"]), "a, b and c"),
        (formatting.plural(1, "run"), "1 run"),
        (formatting.plural(2, "loss", "losses"), "2 losses"),
        (formatting.as_sentence("a token lies across"), "A token lies across."),
        (formatting.as_sentence("max_rows is a sample!"), "max_rows is a sample!"),
        (formatting.visible("a\u202eb\u0007"), "a[U+202E]b[U+0007]"),
        (formatting.visible("a\tb\n👩\u200d🚀"), "a\tb\n👩\u200d🚀"),
        (formatting.visible("x" * 40, 4), "xxxx … [36 more characters]"),
        (formatting.visible("x" * 10, 4), "x" * 10),
    ],
)
def test_values_as_text(made: str, wanted: str) -> None:
    assert made == wanted


def test_a_difference_has_the_decimals_of_its_interval() -> None:
    assert formatting.change_beside(-0.0516, -0.0981, -0.0051, "loss") == "−0.052"
    assert formatting.between(-0.0981, -0.0051, "loss") == "−0.098 to −0.005"
    assert formatting.change_beside(-0.0211, -0.22, 0.18, "loss") == "−0.02"
    assert formatting.change_beside(0.0211, None, None, "loss") == "+0.0211"
    assert formatting.change_beside(0.25, 0.14, 0.36, "share") == "+25 points"
