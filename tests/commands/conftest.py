"""Small cases for tests that replace files of them."""

import os
import shutil

import pytest

from uncseg.console import console, errors
from uncseg.dataset.phantom import write_phantoms
from uncseg.tasks.built_in_tasks import paper_task


@pytest.fixture(scope="session")
def plain_cases(tmp_path_factory):
    """A folder of three small phantoms and nothing else; tests must not change it."""
    folder = tmp_path_factory.mktemp("plain") / "cases"
    for case in write_phantoms(folder, cases=3, size=24, seed=1, task=paper_task()):
        (case / f"{case.name}-q.nii.gz").unlink()
    (folder / "phantoms.json").unlink()
    return folder


@pytest.fixture
def cases(plain_cases, tmp_path):
    """A copy of ``plain_cases``, made of links, which tests replace and never write through."""
    return shutil.copytree(plain_cases, tmp_path / "cases", copy_function=os.link)


@pytest.fixture
def wide(monkeypatch):
    """A terminal in which every problem is one line."""
    for output in (console, errors):
        monkeypatch.setattr(output, "width", 2000)
