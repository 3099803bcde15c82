"""Tasks run in process, compared with lm-eval's own `simple_evaluate` on the same model."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from loragrid.scoring import lm_eval_model
from loragrid.scoring.lm_eval_items import cluster_name
from loragrid.scoring.lm_eval_run import run_task
from loragrid.scoring.lm_eval_tasks import find_tasks
from loragrid.scoring.running_task import KeptAnswers, RunningTask
from loragrid.study.sections import ModelEntry
from tests.fixtures.lm_eval_toys import ALL, ANSWER, CHOICE, QUESTIONS, SCORE, SENTENCES, find, values, wrap


@pytest.fixture(scope="module")
def results(task_folder, network):
    lm = wrap(network)
    return {name: run_task(lm, task) for name, task in find(ALL, task_folder, limit=30).items()}


def test_scores_are_those_of_lm_eval_itself(task_folder, network, results):
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(pretrained=network[0], tokenizer=network[1], batch_size=8)
    # Reading lm-eval's index of default tasks takes ten seconds.
    shared = {"task_manager": TaskManager(include_defaults=False), "bootstrap_iters": 1000}
    for names, template in ((["toy_choice", "toy_answer"], True), (["toy_rolling", "toy_sentences"], False)):
        tasks = [
            task for found in find(names, task_folder, limit=30).values() for task in found.loaded["tasks"].values()
        ]
        theirs = simple_evaluate(model=lm, tasks=tasks, limit=30, apply_chat_template=template, **shared)
        for name in names:
            for key, value in theirs["results"][name].items():
                metric, _, kind = key.partition(",")
                if kind and not metric.endswith("_stderr"):
                    # lm-eval computes logits of every token, in other batches.
                    assert results[name].metrics[metric]["value"] == pytest.approx(value, rel=1e-6)
            texts = [sample["resps"][0][0] for sample in theirs["samples"][name]]
            if name == "toy_answer":
                assert [row["output"] for row in results[name].items if row["metric"] == "digits"] == texts


def test_another_architecture_answers_every_kind_of_task(task_folder, toy_gemma):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    lm = wrap((AutoModelForCausalLM.from_pretrained(toy_gemma).eval(), AutoTokenizer.from_pretrained(toy_gemma)))
    for task in find(ALL, task_folder, limit=5).values():
        result = run_task(lm, task)
        assert len(values(result, result.primary_metric)) == 5


def test_every_item_has_a_value_whose_mean_is_the_score(results):
    for name, metric in (("toy_choice", "acc"), ("toy_answer", "letters"), ("toy_sentences", "acc")):
        items = values(results[name], metric)
        assert list(items) == [str(i) for i in range(30)]
        assert results[name].metrics[metric]["value"] == pytest.approx(math.fsum(items.values()) / 30)
    bits = values(results["toy_rolling"], "bits_per_byte")
    assert len(bits) == 30 and all(6 < value < 10 for value in bits.values())  # near uniform over 263 byte tokens


def test_items_on_one_passage_share_a_cluster(results):
    clusters = {row["item"]: row["cluster"] for row in results["toy_choice"].items}
    assert len(set(clusters.values())) == 6  # rows 3 to 32, six to a passage
    assert clusters["0"] == clusters["2"] != clusters["3"]


def test_a_task_file_may_name_its_cluster_field_or_none():
    def cluster(metadata, doc):
        return cluster_name(SimpleNamespace(get_config=lambda _: metadata), doc)

    doc = {"passage": "p", "lesson": 7}
    assert (
        cluster({"cluster_field": "lesson"}, doc) == cluster({"cluster_field": "lesson"}, doc | {"passage": "q"}) != ""
    )
    assert cluster({"cluster_field": None}, doc) == "" == cluster(None, {"lesson": 7})
    with pytest.raises(ValueError, match="cluster_field 'page' is none of the document's fields: passage, lesson"):
        cluster({"cluster_field": "page"}, doc)


def test_primary_metric_is_the_named_one_or_the_first(results):
    assert {name: result.primary_metric for name, result in results.items()} == {
        "toy_choice": "acc", "toy_answer": "letters", "toy_rolling": "bits_per_byte", "toy_sentences": "acc",
    }  # fmt: skip


def test_measures_of_answers_are_kept_and_are_not_scores(results):
    answer = results["toy_answer"]
    for name in ("new_tokens", "stopped", "repetition", "special_tokens", "distinct_2"):
        assert answer.metrics[name]["higher_is_better"] is None
    assert values(answer, "new_tokens").keys() == values(answer, "letters").keys()
    for item, stopped in values(answer, "stopped").items():
        assert stopped or values(answer, "new_tokens")[item] == 24
    assert "new_tokens" not in results["toy_choice"].metrics


def test_answers_that_generate_has_to_write_are_kept_too(task_folder, network, tmp_path, monkeypatch):
    from lm_eval.models.huggingface import HFLM

    # A setting that changes logits.
    monkeypatch.setattr(network[0].generation_config, "repetition_penalty", 1.2)
    task, path = find(["toy_answer"], task_folder, limit=5)["toy_answer"], tmp_path / "toy.answers"
    first = run_task(wrap(network), task, RunningTask("toy", KeptAnswers(path, "key")))
    monkeypatch.setattr(HFLM, "_model_generate", lambda *_, **__: pytest.fail("written again"))
    assert run_task(wrap(network), task, RunningTask("toy", KeptAnswers(path, "key"))).items == first.items


def test_the_chat_template_is_applied_to_questions_only(task_folder, network, results):
    rendered = []
    lm = wrap(network)
    original = lm.tok_encode
    lm.tok_encode = lambda text, *a, **k: rendered.append(text) or original(text, *a, **k)
    tasks = find(["toy_choice", "toy_sentences"], task_folder, limit=2)
    run_task(lm, tasks["toy_choice"])
    assert all(text.startswith("<s><|user|>What is ") and "<|end|><|assistant|>" in text for text in rendered)
    rendered.clear()
    run_task(lm, tasks["toy_sentences"])
    assert rendered and not any("<|" in text for text in rendered)
    assert results["toy_choice"].notes == ()
    assert "without the chat template" in results["toy_sentences"].notes[0]


def test_each_template_of_a_task_is_compiled_once(results, task_folder):
    from lm_eval.utils import apply_template, env

    compiled = env.from_string.cache_info().misses
    assert results and 0 < compiled < 30  # 30 items of each of the tasks, and several templates an item
    # Another template is another text, and its items are its own.
    assert [apply_template("{{a}}!", {"a": word}) for word in ("x", "y")] == ["x!", "y!"]
    assert apply_template("{{a}}?", {"a": "x"}) == "x?" and env.from_string.cache_info().misses == compiled + 2


def test_no_second_beginning_of_sequence(task_folder, toy_llama, network, monkeypatch):
    """A tokenizer that adds <s> to any text, as Llama's does, must not add one to a template that has it."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toy_llama)
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert tokenizer("hi").input_ids[0] == 1
    seen, answer = [], lm_eval_model.all_answers

    def noting(model, requests, **options):
        seen.append([request.ids for request in requests])
        return answer(model, requests, **options)

    monkeypatch.setattr(lm_eval_model, "all_answers", noting)
    for template in (tokenizer.chat_template, tokenizer.chat_template.replace("{{ bos_token }}", "")):
        tokenizer.chat_template = template
        lm = wrap((network[0], tokenizer))
        score = lm._loglikelihood_tokens
        lm._loglikelihood_tokens = lambda r, *a, _f=score, **k: seen.append([x[1] for x in r]) or _f(r, *a, **k)
        for task in find(["toy_choice", "toy_answer"], task_folder, limit=3).values():
            run_task(lm, task)
    counts = [[row.count(1) for row in rows] for rows in seen]
    assert counts == [[1] * 6, [1] * 3, [0] * 6, [0] * 3]  # exactly what the template writes, as in training


