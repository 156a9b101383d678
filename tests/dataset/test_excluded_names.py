"""Names to leave out, listed in a text file."""

import os

import pytest

from support.checking import exactly
from uncseg.config.experiment import load_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import chosen_cases
from uncseg.errors import ProblemsFound
from uncseg.tasks.built_in_tasks import paper_task


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("excluded") / "cases"
    write_phantoms(folder, cases=3, size=24, seed=1, task=paper_task())
    return folder


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_list_of_names_may_have_comments_and_names_with_a_number_sign(experiment_file, cases, tmp_path, encoding):
    listed = tmp_path / "excluded.txt"
    listed.write_text("BraTS-GLI-00001-000  # blurred\n# none\n[#3]\n", encoding=encoding)
    with pytest.raises(ProblemsFound) as caught:
        chosen_cases(load_experiment(experiment_file(cases, dataset={"exclude": str(listed)})))
    assert [problem.found for problem in caught.value.problems] == ["[#3]"]


@pytest.mark.parametrize(("content", "found"), [("Fäll", "UTF-8"), (None, "pipe"), ("", "No such file")])
def test_a_list_of_names_that_cannot_be_read_is_a_wrong_request(experiment_file, cases, tmp_path, content, found):
    listed = tmp_path / "excluded.txt"
    if content is None:
        os.mkfifo(listed)
    elif content:
        listed.write_text(content, encoding="latin-1")
    with pytest.raises(ProblemsFound) as caught:
        chosen_cases(load_experiment(experiment_file(cases, dataset={"exclude": str(listed)})))
    (problem,) = exactly(1, caught.value.problems)
    assert caught.value.exit_code == 2
    assert problem.where.startswith("dataset.exclude")
    assert str(listed) in problem.where
    assert found in problem.found


@pytest.mark.parametrize("names", [["001", 2], [1.5], None])
def test_names_that_yaml_reads_as_numbers_are_refused(experiment_file, cases, names):
    with pytest.raises(ProblemsFound) as caught:
        load_experiment(experiment_file(cases, dataset={"exclude": names}))
    (problem,) = exactly(1, caught.value.problems)
    assert problem.where.endswith("dataset.exclude")
    assert "quotes" in problem.expected


@pytest.mark.parametrize("value", [2018, "2018"])
def test_a_convention_may_be_a_number(experiment_file, cases, value):
    assert load_experiment(experiment_file(cases, dataset={"convention": value})).dataset.convention == "2018"
    assert load_experiment(experiment_file(cases), [f"dataset.convention={value}"]).dataset.convention == "2018"
