"""Scoring by vLLM, on a stand-in with its documented interface: the scores of transformers, one engine, its limits."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import yaml

import score
from loragrid.errors import Failed, UserError
from loragrid.models.loading import load_base
from loragrid.planning.job_resources import WHOLE_GPU_MIB, resource_requests
from loragrid.records.outcomes import collect
from loragrid.records.record import ScoreRecord, read_record
from loragrid.scoring.subjects import identify
from loragrid.scoring.vllm_engine import process, server
from loragrid.scoring.vllm_engine.served_adapters import engine_adapters
from loragrid.scoring.vllm_engine.vllm_model import ModelFacts
from loragrid.study.study_file import load_study
from loragrid.study.tasks import scoring_digest
from tests.fixtures.delegated_jobs import wait_until
from tests.fixtures.score_toys import as_base, as_run, write_adapter
from tests.fixtures.vllm_engine import engine_starts, make_interpreter


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory):
    """The interpreter of the stand-in, set for all tests of this module."""
    with pytest.MonkeyPatch.context() as patch:
        python = make_interpreter(tmp_path_factory.mktemp("vllm"))
        patch.setenv(process.VARIABLE, str(python))
        yield python


def with_engine(study, **changes):
    return replace(study, yaml=study.yaml | {"scoring": study.yaml["scoring"] | {"engine": "vllm"} | changes})


@pytest.fixture(scope="module")
def served(study, data, runs, python, tmp_path_factory):
    """The study with vLLM, and the base and both runs scored in one call."""
    out = tmp_path_factory.mktemp("results") / "score"
    served = with_engine(study)
    subjects = [as_base(study, data, out), *(as_run(run, data, out) for run in runs)]
    subjects = [replace(subject, out=out / subject.name) for subject in subjects]
    score.score_subjects(study=served, subjects=subjects)
    return served, subjects


def test_the_scores_are_those_of_transformers(served, scored_alone):
    for vllm, hf in zip(served[1], scored_alone, strict=True):
        ours, theirs = (pandas.read_parquet(subject.out / "items.parquet") for subject in (vllm, hf))
        assert ours.drop(columns="value").equals(theirs.drop(columns="value"))
        assert ours.value.to_numpy() == pytest.approx(theirs.value.to_numpy(), abs=1e-5)
        ours, theirs = (json.loads((subject.out / "answers.jsonl").read_text()) for subject in (vllm, hf))
        for wording in ("prompt", "original"):
            assert ours[wording].pop("reference_log_likelihood") == pytest.approx(
                theirs[wording].pop("reference_log_likelihood"), abs=1e-5
            )
        assert ours == theirs


@pytest.mark.parametrize("way", ["killed", "closed"])
def test_what_the_engine_started_ends_with_the_job(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is this script, whose child would outlive it; the job is killed while it waits for the engine."""
    children, engine = tmp_path / "children", tmp_path / "python"
    ready = "read settings; echo '{}'; read more" if way == "closed" else "wait"
    engine.write_text(f"#!/bin/sh\nsleep 300 > /dev/null 2>&1 &\necho $! $$ > {children}\n{ready}\n")
    engine.chmod(0o755)
    code = "from loragrid.scoring.vllm_engine.process import VllmProcess; VllmProcess({}).close()"
    job = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {process.VARIABLE: str(engine)})
    wait_until(lambda: children.exists() and len(children.read_text().split()) == 2)
    started = [int(number) for number in children.read_text().split()]
    if way == "killed":
        assert all(is_running(number) for number in started)
        job.kill()
    job.wait(20)
    wait_until(lambda: not any(is_running(number) for number in started))


