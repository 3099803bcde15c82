"""The card of an export: metadata that the hub reads, and what it says of scores and licences."""

import csv
import json
import re
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from loragrid.exporting.card import Card, card_text
from loragrid.exporting.exported_run import ExportedRun
from loragrid.exporting.licences import UNKNOWN, base_licence, source_licence
from loragrid.exporting.merging import MergedFacts
from loragrid.exporting.parity import Parity
from loragrid.exporting.peft_form import write_peft_form
from loragrid.models.loading import load_base
from loragrid.study.sections import DataSource, ModelEntry
from tests.exporting.conftest import Finished, finish_study

SAME = Parity(
    form="merged", reference="the run", loss=1.0, reference_loss=1.001, rows=9, answers=2, same_answers=2,
    other_prompts=0, arithmetic="float16 on cpu",
)  # fmt: skip
CARD = Card(MergedFacts("float16", "the base in float32"), [SAME], [], page=None)


@pytest.fixture
def compared(finished: Finished, tmp_path: Path) -> ExportedRun:
    """The run in a comparison of three seeds that forgot on one task."""
    run = replace(finished.run(), results=tmp_path)
    folder = tmp_path / "compare"
    folder.mkdir()
    trade_off = {
        "run": "x",
        "runs": f"x {run.name} y",
        "seeds": 3,
        "kept": -0.05,
        "kept_low": -0.08,
        "kept_high": -0.02,
    }
    tasks = {"plan": {"unit": "share"}, "facts": {"unit": "share"}}
    content = {"tasks": tasks, "trade_offs": [trade_off | {"kept_verdict": "worse"}]}
    (folder / "compare.json").write_text(json.dumps(content))
    head = {"low": 0.2, "high": 0.4, "items": 100, "metric": "exact"}
    scores = [
        {"subject": subject, "task": task, "group": group, "value": value} | head
        for task, group in (("plan", "target"), ("facts", "retention"))
        for subject, value in ((run.name, 0.3), (run.cell.base, 0.1))
    ]
    found = {"runs": trade_off["runs"], "seeds": 3, "difference": 0.2, "low": 0.1, "high": 0.3}
    comparisons = [
        found | {"task": "plan", "group": "target", "verdict": "better"},
        found | {"task": "facts", "group": "retention", "verdict": "worse"},
    ]
    for name, rows in (("scores", scores), ("comparisons", comparisons)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return run


def test_the_metadata_is_what_the_hub_reads(compared: ExportedRun) -> None:
    run = replace(compared, record=replace(compared.record, base_source="owner/base", base_commit="c" * 40))
    card = ModelCard(card_text(run, CARD))
    found = card.data.to_dict()
    assert (found["base_model"], found["library_name"]) == ("owner/base", "peft")
    assert found["datasets"] == ["plans"] and found["pipeline_tag"] == "text-generation"
    first = card.data.eval_results[0]
    assert (first.dataset_type, first.metric_type, first.metric_value) == ("plan", "exact", 0.3)
    assert first.metric_args == {"confidence": 0.95, "low": 0.2, "high": 0.4}
    assert [entry["name"] for entry in found["model-index"]] == [run.name]
    # The hub refuses a path.
    assert ModelCard(card_text(compared, CARD)).data.base_model == Path(compared.record.base_source).name


def test_the_card_says_scores_with_seeds_and_what_was_forgotten(compared: ExportedRun) -> None:
    text = card_text(compared, CARD)
    assert "| plan (target) | exact | 100 | 30% (20% to 40%) | 10.0% | +20 points (+10 to +30) | better | 3 |" in text
    assert "over 3 seeds: −5.0 points (−8.0 to −2.0), worse. It did worse on facts." in text
    assert "| merged | the run | 1.0000 | -0.0010 | 2 of 2 | float16 on cpu | matches |" in text
    assert "One seed" not in text and compared.record.base_sha256 in text and "| learning rate | 1e-3 |" in text


def test_a_run_that_nobody_compared(finished: Finished) -> None:
    text = card_text(finished.run(), CARD)
    assert "The run was not scored." in text and "what was forgotten is not known" in text
    assert "model-index" not in text


def test_text_of_others_cannot_leave_its_place(compared: ExportedRun) -> None:
    title = {"title": "<script>x</script> | cell\n## heading"}
    study = replace(compared.study, yaml=compared.study.yaml | title)
    text = card_text(replace(compared, study=study), CARD)
    assert "<script>" not in text and "\n## heading" not in text and "&lt;script&gt;x&lt;/script&gt; \\| cell" in text


def test_licences_are_those_that_a_card_states(tmp_path: Path, root: Path) -> None:
    entry = ModelEntry(chat_template=None, path=str(tmp_path))
    assert base_licence(entry).text == UNKNOWN
    for content, wanted in (("---\nlicense: apache-2.0\n---\n", "apache-2.0"), ("---\nlicense: [a]\n---\n", None)):
        (tmp_path / "README.md").write_text(content)
        assert base_licence(entry).id == wanted
    (tmp_path / "README.md").write_text("---\n{broken\n---\n")
    assert base_licence(entry).id is None
    assert base_licence(replace(entry, path=str(root / "resources" / "models" / "llama-s"))).id == "mit"
    assert source_licence(DataSource(path="mine.csv")).text == UNKNOWN
    assert source_licence(DataSource(generator="running_plans")).id == "mit"
    # Tests are offline.
    assert source_licence(DataSource(hub="owner/rows", revision="main")).text == UNKNOWN


def test_the_adapter_s_folder_has_the_chat_template_that_the_study_sets(finished: Finished, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    run, template = finished.run(), tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}")
    write_peft_form(replace(run, entry=replace(run.entry, chat_template=str(template))), tmp_path / "adapter")
    assert (tmp_path / "adapter" / "chat_template.jinja").read_text() == template.read_text()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "adapter")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], tokenize=False) == "[user] hello"


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed: requirements-gpu.txt")
def test_the_card_loads_an_adapter_on_the_4_bits_that_it_was_trained_on(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    four_bits = {"learning_rate": 1e-3, "precision": "4bit", "backend": "trl"}
    run = finish_study(tmp_path, model, base_case=four_bits, grid={"axes": {"method": ["lora"]}}).run()
    write_peft_form(run, tmp_path / "adapter")
    monkeypatch.chdir(tmp_path)
    lines = re.search(r"^```python\n(.*?)^```$", card_text(run, CARD), re.M | re.S)[1]
    lines = lines.replace("path/to/llama-s", run.record.base_source)
    found: dict[str, Any] = {}
    exec(lines, found)
    loaded, trained_on = (
        {name: value for name, value in one.config.quantization_config.to_dict().items() if "dtype" not in name}
        for one in (found["model"].get_base_model(), load_base(run.entry, device="cpu"))
    )
    assert loaded == trained_on and loaded["load_in_4bit"]
