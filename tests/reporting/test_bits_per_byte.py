"""The page compares models with different tokenizers in bits per byte, and shows both units of a held-out loss."""

import re
from pathlib import Path

from tests.fixtures import synthetic
from tests.fixtures.bits_per_byte import CUT, ROWS, add_bits_per_byte
from tests.fixtures.pages import compare_and_report


def test_the_model_axis_is_in_bits_per_byte_and_every_run_has_both_units(tmp_path: Path) -> None:
    grid = {"axes": {"learning_rate": None, "rank": None, "batch": None}}
    study, results = synthetic.make_study(tmp_path, grid=grid), tmp_path / "results"
    synthetic.make_results(study, results, items=ROWS)
    for score in (results / "score").iterdir():
        add_bits_per_byte(score, cut=CUT if "gemma" in score.name else 0)
    page = compare_and_report(study, tmp_path)
    axis = re.search(r'<h3 id="axis-model">.*?</section>', page, re.DOTALL)[0]
    assert "eld-out loss, bits per byte" in axis and f"{ROWS - CUT} of {ROWS}" in axis
    assert "different tokens (another tokenizer" not in page, "a reason for not comparing the losses"
    assert f"the {ROWS - CUT} of {ROWS} held-out rows that all keep whole" in page
    runs = re.search(r'<table[^>]*id="runs-table".*?</table>', page, re.DOTALL)[0]
    assert len(re.findall(r"<small>[\d.]+ bits per byte</small>", runs)) == len(study.cells) + len(study.bases)
