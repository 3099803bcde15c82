"""A toy study, and the app served with fixed answers."""

from pathlib import Path

import pytest

from tests.fixtures.app_pages import BASE_PLAN
from tests.fixtures.app_toys import PLAN, Scripted, finished_study, serving, toy_catalogue


@pytest.fixture(autouse=True)
def closed_pages(browser):
    """Close the pages of a test, so that none runs during the next test."""
    yield
    for context in browser.contexts:
        context.close()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, toy_llama: Path):
    return finished_study(tmp_path_factory.mktemp("app"), toy=toy_llama)


@pytest.fixture(scope="module")
def served(study):
    answerer = Scripted(toy_catalogue(study), tuned=PLAN, base=BASE_PLAN)
    address, page = serving(answerer)
    yield address, answerer
    page.close(verbose=False)


@pytest.fixture
def scripted(served):
    """The answerer of `served`; its texts are restored afterwards."""
    _, answerer = served
    before = (answerer.tuned, answerer.base, answerer.pause)
    yield answerer
    answerer.tuned, answerer.base, answerer.pause = before
