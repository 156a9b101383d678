"""Slips of the keyboard in experiment files and in --set: each is refused with its place, never by a library later."""

import pytest
import yaml

from uncseg.config.experiment import Experiment, load_experiment
from uncseg.config.fields import get_field, set_field
from uncseg.errors import ProblemsFound
from uncseg.estimators.registry import SEVERAL_PASSES
from uncseg.section import field_names
from uncseg.studies.benchmark.benchmark_file import Benchmark
from uncseg.studies.benchmark.load_benchmark import load_benchmark
from uncseg.studies.load_study import load_study
from uncseg.studies.sweep.load_sweep import load_sweep
from uncseg.studies.sweep.sweep_file import Sweep

SMALL = {"name": "small", "dataset": {"path": "cases"}}
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)

UNREADABLE = (
    "x=[",
    "x=*y",
    ".x=3",
    "x.=3",
    "a b=3",
    "x=2026-13-01",
    f"training.epochs={'9' * 5000}",
    "x=" + "[" * 5000,
)
UNREADABLE += ("x={a: 1, a: 2}", "x=&a [*a]", "x=!!int y", "name=\udc80", "=", "", "x")
TYPOS = (".nan", ".inf", "-.inf", "true", "false", "1.0e+30", "-1", "10000000000000000000000000", "many", "[]")
FAIL_LATER = (
    *("tracking.uri=http://[", "tracking.uri=http://host:99999", "tracking.uri=http://", "tracking.uri=''"),
    *(f"storage.path={'a' * 300}", f"dataset.path=/b/{'a' * 256}/c", "tracking.uri=htp://host"),
    *("tracking.uri='http://a host'", "tracking.experiment=''", "tracking.experiment=' '"),
    *('tracking.experiment="a\\nb"', "tracking.model=a/b", "resources.ray_address=''", "resources.ray_address=a b"),
    *("name=mlflow.db", "name=MLflow.db-journal", "name=prepared", "name=mlflow_artifacts", f"name={'a' * 300}"),
    *("name=.", "name=''", "name=../x", "evaluation.baseline=../x", "evaluation.baseline=prepared"),
    *("model.error_network={run: ../x}", "dataset.path=''", "dataset.path=~/cases", "storage.path=' '"),
    *("storage.path=~/runs", "dataset.name=a b", "dataset.exclude=''", "loss.weight_ce=[0, 0, 0, 0]"),
    *("plan.target_spacing_mm=[.nan, 1, 1]", "resources.gpus_per_fold=1.5"),
)


def write(folder, content, name="experiment.yaml"):
    file = folder / name
    text = content if isinstance(content, str | bytes) else yaml.safe_dump(content)
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def problems_of(load, *arguments):
    with pytest.raises(ProblemsFound) as caught:
        load(*arguments)
    assert caught.value.exit_code == 2
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "where", "found"),
    [
        ("# M\xf6hre\nname: a\n".encode("latin-1"), "", "not UTF-8"),
        (bytes(range(256)), "", "not UTF-8"),
        (b"name: a\x00b\n", "", "not YAML"),
        (f"name: a\ntraining: {{epochs: {'9' * 5000}}}\n", "", "thousands of digits"),
        (f"name: a\ndataset: {{path: x}}\ntraining: {{epochs: 0x{'f' * 5000}}}\n", "training.epochs", "digits"),
        ("[" * 5000, "", "within values"),
        ("a: " + "{b: " * 3000 + "}" * 3000, "", "within values"),
        (BOMB, "line", "values"),
        ("a: &a [*a]\n", "line 1", "alias"),
        ("a: &a {b: *a}\n", "line 1", "alias"),
        ("name: a\nname: b\n", "line 2", "name a second time"),
        ("name: a\ntraining:\n  epochs: 1\n  seed: 0\n  epochs: 2\n", "line 5", "epochs a second time"),
        ("name: !!int x\n", "", "x"),
        ("name: !!bool x\n", "", "type"),
        ("name: !!timestamp x\n", "", "type"),
        ("name: !!python/object/apply:os.getcwd []\n", "line 1", "not YAML"),
        ('name: "\\ud800"\n', "line 1", "not YAML"),
        ('name: "a\\0"\n', "line 1", "character"),
        ("name: a\n---\nname: b\n", "line", "not YAML"),
        ("", "", "no fields"),
        ("- a\n", "", "no fields"),
    ],
    ids=range(21),
)
def test_a_file_that_cannot_be_read_as_yaml(tmp_path, text, where, found):
    file = write(tmp_path, text)
    problem = problems_of(load_experiment, file)[0]
    assert found in problem.found
    assert where in problem.where
    assert str(file) in problem.where
    assert len(problem.found) < 300


