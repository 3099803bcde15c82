"""lm-eval's own tasks in the t4 studies, built and run unchanged; only their rows, which come from the hub, are invented."""

import math
from pathlib import Path
from typing import Any

import datasets
import nltk
import pytest
from langdetect import DetectorFactory
from nltk.tokenize.punkt import PunktParameters, save_punkt_params

from loragrid.models.chat_templates.probes import inspect_template
from loragrid.models.loading import load_base, load_tokenizer
from loragrid.scoring.lm_eval_run import run_task
from loragrid.scoring.lm_eval_tasks import find_tasks
from loragrid.study.sections import ModelEntry
from loragrid.study.study_file import load_study

# On the hub, every row of IFEval has all arguments, most of them null.
KWARGS = {"language": None, "num_sentences": None, "relation": None}
ROWS = {
    "google/IFEval": [
        {
            "key": 2,
            "prompt": "Write three sentences in German without a comma.",
            "instruction_id_list": [
                "punctuation:no_comma",
                "language:response_language",
                "length_constraints:number_sentences",
            ],
            "kwargs": [KWARGS, KWARGS | {"language": "de"}, KWARGS | {"num_sentences": 3, "relation": "at least"}],
        },
    ],
    "Rowan/hellaswag": [
        {"activity_label": "Cooking", "ctx_a": "A man cooks.", "ctx_b": "he", "label": "1", "ind": 1}
        | {"endings": ["eats", "runs", "is", "sings"]}
    ],
    "allenai/ai2_arc": [
        {"id": "1", "question": "What is hot?", "answerKey": "B"}
        | {"choices": {"text": ["ice", "fire", "snow", "rain"], "label": list("ABCD")}}
    ],
    "allenai/winogrande": [
        {"sentence": "Tom beat Bob because _ was fast.", "option1": "Tom", "option2": "Bob", "answer": "1"}
    ],
}
STOCK = ["ifeval", "hellaswag", "arc_challenge", "winogrande"]


@pytest.fixture
def rows_instead_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(path: str, **_: Any) -> datasets.DatasetDict:
        rows = datasets.Dataset.from_list(ROWS[path] * 5)
        return datasets.DatasetDict(dict.fromkeys(("train", "validation", "test"), rows))

    monkeypatch.setattr(datasets, "load_dataset", load)


@pytest.fixture
def nltk_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """NLTK's data folder, empty and without downloads."""
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(nltk, "download", lambda *_: False)
    return tmp_path


def test_every_stock_task_of_the_t4_study_is_built_and_scored(
    rows_instead_of_the_hub: None, nltk_data: Path, toy_llama: Path
) -> None:
    from loragrid.scoring.lm_eval_model import LmEvalModel

    scoring = load_study("t4").scoring
    assert {*STOCK, "running_plan_general", "rephrased_prompts", "heldout_loss"} == {
        *scoring.tasks,
    }
    rules = nltk_data / "tokenizers" / "punkt_tab" / "english"
    rules.mkdir(parents=True)
    save_punkt_params(PunktParameters(), str(rules))
    entry = ModelEntry(path=str(toy_llama), precision="32bit", chat_template=None)
    template = inspect_template(load_tokenizer(entry), model="toy")
    lm = LmEvalModel(load_base(entry, device="cpu"), template, batch_size=4)
    primary = {}
    for name, task in find_tasks(STOCK, limit={"ifeval": 2, "others": 4}).items():
        assert task.reason is None, task.reason
        if name == "ifeval":  # an answer's 1,280 tokens exceed the toy's context
            one = task.loaded["tasks"][name]
            one.set_config("generation_kwargs", one.get_config("generation_kwargs") | {"max_gen_toks": 32})
        result = run_task(lm, task)
        primary[name] = result.primary_metric
        items = {row["item"] for row in result.items if row["metric"] == result.primary_metric}
        assert len(items) == (2 if name == "ifeval" else 4) and result.notes == ()
    assert primary == dict.fromkeys(STOCK, "acc") | {"ifeval": "prompt_level_strict_acc"}
    assert DetectorFactory.seed == 0  # without a seed, the detected language of an answer can change from run to run


def test_rephrased_prompts_score_the_reference_by_the_byte(toy_llama: Path) -> None:
    from loragrid.scoring.answers import answer_prompts
    from loragrid.scoring.lm_eval_model import LmEvalModel
    from loragrid.scoring.prompts import read_prompts

    entry = ModelEntry(path=str(toy_llama), precision="32bit", chat_template=None)
    template = inspect_template(load_tokenizer(entry), model="toy")
    model = load_base(entry, device="cpu")
    task = find_tasks(["rephrased_prompts"], limit=None)["rephrased_prompts"]
    rows = task.loaded["tasks"]["rephrased_prompts"].eval_docs
    assert len(rows) == 24
    result = run_task(LmEvalModel(model, template, batch_size=4), task)
    assert result.metrics["reference_bits_per_byte"]["higher_is_better"] is False
    values = {row["item"]: row["value"] for row in result.items if row["metric"] == result.primary_metric}
    prompts = read_prompts(Path(load_study("t4").scoring.qualitative))
    template.tokenizer.chat_template = template.text
    fitting = 0
    for index, answer in enumerate(answer_prompts(model, template.tokenizer, prompts, batch_size=4)):
        nats_per_token = answer["prompt"]["reference_log_likelihood"]
        if nats_per_token is not None:  # the toy's context holds prompt and reference
            fitting += 1
            bits = -nats_per_token * answer["reference_tokens"] / math.log(2)
            assert values[str(index)] == pytest.approx(bits / len(prompts[index].reference.encode()), rel=1e-3)
    assert fitting > 0


def test_ifeval_without_its_sentence_rules_is_one_clear_line(rows_instead_of_the_hub: None, nltk_data: Path) -> None:
    task = find_tasks(["ifeval"], limit=2)["ifeval"]
    assert task.loaded is None and "\n" not in task.reason
    assert "python -m nltk.downloader punkt_tab" in task.reason