def test_a_task_description_reaches_a_model_without_a_system_role(task_folder, network, toy_llama, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toy_llama)
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refusal + tokenizer.chat_template
    (tmp_path / "questions.jsonl").write_text(json.dumps(QUESTIONS[0]) + "\n")
    (tmp_path / "described.yaml").write_text(CHOICE.replace("toy_choice", "described") + "description: Count well.\n")
    lm, seen = wrap((network[0], tokenizer)), []
    original = lm.tok_encode
    lm.tok_encode = lambda text, *a, **k: seen.append(text) or original(text, *a, **k)
    run_task(lm, find(["described"], tmp_path)["described"])
    assert all("<|user|>Count well." in text and "What is 3 plus 4?" in text for text in seen)


def test_prompts_longer_than_the_context_are_cut_and_counted(task_folder, network, tmp_path):
    long = [*QUESTIONS[:3], QUESTIONS[0] | {"q": "x" * 700}]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    (tmp_path / "score.py").write_text(SCORE)
    for name, text in (("toy_choice", CHOICE), ("toy_answer", ANSWER)):
        (tmp_path / f"{name}.yaml").write_text(text)
    for task in find(["toy_choice", "toy_answer"], tmp_path, limit=None).values():
        result = run_task(wrap(network), task)
        assert "1 of 4 prompts were longer than the model's context and cut on the left" in result.notes
        assert values(result, "cut_prompt") == {"0": 0.0, "1": 0.0, "2": 0.0, "3": 1.0}


def test_lm_eval_results_contain_no_path_or_date(task_folder, results):
    for result in results.values():
        text = json.dumps(result.lm_eval)
        assert str(task_folder) not in text and "date" not in result.lm_eval
        assert result.lm_eval["results"] and "samples" not in result.lm_eval


def test_real_sentences_on_a_real_model(real, tmp_path):
    """BLiMP on stories260k: sentences without a question. The model must beat chance on several of the six phenomena."""
    from loragrid.models.loading import load_base, load_tokenizer

    entry = ModelEntry(path=str(real / "stories260k"), precision="32bit", chat_template=None)
    template = tmp_path / "plain.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    paths = []
    for data in sorted((real / "tasks").glob("blimp_*.jsonl")):
        paths.append(tmp_path / f"{data.stem}.yaml")
        text = SENTENCES.replace("toy_sentences", data.stem).replace("questions.jsonl", str(data))
        paths[-1].write_text(text.replace("[q, a]", "[sentence_good, sentence_bad]") + 'target_delimiter: ""\n')
    tasks = find_tasks([str(path) for path in paths], limit=None)
    lm = wrap((load_base(entry, device="cpu"), load_tokenizer(replace(entry, chat_template=str(template)))), 50)
    scores = {task.name: run_task(lm, task).metrics["acc"] for task in tasks.values()}
    assert len(scores) == 6
    beyond_chance = [name for name, score in scores.items() if score["value"] - 3 * score["stderr"] > 0.5]
    assert len(beyond_chance) >= 3, scores
