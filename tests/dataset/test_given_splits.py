"""Splits of one's own and groups to leave out: what files say is what is trained, or refused by name."""

import json
import shutil

import pytest
import yaml

from uncseg.config.case_lists import short_lists
from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.config.fields import flatten
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import chosen_cases, preparation_digest
from uncseg.dataset.splits import given_splits
from uncseg.errors import ProblemsFound
from uncseg.runs.run_opening import differing_settings
from uncseg.studies.benchmark.benchmark_file import Benchmark
from uncseg.studies.benchmark.load_benchmark import load_benchmark
from uncseg.studies.load_study import read_study, save_study
from uncseg.studies.study_folder import BenchmarkFolder
from uncseg.studies.sweep.load_sweep import load_sweep
from uncseg.studies.sweep.space import trial_experiment
from uncseg.tasks.built_in_tasks import paper_task

A, B, C, D, E, F = CASES = [f"BraTS-GLI-{n:05d}-000" for n in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six cases of six patients."""
    folder = tmp_path_factory.mktemp("given") / "cases"
    write_phantoms(folder, cases=7, size=24, seed=0, task=paper_task())
    shutil.rmtree(folder / "BraTS-GLI-00004-001")  # the second scan of a patient
    assert sorted(case.name for case in folder.iterdir() if case.is_dir()) == CASES
    return folder


@pytest.fixture
def load(experiment_file, folder):
    """A function that loads an experiment on the six cases, without split.folds."""

    def loaded(**sections):
        file = experiment_file(folder, **sections)
        content = yaml.safe_load(file.read_text()) | {"split": sections.get("split", {})}
        file.write_text(yaml.safe_dump(content))
        return load_experiment(file)

    return loaded


@pytest.fixture
def refused(load):
    """A function that returns the problems of an experiment on the six cases, found when it is loaded or later."""

    def problems(**sections):
        with pytest.raises(ProblemsFound) as caught:
            chosen_cases(load(**sections))
        assert caught.value.exit_code == 2
        return caught.value.problems

    return problems


def write_csv(file, column, **values):
    lines = [f"{case},{value}\n" for value, cases in values.items() for case in cases]
    file.write_text(f"case,{column}\n{''.join(lines)}".replace(",fold_", ","))
    return str(file)


def write_json(file, *folds):
    file.write_text(json.dumps([{"train": train, "val": val} for train, val in folds]))
    return str(file)


def splits_of(experiment):
    cases, _ = chosen_cases(experiment)
    return given_splits(experiment.split.given, [case.case_id for case in cases])


def test_a_csv_says_the_fold_of_each_case(load, tmp_path):
    file = write_csv(tmp_path / "folds.csv", "fold", fold_1=[A, B], fold_0=[C, F], fold_2=[E, D])
    experiment = load(split={"file": file})
    assert experiment.split.folds == 3
    assert splits_of(experiment) == [
        {"train": [A, B, D, E], "val": [C, F]},
        {"train": [C, D, E, F], "val": [A, B]},
        {"train": [A, B, C, F], "val": [D, E]},
    ]
    assert experiment.split.given.groups is None


def test_nnunets_file_is_taken_as_it_is(load, tmp_path):
    file = write_json(tmp_path / "splits_final.json", ([F, D, E], [C, A, B]), ([B, A], [D, E, F]))
    experiment = load(split={"file": file, "folds": 2})
    # the second fold is not trained on C
    assert splits_of(experiment) == [{"train": [D, E, F], "val": [A, B, C]}, {"train": [A, B], "val": [D, E, F]}]


def test_a_fold_leaves_out_a_group_in_sorted_order(load, tmp_path):
    file = write_csv(tmp_path / "sites.csv", "group", Oslo=[A, F], Bern=[B, C], Turin=[D, E])
    experiment = load(split={"groups": file})
    assert experiment.split.folds == 3
    assert experiment.split.given.groups == ["Bern", "Oslo", "Turin"]
    assert [fold["val"] for fold in splits_of(experiment)] == [[B, C], [A, F], [D, E]]
    assert [len(fold["train"]) for fold in splits_of(experiment)] == [4, 4, 4]


def test_excluded_cases_may_be_listed(load, tmp_path):
    listed = write_csv(tmp_path / "folds.csv", "fold", fold_0=[A, B, C], fold_1=[D, E, F])
    experiment = load(split={"file": listed}, dataset={"exclude": [B]})
    assert splits_of(experiment) == [{"train": [D, E, F], "val": [A, C]}, {"train": [A, C], "val": [D, E, F]}]
    file = write_json(tmp_path / "splits_final.json", ([D, E, F, B], [A, C]), ([A, C], [D, E, F]))
    assert splits_of(load(split={"file": file}, dataset={"exclude": [B]})) == splits_of(experiment)


def test_all_problems_of_a_split_are_found_at_once(refused, tmp_path):
    patients = write_csv(tmp_path / "patients.csv", "patient", anna=[A, D], bert=[B, C], carl=[E], dora=[F])
    file = write_json(tmp_path / "splits_final.json", ([D, E, "X"], [A, B, C]), ([A, E], [D, E, B]))
    problems = refused(split={"file": file}, dataset={"patients": patients, "expected_cases": 7})
    assert [problem.where for problem in problems[1:]] == [f"split.file: {file}"] * 6
    assert [problem.found for problem in problems[1:]] == [
        "X",
        f"{F}, which is in no fold",
        f"{B} in val of fold 0 and fold 1",
        f"{E} in train and in val of fold 1",
        f"patient anna in several folds: {A} (fold 0), {D} (fold 1)",
        f"patient bert in several folds: {B} (fold 1), {C} (fold 0)",
    ]
    assert problems[0].where == "dataset.expected_cases"


def test_a_patient_may_be_in_two_folds_if_that_is_said(load, refused, tmp_path):
    sections = {"dataset": {"patients": r"(BraTS)-"}}  # all cases of one patient
    file = write_csv(tmp_path / "sites.csv", "group", a=CASES[:3], b=CASES[3:])
    (problem,) = refused(split={"groups": file}, **sections)
    assert "(group a)" in problem.found
    assert "(group b)" in problem.found
    assert "split.allow_shared_patients" in problem.advice
    experiment = load(split={"groups": file, "allow_shared_patients": True}, **sections)
    assert [fold["val"] for fold in splits_of(experiment)] == [CASES[:3], CASES[3:]]


def test_a_case_that_only_trains_is_in_no_fold(refused, tmp_path):
    file = write_json(tmp_path / "splits_final.json", ([C, D, E, F], [A, B]), ([A, B, E, F], [C, D]))
    assert [problem.found for problem in refused(split={"file": file})] == [
        f"{E}, which is in val of no fold",
        f"{F}, which is in val of no fold",
    ]


def test_a_fold_that_is_left_without_cases_is_refused(refused, tmp_path):
    file = write_csv(tmp_path / "folds.csv", "fold", fold_0=[A], fold_1=[C, D, E, F, B])
    (first, second) = refused(split={"file": file}, dataset={"exclude": [A]})
    assert first.found == "no case in val of fold 0"
    assert second.found == "no case in train of fold 1"


def test_a_list_for_other_cases_is_no_flood(refused, tmp_path):
    file = write_csv(tmp_path / "folds.csv", "fold", fold_0=[f"x{n}" for n in range(500)], fold_1=CASES)
    problems = refused(split={"file": file})
    assert len(problems) == 22
    assert problems[19].found == "481 more of this kind"


@pytest.mark.parametrize(
    ("column", "lines", "found"),
    [
        ("fold", ["a,1", "b,2", "c,3"], "folds 1, 2, 3"),
        ("fold", ["a,0", "b,0", "c,2"], "folds 0, 2"),
        ("fold", ["a,0", "b,0"], "1 fold"),
        ("fold", ["a,0", "b,one", "c,-1"], "fold -1, one"),
        ("fold", ["a,0", "b,1", "a,1"], "a with fold 1"),
        ("fold", ["a,0", "b," + "9" * 5000], "fold 99999"),
        ("group", ["a,0", "b,0"], "1 group"),
        ("group", ["a,0", "b,"], "no group"),
        ("groups", ["a,0", "b,1"], "the columns case, groups"),
    ],
)
def test_csv_files_that_are_no_split_are_refused(refused, tmp_path, column, lines, found):
    file = tmp_path / "list.csv"
    file.write_text("\n".join([f"case,{column}", *lines]))
    field = "file" if column == "fold" else "groups"
    (problem,) = refused(split={field: str(file)})
    assert problem.where.startswith(f"split.{field}: {file}")
    assert problem.found.startswith(found)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "no list"),
        ("[]", "0 folds"),
        (json.dumps([{"train": ["a"], "val": ["b"]}]), "1 fold"),
        (json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"]}]), "called val"),
        (json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": []}]), "no case in val"),
        (json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": [1]}]), "called val"),
        (json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b", "b"], "val": ["a"]}]), "b several times in train"),
        (json.dumps([{"train": ["a"], "val": ["b"]}, ["b"]]), "called train"),
    ],
)
def test_json_files_that_are_no_split_are_refused(refused, tmp_path, content, found):
    file = tmp_path / "splits_final.json"
    file.write_text(content)
    problem = refused(split={"file": str(file)})[0]
    assert problem.where.startswith(f"split.file: {file}")
    assert found in problem.found


def test_files_that_cannot_be_read_are_named_with_the_other_problems(refused, tmp_path):
    sections = {"split": {"groups": str(tmp_path / "absent.csv"), "file": "folds.txt"}, "loss": {"unc_weight": -1}}
    found = refused(dataset={"patients": "(a"}, **sections)
    places = [problem.where for problem in found]
    assert places[:4] == ["split.groups", "dataset.patients", "split.file", f"split.groups: {tmp_path / 'absent.csv'}"]
    assert places[4].endswith("loss.unc_weight")
    (problem,) = refused(split={"file": 5})
    assert (problem.where, problem.found) == ("split.file", "5")


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"folds": 5}, "split.folds"),
        ({"folds": 2}, "split.folds"),
        ({"seed": 1}, "split.seed"),
        ({"drawn": "cases"}, "split.drawn"),
    ],
)
def test_settings_that_contradict_the_file_are_refused(load, refused, tmp_path, more, field):
    file = write_csv(tmp_path / "sites.csv", "group", a=[A, B], b=[C, D], c=[E, F])
    (problem,) = refused(split={"groups": file, **more})
    assert problem.where.endswith(f": {field}")
    assert f"remove `{field}`" in problem.advice
    assert load(split={"groups": file, "folds": 3, "seed": 12345}).split.folds == 3
    (problem,) = refused(split={"allow_shared_patients": True})
    assert problem.where.endswith(": split.allow_shared_patients")


def test_folds_of_cases_name_the_patients_that_they_share(load, refused):
    (problem,) = refused(split={"folds": 3, "drawn": "cases"}, dataset={"patients": "(BraTS-GLI)-"})
    assert problem.where == "split.drawn"
    assert problem.found.startswith(f"patient BraTS-GLI in several folds: {A} (fold ")
    assert "allow_shared_patients" in problem.advice
    allowed = load(split={"folds": 3, "drawn": "cases", "allow_shared_patients": True})
    assert len(chosen_cases(allowed)[0]) == 6
    (problem,) = refused(split={"folds": 7, "drawn": "cases"})
    assert (problem.found, problem.expected) == ("7 folds for 6 cases", "at most as many folds as cases")
    assert preparation_digest(allowed, []) != preparation_digest(load(split={"folds": 3}), [])


def test_a_preparation_depends_on_what_lists_say_and_not_on_their_names(load, tmp_path):
    def digest(**sections):
        experiment = load(**sections)
        return preparation_digest(experiment, chosen_cases(experiment)[0])

    groups = {"a": [A, B], "b": [C, D], "c": [E, F]}
    first = digest(split={"groups": write_csv(tmp_path / "sites.csv", "group", **groups)})
    (tmp_path / "more").mkdir()
    copied = write_csv(tmp_path / "more" / "other.csv", "group", **dict(reversed(groups.items())))
    assert digest(split={"groups": copied}) == first
    changed = write_csv(tmp_path / "sites.csv", "group", **groups | {"a": [A], "b": [B, C, D]})
    assert digest(split={"groups": changed}) != first
    renamed = write_csv(tmp_path / "sites.csv", "group", **groups | {"d": groups["c"], "c": []})
    assert digest(split={"groups": renamed}) != first
    own = {"split": {"folds": 2}}
    by_names = digest(**own)
    by_pattern = digest(dataset={"patients": r"(.+)-000"}, **own)
    assert by_names == by_pattern
    patients = {f"BraTS-GLI-0000{n}": [case] for n, case in enumerate(CASES)}
    by_csv = {"dataset": {"patients": write_csv(tmp_path / "patients.csv", "patient", **patients)}}
    assert digest(**by_csv, **own) == by_names
    write_csv(tmp_path / "patients.csv", "patient", anna=[A, B], **{case: [case] for case in CASES[2:]})
    assert digest(**by_csv, **own) != by_names
    assert digest(split={"folds": 3}) != by_names != digest(split={"folds": 2, "seed": 1})


def test_a_kept_experiment_needs_none_of_the_files_again(load, tmp_path):
    patients = write_csv(tmp_path / "patients.csv", "patient", anna=[A, F], **{case: [case] for case in CASES[1:5]})
    file = write_csv(tmp_path / "sites.csv", "group", a=[A, F], b=[B, C], c=[D, E])
    experiment = load(dataset={"patients": patients}, split={"groups": file})
    save_experiment(experiment, tmp_path / "kept.yaml")
    shutil.move(file, tmp_path / "moved.csv")
    (tmp_path / "patients.csv").unlink()
    kept = load_experiment(tmp_path / "kept.yaml")
    assert kept == experiment.resolved()
    assert chosen_cases(kept)[0] == chosen_cases(experiment)[0]
    assert {case.patient for case in chosen_cases(kept)[0]} == {"anna", *CASES[1:5]}
    # the same lists under other names are the same settings, other lists are others
    write_csv(tmp_path / "patients.csv", "patient", anna=[A, F], **{case: [case] for case in CASES[1:5]})
    again = load(dataset={"patients": patients}, split={"groups": str(tmp_path / "moved.csv")})
    before = kept.model_dump(mode="json")
    assert differing_settings(before, again.resolved().model_dump(mode="json")) == []
    write_csv(tmp_path / "moved.csv", "group", a=[A, F], b=[B, C, D], c=[E])
    again = load(dataset={"patients": patients}, split={"groups": str(tmp_path / "moved.csv")})
    (problem,) = differing_settings(before, again.resolved().model_dump(mode="json"))
    assert problem.where == "split.groups"
    assert problem.found.startswith("3 folds, digest")


def test_sweeps_and_benchmarks_inherit_the_folds(experiment_file, folder, tmp_path):
    groups = write_csv(tmp_path / "sites.csv", "group", a=[A, F], b=[B, C], c=[D, E])
    base = experiment_file(folder, split={"folds": 3})
    shared = {"name": "study", "base": str(base), "overrides": {"split.groups": groups}}
    space = {"loss.unc_weight": {"grid_search": [0.1, 0.4]}}
    sweep_file, benchmark_file = tmp_path / "sweep.yaml", tmp_path / "benchmark.yaml"
    sweep = {**shared, "space": space, "trials": 2, "folds": [2], "promote": {"top": 1}, "search": {"type": "grid"}}
    sweep_file.write_text(yaml.safe_dump(sweep))
    loaded, placed = load_sweep(sweep_file)
    assert list(loaded.promoted_folds(placed)) == [0, 1, 2]
    trial = trial_experiment(placed, "trial", tmp_path, {"loss.unc_weight": 0.1})
    assert trial.split == placed.split
    assert trial.split.given.groups == ["a", "b", "c"]
    benchmark = {**shared, "seeds": [0], "trainings": {"plain": {}, "other": {"set": {"loss.unc_weight": 0.1}}}}
    benchmark_file.write_text(yaml.safe_dump(benchmark))
    loaded, placed, trainings = load_benchmark(benchmark_file)
    assert list(loaded.folds_of(placed)) == [0, 1, 2]
    assert all(training.experiment.split == placed.split for training in trainings)
    (study := BenchmarkFolder(tmp_path / "study")).root.mkdir()
    save_study(study, loaded, placed)
    write_csv(tmp_path / "sites.csv", "group", a=[A], b=[B])
    assert read_study(study, Benchmark)[1].split == placed.split
    for file, load_study in ((sweep_file, load_sweep), (benchmark_file, load_benchmark)):
        with pytest.raises(ProblemsFound) as caught:
            load_study(file)
        assert "split.folds is 3, and split.groups has 2 folds" in caught.value.problems[0].found


def test_lists_are_short_where_people_read_them(load, tmp_path):
    patients = write_csv(tmp_path / "patients.csv", "patient", **{case: [case] for case in CASES})
    file = write_csv(tmp_path / "folds.csv", "fold", fold_0=CASES[:3], fold_1=CASES[3:])
    content = load(dataset={"patients": patients}, split={"file": file}).model_dump(mode="json")
    texts = flatten(content)
    assert texts["split.file"].startswith("2 folds, digest ")
    assert texts["dataset.patients"].startswith("6 cases, digest ")
    assert not any(A in text for text in texts.values())
    assert short_lists(content)["split"]["groups"] is None
    assert isinstance(content["split"]["file"], dict)  # unchanged
    assert flatten(load(dataset={"patients": "(B.+)"}).model_dump(mode="json"))["dataset.patients"] == "(B.+)"