@pytest.mark.parametrize("assignment", UNREADABLE, ids=range(len(UNREADABLE)))
def test_an_option_that_cannot_be_read_is_named(tmp_path, assignment):
    (problem,) = problems_of(load_experiment, write(tmp_path, SMALL), [assignment])
    assert problem.where.startswith("--set")
    assert problem.where.startswith(f"--set {assignment[:20]}".strip())
    assert len(problem.where) < 150


@pytest.mark.parametrize(
    "field", ["storage.path", "dataset.path", "dataset.patients", "tracking.uri", "tracking.experiment"]
)
@pytest.mark.parametrize("text", ["/a b #1", "&a /b", "!!str /b", "/b ", " /b", "#1", "--- /b", "/a\nb", "| \n /b"])
def test_words_that_yaml_would_drop_are_asked_for_in_quotes(tmp_path, field, text):
    (problem,) = problems_of(load_experiment, write(tmp_path, SMALL), [f"{field}={text}"])
    assert problem.where.startswith(f"--set {field}=")
    assert f"{field}='…'" in problem.advice


@pytest.mark.parametrize("text", ["/a b #1", "&a /b", "!!str /b", "/b ", " /b", "#1", "--- /b", "it's", "a: b", "[1]"])
def test_quoted_words_are_taken_as_they_are(tmp_path, text):
    for quoted in (yaml.safe_dump(text, default_style="'").strip(), yaml.safe_dump(text, default_style='"').strip()):
        assert str(load_experiment(write(tmp_path, SMALL), [f"storage.path={quoted}"]).storage.path) == text


def test_words_that_are_dropped_are_no_way_to_show_a_password(tmp_path):
    (problem,) = problems_of(load_experiment, write(tmp_path, SMALL), ["tracking.uri=postgresql://u:geheim@h/db #1"])
    assert "geheim" not in str(problem)


def leaves():
    """Return every field of an experiment that is a number or a list of numbers."""
    content = Experiment.model_validate(SMALL).model_dump(mode="json")
    for estimator in SEVERAL_PASSES:
        if estimator.settings is not None:
            settings = estimator.settings.model_construct().model_dump(mode="json")
            content["evaluation"]["estimators"][estimator.name] = settings
    content["dataset"]["phantoms"] = {"cases": 1, "size": 24, "seed": 0}
    content["resources"]["autoscaler"] = {"nodes": 1, "cpus": 1, "gpus": 0}
    unset = {"resources.gpus_per_fold": 1, "resources.cpus_per_fold": 1, "plan.memory_target_gib": 8}
    unset |= dict.fromkeys(["plan.batch_size", "plan.base_features", "plan.max_features", "plan.max_stages"], 2)
    unset |= dict.fromkeys(["plan.foreground_samples", "training.loader_processes", "dataset.expected_cases"], 2)
    unset |= {"resources.folds_at_once": 1, "plan.patch_size": [32] * 3, "plan.target_spacing_mm": [1.0] * 3}
    unset |= {"loss.weight_ce": [1.0] * 4}
    for name, value in unset.items():
        set_field(content, name, value)
    for name in field_names(Experiment):
        try:
            value = get_field(content, name)
        except KeyError:  # of a task, or of a list
            continue
        first = value[0] if isinstance(value, list) and value else value
        if isinstance(first, int | float) and not isinstance(first, bool) and not name.startswith("dataset.task"):
            yield name, value


