"""The texts of items, which are looked for in the training rows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loragrid.scoring.item_texts import item_texts
from loragrid.scoring.lm_eval_run import run_task
from tests.fixtures.lm_eval_toys import ALL, HEAD, find, values, wrap

# Winogrande's form: each choice is a question, and all have one answer.
BLANKS = HEAD + (
    'task: toy_blanks\noutput_type: multiple_choice\ndoc_to_text: "0"\ndoc_to_choice: "{{[q, passage]}}"\n'
    'doc_to_target: "so {{a}}"\nmetric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n'
)
# A metric that also asks for every choice without its question.
UNCONDITIONAL = HEAD + (
    'task: toy_unconditional\noutput_type: multiple_choice\ndoc_to_text: "{{q}}"\ndoc_to_choice: "{{choices}}"\n'
    "doc_to_target: 0\nmetric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
    "  - {metric: acc_mutual_info, aggregation: mean, higher_is_better: true}\n"
)
REFERENCES = HEAD + (
    'task: toy_references\noutput_type: generate_until\ndescription: "Answer.\\n"\ndoc_to_text: "{{q}}"\n'
    'doc_to_target: "{{choices}}"\ngeneration_kwargs: {until: ["\\n"]}\nnum_fewshot: 0\n'
    "metric_list:\n  - {metric: exact_match, aggregation: mean, higher_is_better: true}\n"
)
NO_REFERENCE = REFERENCES.replace("toy_references", "toy_none").replace(
    'doc_to_target: "{{choices}}"', "doc_to_target: 0"
)


@pytest.fixture(scope="module")
def folder(task_folder: Path) -> Path:
    texts = {"blanks": BLANKS, "unconditional": UNCONDITIONAL, "references": REFERENCES, "none": NO_REFERENCE}
    for name, text in texts.items():
        (task_folder / f"toy_{name}.yaml").write_text(text)
    return task_folder


def test_an_item_s_texts_are_its_question_with_each_answer(folder: Path) -> None:
    names = [*ALL, "toy_blanks", "toy_unconditional", "toy_references", "toy_none"]
    found = {name: item_texts(task) for name, task in find(names, folder, limit=5).items()}
    assert all(list(items) == list("01234") for items in found.values())
    question, answer = "What is 3 plus 4?", "7"
    texts = {name: tuple(" ".join(text.split()) for text in items["0"]) for name, items in found.items()}
    assert texts == {
        "toy_choice": (f"{question} 7", f"{question} 9"),
        "toy_answer": (f"{question} {answer}",),
        "toy_rolling": (question,),
        "toy_sentences": (question, answer),
        "toy_blanks": (f"{question} so {answer}", f"0 so {answer}"),
        "toy_unconditional": (f"{question} 7", f"{question} 9"),
        "toy_references": (f"{question} 7", f"{question} 9"),
        "toy_none": (question,),
    }


def test_items_have_the_names_that_their_scores_have(folder: Path, network: tuple[Any, Any]) -> None:
    tasks = find(["toy_choice", "toy_sentences"], folder, limit=5)
    result = run_task(wrap(network), tasks["toy_choice"])
    assert list(item_texts(tasks["toy_choice"])) == list(values(result, "acc"))
    loaded = {"tasks": {name: task for one in tasks.values() for name, task in one.loaded["tasks"].items()}}
    in_group = item_texts(replace(tasks["toy_choice"], name="both", loaded=loaded))
    assert list(in_group)[4:6] == ["toy_choice/4", "toy_sentences/0"] and len(in_group) == 10
