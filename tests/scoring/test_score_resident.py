"""Score jobs of one process: what is the same for all subjects is made once, and the results are those of a process each."""

from collections import Counter

import pytest

import score
from loragrid.models.base_cache import release_base
from loragrid.runtime.delegation import residency
from loragrid.scoring import lm_eval_tasks, loaded_model
from loragrid.study.identity import file_content
from tests.fixtures.score_toys import contents, metrics
from tests.fixtures.studies import changed


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Makes this process a resident worker; counts what is made, by name, and texts that are encoded, as they are."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.models.huggingface import HFLM

    counts: Counter = Counter()

    def count(owner: object, name: str, *, by_text: bool = False) -> None:
        original = getattr(owner, name)

        def counting(*arguments: object, **options: object) -> object:
            counts[arguments[1] if by_text else name] += 1
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    count(score, "find_tasks")
    count(loaded_model, "load_tokenizer")
    count(ConfigurableTask, "fewshot_context")
    count(HFLM, "tok_encode", by_text=True)
    monkeypatch.setattr(residency, "_resident", True)
    monkeypatch.setattr(residency, "_kept", {})
    yield counts
    release_base()


def test_tasks_prompts_and_tokens_are_made_once_for_all_subjects(study, scored_alone, tmp_path, made) -> None:
    for number, alone in enumerate((*scored_alone, scored_alone[0])):
        subject = score.Subject(alone.name, alone.trained, alone.data, tmp_path / str(number))
        score.score_subjects(study=study, subjects=[subject])
        assert contents(subject.out) == contents(alone.out) and metrics(subject.out) == metrics(alone.out)
        if number == 0:
            first = made.copy()
    assert made == first, "the others find everything"
    assert made["find_tasks"] == made["load_tokenizer"] == 1 and made["fewshot_context"] == 2 * 6
    texts = {text: count for text, count in made.items() if "What is" in text}
    assert texts and set(texts.values()) == {1}


def test_changed_tasks_are_built_again(study, made) -> None:
    assert score.study_tasks(study) is score.study_tasks(study)
    limited, *_ = score.study_tasks(changed(study, scoring__limit=3)).values()
    assert made["find_tasks"] == 2 and limited.limit == 3
    file = study.path.parent / "questions.jsonl"
    before = file.read_text()
    file.write_text(before.replace("What is 0", "What was 0"))
    other, *_ = score.study_tasks(changed(study, scoring__limit=3)).values()
    file.write_text(before)
    assert other.digest != limited.digest and made["find_tasks"] == 3


def test_the_next_job_sees_files_that_were_changed(tmp_path) -> None:
    file = tmp_path / "rows.json"
    found = []
    for content in ("[]", "[1]"):
        file.write_text(content)
        found.append(file_content(str(file)))
        residency.forget_results()
    assert found[0] != found[1]


def test_other_processes_keep_nothing() -> None:
    assert residency.kept("tasks", key=lambda: pytest.fail("not needed"), make=lambda: 1) == 1 and not residency._kept
    assert lm_eval_tasks.find_tasks([], limit=None) is not lm_eval_tasks.find_tasks([], limit=None)