@pytest.mark.parametrize(("field", "value"), list(leaves()), ids=lambda text: text if isinstance(text, str) else "")
def test_every_number_has_a_range(tmp_path, field, value):
    """Infinities, no number, true, a text, and what is far too large or small."""
    file = write(tmp_path, SMALL)
    for wrong in (
        ".nan",
        ".inf",
        "-.inf",
        "true",
        "false",
        "1.0e+30",
        "-1",
        "10000000000000000000000000",
        "many",
        "[]",
    ):
        text = f"[{', '.join([wrong] * len(value))}]" if isinstance(value, list) and wrong != "[]" else wrong
        places = [problem.where for problem in problems_of(load_experiment, file, [f"{field}={text}"])]
        assert any(place.startswith(f"--set {field}=") for place in places), (field, wrong, places)


@pytest.mark.parametrize("assignment", FAIL_LATER)
def test_values_that_would_fail_later(tmp_path, assignment):
    (problem,) = problems_of(load_experiment, write(tmp_path, SMALL), [assignment])
    assert problem.where.startswith(f"--set {assignment[:90]}")


def test_addresses_and_names_that_are_right(tmp_path):
    file = write(tmp_path, SMALL)
    databases = "sqlite:////a b/mlflow.db", "postgresql+psycopg://u@host:5432/db", "runs/m"
    for right in ("http://host:5000", "https://host/path", *databases):
        assert load_experiment(file, [f"tracking.uri={right}"]).tracking.uri == right
    for address in ("auto", "10.0.0.1:6379", "ray://head:10001"):
        assert load_experiment(file, [f"resources.ray_address='{address}'"]).resources.ray_address == address
    assert load_experiment(file, ["tracking.experiment=two words"]).tracking.experiment == "two words"
    assert load_experiment(file, ["resources.gpus_per_fold=0.5"]).resources.gpus_per_fold == 0.5


@pytest.mark.parametrize(
    ("assignment", "meant"),
    [
        ("training.epoch=3", "training.epochs"),
        ("epochs=3", "training.epochs"),
        ("trainig.epochs=3", "training.epochs"),
        ("unc_weight=3", "loss.unc_weight"),
        ("optimiser.initial_lr=1", "training.initial_lr"),
        ("evaluation.estimators.mcdropout.samples=3", "evaluation.estimators.mc_dropout"),
        ("evaluation.estimators.one_pass=[entrpy]", "entropy"),
        ("training.optimizer=adam", "adamw"),
        ("dataset.task=gli2023", "gli-2023"),
        ("model.swin_untr.depths=[1, 1, 1, 1]", "model.swin_unetr.depths"),
    ],
)
def test_a_wrong_name_gets_a_suggestion(tmp_path, assignment, meant):
    (problem,) = problems_of(load_experiment, write(tmp_path, SMALL), [assignment])
    assert f"did you mean {meant}" in problem.advice


def test_no_suggestion_where_nothing_is_similar(tmp_path):
    (problem,) = problems_of(load_experiment, write(tmp_path, SMALL), ["training.quux=1"])
    assert problem.advice == "correct or remove it"


SWEEP = {"name": "s", "base": "experiment.yaml", "space": {"loss.unc_weight": {"uniform": [0, 1]}}}
BENCHMARK = {"name": "b", "base": "experiment.yaml", "trainings": {"plain": {}}}