def is_running(process_id: int) -> bool:
    """False for a zombie too, which nobody may have waited for."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_one_engine_serves_the_base_and_all_its_adapters(served, python):
    assert engine_starts(python) == 1
    # A job with nothing left to score starts none.
    score.score_subjects(study=served[0], subjects=served[1])
    assert engine_starts(python) == 1


def test_the_record_names_the_engine_and_no_score_is_used_for_the_other(served, study, scored_alone):
    for vllm, hf in zip(served[1], scored_alone, strict=True):
        ours, theirs = (read_record(subject.out / "score.json", ScoreRecord) for subject in (vllm, hf))
        assert (ours.engine, ours.versions["vllm"]) == ("vllm", "0.0.1")
        assert (theirs.engine, theirs.versions.get("vllm")) == ("hf", None)
        assert identify(served[0], vllm).digest != identify(study, vllm).digest
    results = served[1][0].out.parent.parent
    assert next(iter(collect(served[0], results))).status == "scored"
    for found in collect(study, results)[:1]:
        assert (found.status, found.score) == ("missing", None)
        assert found.reason == "scored by vllm, not by hf as scoring.engine says now"


@pytest.fixture(scope="module")
def engine(python, runs, toy_llama):
    adapters = [folder / "adapter" for _, folder in runs]
    settings = {"model": str(toy_llama), "dtype": "float32", "context": 512} | engine_adapters(adapters).settings()
    engine = process.VllmProcess(settings)
    yield engine
    engine.close()


def test_a_token_is_scored_alone_or_with_its_prompt(engine, network):
    """Many short prompts, for which vLLM has a prefix cache, or one: the same numbers."""
    import torch

    ids = torch.randint(7, 200, (512,), generator=torch.Generator().manual_seed(1)).tolist()
    rows = [(ids[:9], 1), (ids[:300], 3), (ids[:40], 39), (ids[:9], 4), (ids, 2)]
    assert [server._token_by_token(len(row), number) for row, number in rows] == [True, True, False, False, True]
    for (row, number), pairs in zip(rows, engine.scores(rows, None), strict=True):
        with torch.inference_mode():
            expected = network[0](torch.tensor([row])).logits[0].log_softmax(-1)
        places = range(len(row) - number, len(row))
        assert [value for value, _ in pairs] == pytest.approx(
            [float(expected[i - 1, row[i]]) for i in places], abs=1e-5
        )
        assert [rank for _, rank in pairs] == [int((expected[i - 1] >= expected[i - 1, row[i]]).sum()) for i in places]


def test_an_answer_ends_at_a_stop_text(engine, network):
    ids = list(range(7, 20))
    free = {"ends": [], "stops": [], "sampling": {"temperature": 0.0}}
    tokens = engine.tokens([(ids, 20)], None, free)[0]
    assert len(tokens) == 20
    stop = network[1].decode(tokens[7:9])
    cut = engine.tokens([(ids, 20)], None, free | {"stops": [stop]})[0]
    assert cut == tokens[: len(cut)] and stop in network[1].decode(cut) and len(cut) < 20
    assert engine.tokens([(ids, 20)], None, free | {"ends": [tokens[4]]})[0] == tokens[: tokens.index(tokens[4]) + 1]


def test_a_request_that_fails_does_not_end_the_engine(engine):
    with pytest.raises(RuntimeError, match="vllm: ValueError: a prompt of 512 tokens"):
        engine.tokens([([7] * 512, 1)], None, {"ends": [], "stops": [], "sampling": {"temperature": 0.0}})
    assert engine.scores([([7, 8], 1)], None)


def test_an_engine_that_ends_is_named_with_its_last_error(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\necho 'ValueError: no room on the card' >&2\necho 'see above for the Error' >&2\nexit 3"
    )
    python.chmod(0o755)
    monkeypatch.setenv(process.VARIABLE, str(python))
    with pytest.raises(Failed, match=r"vllm ended with status 3 \(ValueError: no room on the card\)"):
        process.VllmProcess({})


def test_what_vllm_cannot_serve_is_refused_before_any_work(study, data, runs, toy_llama, tmp_path, python):
    name, folder = runs[0]
    dora = write_adapter(toy_llama, tmp_path / "adapter", seed=1, use_dora=True)
    with pytest.raises(UserError, match=r"vllm cannot serve this adapter \(its use_dora is set\). Fix: set scoring"):
        engine_adapters([folder / "adapter", dora])
    with pytest.raises(UserError, match="rank 513 is above 512"):
        config = json.loads((dora / "adapter_config.json").read_text()) | {"use_dora": False, "r": 513}
        (dora / "adapter_config.json").write_text(json.dumps(config))
        engine_adapters([dora])
    run = as_run((name, tmp_path / "run"), data, tmp_path / "out")
    shutil.copytree(folder, tmp_path / "run")
    identity = replace(
        identify(with_engine(study), run), entry=replace(study.base_entry(study.cells[0]), precision="4bit")
    )
    with pytest.raises(UserError, match="vllm loads no 4bit base"):
        score.model_of(with_engine(study), [identity])
    assert not (tmp_path / "out").exists()


def test_the_engine_is_made_for_its_largest_adapter(toy_llama, runs, tmp_path):
    small = runs[0][1] / "adapter"
    large = write_adapter(toy_llama, tmp_path / "large", seed=1, r=24, target_modules=["q_proj", "v_proj"])
    served = engine_adapters([large])
    assert served.settings() == {"max_lora_rank": 32, "target_modules": ["q_proj", "v_proj"]}
    both = engine_adapters([small, large])
    assert (both.rank, both.settings()["max_lora_rank"], len(both.modules)) == (24, 32, 7)
    assert both.include(served) and not served.include(both)


def test_a_missing_environment_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv(process.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"vllm has no environment \(.*none is missing\). Fix: run `make vllm`"):
        process.engine_versions()
    (tmp_path / "none").write_text("#!/bin/sh\necho '{}'")
    (tmp_path / "none").chmod(0o755)
    with pytest.raises(UserError, match="vllm is not installed for"):
        process.engine_versions()


def test_generation_settings_are_followed_or_refused(toy_llama, tmp_path):
    folder = Path(shutil.copytree(toy_llama, tmp_path / "model"))
    assert ModelFacts(folder).sampling() == {"temperature": 0.0, "repetition_penalty": 1.0}
    settings = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(settings | {"repetition_penalty": 1.2}))
    assert ModelFacts(folder).sampling()["repetition_penalty"] == 1.2
    (folder / "generation_config.json").write_text(json.dumps(settings | {"no_repeat_ngram_size": 3}))
    with pytest.raises(UserError, match="vllm has no no_repeat_ngram_size"):
        ModelFacts(folder).sampling()


def test_the_facts_are_those_of_the_model(study, toy_llama):
    model, facts = load_base(study.base_entry(study.cells[0]), device="cpu"), ModelFacts(toy_llama)
    assert facts.config.to_dict() == model.config.to_dict() | {"dtype": facts.config.to_dict()["dtype"]}
    assert facts.generation_config.to_diff_dict() == model.generation_config.to_diff_dict()


@pytest.mark.parametrize(
    ("base_case", "message"),
    [
        ({"method": "dora"}, r"scoring\.engine: vllm cannot score a run of this method \(dora\)\. Fix: set scoring"),
        ({"precision": "4bit"}, r"scoring\.engine: vllm loads no base in this precision \(4bit\)"),
        ({"method": "pissa", "precision": "32bit"}, None),
    ],
)
def test_a_study_file_that_vllm_cannot_score_is_refused_at_once(base_case, message, study, toy_llama, tmp_path):
    settings = yaml.safe_load(study.path.read_text())
    settings["base_case"] |= base_case
    settings["scoring"] = {"engine": "vllm", "target": ["heldout_loss"]}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(settings))
    if message is None:
        assert load_study(str(tmp_path / "toy.yaml")).scoring.engine == "vllm"
    else:
        with pytest.raises(UserError, match=message):
            load_study(str(tmp_path / "toy.yaml"))


def test_the_engine_counts_in_the_digest_and_its_job_asks_for_the_whole_card(study, tmp_path):
    served = with_engine(study)
    assert scoring_digest(served) != scoring_digest(study)
    whole, part = (
        resource_requests(one, one.cells, results=tmp_path, session_minutes=None)["score"] for one in (served, study)
    )
    run = study.cells[0].run
    assert whole[run]["vram_mib"] == WHOLE_GPU_MIB > part[run]["vram_mib"]
