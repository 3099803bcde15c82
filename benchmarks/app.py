"""Speed of the app on a finished study: answers, switches of the adapter, and a queue of plan requests.

    python -m benchmarks.app [--study demo] [--results results/demo] [--requests 50] [--out FILE.json]

Answers: seconds from a plan request to the first and the last word, by the tuned model that the app starts with. Switches:
seconds to change from one loaded adapter to another, and to read one from disk for the first time. Queue: that many different
plan requests, sent by ten clients at once through the app's own server; each text is compared with the answer to the same
request alone. The queue's seconds include Gradio's.
"""

import argparse
import itertools
import os
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.measuring import ONE_THREAD, RESULTS, spread, write

os.environ |= ONE_THREAD  # before torch is imported

from loragrid.app.answer_streamer import Answer
from loragrid.app.answering import MAX_NEW_TOKENS, Answerer, Sampling
from loragrid.app.catalogue import AppModel, Catalogue, read_catalogue
from loragrid.app.running_plan_form import FIELDS, NO_DAY, form_prompt, read_form
from loragrid.app.running_plan_tab import FIRST_SEED, TEMPERATURE
from loragrid.app.server import ServerOptions, build, serve
from loragrid.demo.running_plans import DAYS_PER_WEEK, LEVELS, RACES, WEEKS
from loragrid.formatting import visible
from loragrid.study.study_file import load_study

CLIENTS = 10
START = "2027-03-01"


def forms(count: int) -> list[dict[str, Any]]:
    """`count` different plan forms within the demo's training range, as a page sends them; the same at every call."""
    taught = random.Random(FIRST_SEED).sample(list(itertools.product(WEEKS, DAYS_PER_WEEK, RACES, LEVELS)), count)
    empty = {"target_time": "", "injuries": "", "details": "", "long_run_day": NO_DAY}
    return [
        {"name": f"user {number}", "race": race, "level": level, "weeks": weeks, "days_per_week": days} | empty
        for number, (weeks, days, race, level) in enumerate(taught)
    ]


def answered(answerer: Answerer, subject: AppModel, form: dict[str, Any]) -> tuple[Answer, float, float]:
    """The answer to a form, seconds to its first word and to its last."""
    asked = form_prompt(read_form(form), taught=answerer.catalogue.taught)
    began = time.monotonic()
    stream = answerer.stream(subject, asked, Sampling(FIRST_SEED, TEMPERATURE, MAX_NEW_TOKENS))
    came = [(answer, time.monotonic() - began) for answer in stream]
    return came[-1][0], came[0][1], came[-1][1]


def measure_loading(catalogue: Catalogue) -> tuple[Answerer, dict[str, Any]]:
    """Seconds to load a base with its first adapter, and to read and switch to each of its other adapters."""
    answerer = Answerer(catalogue)
    start = catalogue.subject(catalogue.start)
    load = _seconds(answerer.load, start)
    tuned = [subject for subject in catalogue.subjects if subject.adapter and subject.model == start.model]
    read = [_seconds(answerer.load, subject) for subject in tuned if subject != start]
    switched = [_seconds(answerer.load, subject) for _ in range(5) for subject in tuned]
    outcome = {"load_seconds": load, "adapters": len(tuned), "switch_seconds": spread(switched)}
    return answerer, outcome | ({"read_seconds": spread(read)} if read else {})


def _seconds(work: Callable[..., Any], *arguments: Any) -> float:
    began = time.monotonic()
    work(*arguments)
    return time.monotonic() - began


def measure_answers(answerer: Answerer, asked: list[dict[str, Any]]) -> tuple[list[str], dict[str, Any]]:
    """Answers each form alone: the texts, and their times."""
    subject = answerer.catalogue.subject(answerer.catalogue.start)
    answered(answerer, subject, asked[0])  # warm-up
    answers, firsts, seconds = zip(*(answered(answerer, subject, form) for form in asked))
    outcome = {"answer_seconds": spread(seconds), "first_word_seconds": spread(firsts)}
    outcome["tokens"] = spread([answer.tokens for answer in answers])
    return [visible(answer.text) for answer in answers], outcome


def measure_queue(answerer: Answerer, asked: list[dict[str, Any]], alone: list[str]) -> dict[str, Any]:
    """Sends all forms at once through the server."""
    from gradio_client import Client

    page = build(answerer)
    address = serve(page, ServerOptions())
    clients = [
        Client(address, verbose=False, download_files=False, httpx_kwargs={"timeout": 600}) for _ in range(CLIENTS)
    ]
    began = time.monotonic()

    def ask(number: int) -> tuple[bool, float]:
        job = clients[number % CLIENTS].submit(
            *(asked[number][field] for field in FIELDS), False, START, api_name="/plan"
        )
        job.result(timeout=600)
        texts = [outputs[1] for outputs in job.outputs() if isinstance(outputs[1], str)]
        return texts[-1] == alone[number], time.monotonic() - began

    with ThreadPoolExecutor(len(asked)) as pool:
        found = list(pool.map(ask, range(len(asked))))
    page.close(verbose=False)
    waited = [seconds for _, seconds in found]
    return {
        "requests": len(asked),
        "right": sum(right for right, _ in found),
        "seconds": max(waited),
        "wait": spread(waited),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", default="demo")
    parser.add_argument("--results", type=Path, help="folder of the study's results (results/STUDY)")
    parser.add_argument("--requests", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULTS / "app.json")
    options = parser.parse_args()
    study = load_study(options.study)
    results = options.results or Path("results") / study.name
    catalogue = read_catalogue(study, results=results, report=results / "none", run=None, adapter=None, model=None)
    answerer, loading = measure_loading(catalogue)
    asked = forms(options.requests)
    alone, answers = measure_answers(answerer, asked)
    queue = measure_queue(answerer, asked, alone)
    write(options.out, {"study": study.name, "model": catalogue.start, **loading, **answers, "queue": queue})


if __name__ == "__main__":
    main()