@pytest.mark.parametrize(
    ("content", "load", "command"),
    [
        (SWEEP, load_experiment, "uncseg sweep"),
        (BENCHMARK, load_experiment, "uncseg benchmark"),
        (SMALL, load_sweep, "uncseg cross-validate"),
        (SMALL, load_benchmark, "uncseg cross-validate"),
        (BENCHMARK, load_sweep, "uncseg benchmark"),
        (SWEEP, load_benchmark, "uncseg sweep"),
    ],
)
def test_the_file_of_another_command_is_recognised(tmp_path, content, load, command):
    file = write(tmp_path, content, "file.yaml")
    (problem,) = problems_of(load, file)
    assert problem.advice == f"{command} {file}"


@pytest.mark.parametrize("model", [Sweep, Benchmark])
def test_a_study_names_its_own_file_and_the_option(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, SMALL)
    content = SWEEP if model is Sweep else BENCHMARK
    file = write(tmp_path, content | {"overrides": {"training.epochs": 0}}, "study.yaml")
    (own,) = problems_of(load_study, file, model, [])
    assert own.where == f"{file}: overrides.training.epochs"
    file = write(tmp_path, content, "study.yaml")
    (option,) = problems_of(load_study, file, model, ["training.epochs=0"])
    assert option.where == "--set training.epochs=0"
    file = write(tmp_path, content | {"name": "mlflow.db"}, "study.yaml")
    assert problems_of(load_study, file, model, [])[0].where == f"{file}: name"


def test_a_folder_is_no_file(tmp_path):
    write(tmp_path, SMALL)
    (problem,) = problems_of(load_experiment, tmp_path)
    assert problem.advice == f"give {tmp_path / 'experiment.yaml'}"


def test_a_large_file_is_refused_before_it_is_parsed(tmp_path):
    file = write(tmp_path, "a: [" + "1, " * 4_000_000 + "]\n")
    (problem,) = problems_of(load_experiment, file)
    assert problem.found == f"{file.stat().st_size} bytes"


@pytest.mark.parametrize("name", ["experiment.yaml", "best.yaml", "mine.yaml"])
def test_files_that_a_run_or_a_sweep_has_written_may_hold_long_lists(tmp_path, name):
    cases = [f"CASE-{n:05}{'x' * 40}" for n in range(20_000)]
    split = {"file": {"read_from": "s.json", "folds": [{"val": cases[::2]}, {"val": cases[1::2]}]}, "folds": 2}
    file = tmp_path / name
    file.write_text(yaml.safe_dump(SMALL | {"split": split}))
    if name == "mine.yaml":
        (problem,) = problems_of(load_experiment, file)
        assert problem.found == f"{file.stat().st_size} bytes"
    else:
        assert sum(len(fold.val) for fold in load_experiment(file).split.given.folds) == 20_000


@pytest.mark.parametrize("path", ["x" * 5000, "x/" * 3000, f"{'x' * 300}.csv", f"{'x' * 300}.yaml"])
@pytest.mark.parametrize(
    "field", ["dataset.path", "dataset.task", "dataset.exclude", "split.file", "split.groups", "storage.path"]
)
def test_a_path_that_no_file_can_have_is_refused_before_it_is_looked_for(tmp_path, field, path):
    problems = problems_of(load_experiment, write(tmp_path, SMALL), [f"{field}={path}"])
    assert [field in problem.where for problem in problems] == [True]
    assert len(str(problems)) < 1000


@pytest.mark.parametrize("field", ["split.file", "split.groups", "dataset.patients"])
@pytest.mark.parametrize("folds", ["5", "[5]", "five", "{a: 1}"])
def test_fields_in_place_of_a_list_of_cases(tmp_path, field, folds):
    problems = problems_of(load_experiment, write(tmp_path, SMALL), [f"{field}={{folds: {folds}}}"])
    assert any(field in problem.where for problem in problems)


def test_of_many_unknown_fields_some_are_named_and_the_rest_counted(tmp_path):
    problems = problems_of(load_experiment, write(tmp_path, SMALL | {f"key{number}": 1 for number in range(1000)}))
    assert len(problems) == 21
    assert problems[-1].found == "980 more unknown fields"
