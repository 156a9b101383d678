"""What is known from the command line and the files is refused before torch, nnU-Net, Ray or MLflow are imported."""

import pytest
import yaml

from support.light_commands import has_words, light_commands
from support.small_experiment import small_experiment
from uncseg.config.experiment import Experiment, save_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.tasks.built_in_tasks import paper_task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three cases, the files of an experiment, a sweep and a benchmark, and a run that has not begun."""
    folder = tmp_path_factory.mktemp("refused")
    write_phantoms(folder / "cases", cases=3, size=24, seed=0, task=paper_task())
    experiment = small_experiment(folder)
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    study = {"name": "study", "base": str(folder / "experiment.yaml")}
    space = {"space": {"loss.unc_weight": {"uniform": [0, 1]}}}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(study | space))
    metric = study | space | {"objectives": [{"metric": "val_patch/dice_men"}]}
    (folder / "metric.yaml").write_text(yaml.safe_dump(metric))
    (folder / "benchmark.yaml").write_text(yaml.safe_dump(study | {"trainings": {"plain": {}}}))
    begun = Experiment.model_validate(experiment | {"name": "begun", "training": {"epochs": 7}})
    (folder / "runs" / "begun").mkdir(parents=True)
    save_experiment(begun, folder / "runs" / "begun" / "experiment.yaml")
    (folder / "empty").mkdir()
    (folder / "large.yaml").write_text("a: b\n" * 300_000)
    (folder / "file").write_text("x")
    return folder


NO_MAPS = "no map in"  # of any case: what is missing are data
LINES = [
    ("cross-validate experiment.yaml --folds 7", "--folds"),
    ("cross-validate experiment.yaml --folds one", "--folds"),
    ("cross-validate experiment.yml", "No such file"),
    ("cross-validate experiment.yaml --set training.epoch=3", "did you mean training.epochs"),
    ("cross-validate experiment.yaml --set dataset.path=case", "did you mean case s"),
    ("cross-validate experiment.yaml --set storage.path=file", "storage.path"),
    ("cross-validate experiment.yaml --set name=begun", "training.epochs"),
    ("cross-validate experiment.yaml --set model.error_network={run: nobody}", "nobody"),
    ("cross-validate sweep.yaml", "uncseg sweep"),
    ("prepare experiment.yaml --set split.folds=9", "9 folds for 3 patients"),
    ("prepare experiment.yaml --set dataset.exclude=[nobody]", "nobody"),
    ("prepare runs/begun --set dataset.path=x", "give runs/begun/experiment.yaml"),
    ("cross-validate experiment.yaml --set tracking.uri=http://nobody.invalid:5000", "nobody.invalid"),
    ("cross-validate experiment.yaml --set tracking.uri=http://127.0.0.1:9", "start it, or correct host and port"),
    ("cross-validate large.yaml", "bytes"),
    ("sweep sweep.yaml --set tracking.uri=http://127.0.0.1:9", "start it, or correct host and port"),
    ("benchmark benchmark.yaml --set tracking.uri=http://127.0.0.1:9", "start it, or correct host and port"),
    ("sweep metric.yaml", "val_patch/dice_men,"),
    ("sweep experiment.yaml", "uncseg cross-validate"),
    ("sweep sweep.yaml --set dataset.path=nowhere", "dataset.path"),
    ("sweep sweep.yaml --set storage.path=file", "storage.path"),
    ("benchmark benchmark.yaml --set training.epochs=0", "training.epochs=0"),
    ("benchmark benchmark.yaml --set dataset.path=nowhere", "dataset.path"),
    ("score nowhere cases --out a.parquet", "no folder nowhere"),
    ("score cases cases --out a.csv", ".parquet"),
    ("score cases cases --out a.parquet --task gli2023", "did you mean gli-2023"),
    ("score cases cases --out a.parquet --uncertainty-scale percents", "did you mean percent"),
    ("score cases cases --out a.parquet --prediction-convention 1999", "--prediction-convention"),
    ("score cases cases --out file/a.parquet", "a folder of yours"),
    ("score cases empty --out a.parquet", "no reference"),
    ("score cases cases --out a.parquet --uncertainty empty", NO_MAPS),
    ("score cases cases --out a.parquet --patients nowhere.csv", "nowhere.csv"),
    ("evaluate runs/begn", "did you mean"),
    ("evaluate runs/begun --set storage.path=elsewhere", "--set storage.path=elsewhere"),
    ("evaluate runs/begun --set storage={path: elsewhere}", "leave it out"),
    ("predict runs/begun cases out --set name=other", "--set name=other"),
    ("predict runs/begun cases out --set tracking.experiment=other", "tracking.experiment=other"),
    ("evaluate runs/begun --set training.loader_processes=2", "training.loader_processes=2"),
    ("evaluate runs/begun runs/other --set evaluation.mirroring=true", "--set evaluation.mirroring=true"),
    ("evaluate runs/begun", "no finished fold"),
    ("evaluate runs/begun --set training.epochs=9", "epochs"),
    ("evaluate runs/begun runs/begun", "another run"),
    ("evaluate runs/begun --dataset nowhere", "nowhere"),
    ("predict runs/begn cases out", "did you mean"),
    ("predict runs/begun cases out", "no finished fold"),
    ("predict runs/begun cases cases", "OUTPUT"),
    ("predict runs/begun nowhere out", "nowhere"),
    ("predict runs/begun cases file", "OUTPUT"),
    ("predict empty cases out --folds 0", "empty"),
    ("report runs/begn", "did you mean"),
    ("report runs/begun runs/begun", "give each run once"),
    ("sync empty", "no run, sweep or benchmark"),
    ("sync runs/begun --tracking-uri http://[", "--tracking-uri"),
    ("sync runs/begun --tracking-uri http://u:hunter2@h", "--tracking-uri"),
    ("sync runs/begun --tracking-uri http://h/?jwt=hunter2", "parameters"),
    ("prepare experiment.yaml --set resources.ray_address=ray://hunter2@h:1", "RAY_AUTH_TOKEN"),
    ("predict models:/x@y@z cases out", "models:/NAME@ALIAS"),
    ("predict models:/small@candidate cases out", "models:/small@candidate"),
    ("predict runs:/0123/model cases out", "MLFLOW_TRACKING_URI"),
    ("ui runs", "no run, sweep or benchmark"),
    ("check nowhere", "nowhere"),
    ("phantom new --task gli2023", "did you mean gli-2023"),
    ("phantom new --seed -1", "--seed"),
    ("predict runs/begun cases out --review-below nan", "--review-below"),
    ("report runs/begun --cases -1", "--cases"),
    ("predit runs/begun cases out", "did you mean predict"),
    ("cross-validate experiment.yaml --dryrun", "--dry-run"),
]


@pytest.fixture(scope="module")
def ends(folder):
    """The exit code, the output and the problems of each command line, all in one process."""
    parts = [line.replace("run: ", "run:_").replace("path: ", "path:_").split() for line, _ in LINES]
    words = [[part.replace(":_", ": ") for part in words] for words in parts]
    return dict(zip([line for line, _ in LINES], light_commands(folder, *words), strict=True))


@pytest.mark.parametrize(("line", "said"), LINES)
def test_a_wrong_request_is_refused_early(folder, ends, line, said):
    code, output, problems = ends[line]
    assert code == (1 if said == NO_MAPS else 2), output + problems
    assert has_words(said, problems)
    assert output == ""
    assert "hunter2" not in problems
    assert not (folder / "out").exists()
