"""A run's model in a registry: the command, Python and nnU-Net use it where nothing else of the run exists."""

import shutil
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from support.commands import run_nnunet, run_process, uncseg
from uncseg.config.experiment import load_experiment
from uncseg.dataset.splits import read_splits
from uncseg.errors import ProblemsFound
from uncseg.files import read_json
from uncseg.layout import PreparedFolder
from uncseg.runs.run_plan import estimate_disk
from uncseg.tracking.destination import open_store
from uncseg.tracking.pyfunc_model import _load_pyfunc
from uncseg.tracking.syncer import sync_run

CHANNELS = ("t1n", "t1c", "t2w", "t2f")
WITHOUT_RAY = """
import sys
sys.modules["ray"] = None
import mlflow, numpy as np
case = np.load(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/small@candidate")
found = model.predict({"image": case["image"], "spacing_mm": case["spacing_mm"]})
known = {name: value for name, value in found.items() if isinstance(value, (np.ndarray, float, bool))}
np.savez(sys.argv[2], **known)
"""


@pytest.fixture(scope="module")
def server(run, server_uri, tmp_path_factory):
    """The address of a server that stores the run's model; the folder it came from is gone."""
    elsewhere = shutil.copytree(run.root, tmp_path_factory.mktemp("elsewhere") / "runs" / "small")
    (elsewhere / "manifest.json").unlink()
    assert sync_run(elsewhere, server_uri) == 0
    shutil.rmtree(elsewhere)
    return server_uri


@pytest.fixture(scope="module")
def expected(root, run):
    """The folder of the cohort's predictions by the run's folder."""
    out = root / "by_the_folder"
    uncseg("predict", run.root, root / "cohort", out)
    return out


def cases(root):
    return sorted(path.name for path in (root / "cohort").iterdir() if path.is_dir())


def voxels(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_the_registered_model_predicts_as_the_runs_folder(root, server, expected, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.chdir(tmp_path)
    uncseg("predict", "models:/small@candidate", root / "cohort", "out")
    for case in cases(root):
        for name in ("", "_uncertainty", "_between_folds"):
            mine, theirs = (voxels(folder / f"{case}{name}.nii.gz") for folder in (tmp_path / "out", expected))
            np.testing.assert_array_equal(mine, theirs)
        records = [read_json(folder / f"{case}.json") for folder in (tmp_path / "out", expected)]
        for record in records:
            del record["source"], record["sha256_of_record"]  # which covers the source
        assert records[0] == records[1]


def input_of(root, case):
    images = [sitk.ReadImage(str(root / "cohort" / case / f"{case}-{channel}.nii.gz")) for channel in CHANNELS]
    spacing_mm = np.array(images[0].GetSpacing()[::-1])
    return {"image": np.stack([sitk.GetArrayFromImage(image) for image in images]), "spacing_mm": spacing_mm}


def test_mlflows_python_function_predicts_the_same_without_ray(root, server, expected, tmp_path):
    case = cases(root)[0]
    np.savez(tmp_path / "in.npz", **input_of(root, case))
    command = (sys.executable, "-c", WITHOUT_RAY, tmp_path / "in.npz", tmp_path / "out.npz")
    run_process(*command, folder=tmp_path, MLFLOW_TRACKING_URI=server)
    found, record = np.load(tmp_path / "out.npz"), read_json(expected / f"{case}.json")
    np.testing.assert_array_equal(found["labels"], voxels(expected / f"{case}.nii.gz"))
    uncertainty = voxels(expected / f"{case}_uncertainty.nii.gz")
    np.testing.assert_allclose(found["uncertainty"], uncertainty, atol=1e-6)
    inside = uncertainty > 0
    np.testing.assert_allclose(found["uncertainty_unmasked"][inside], uncertainty[inside], atol=1e-6)
    assert (found["uncertainty_unmasked"] > 0).sum() > inside.sum()
    assert (found["labels"].dtype, found["uncertainty"].dtype) == (np.uint8, np.float32)
    assert found["expected_dice_wt"] == pytest.approx(record["expected_dice_wt"], rel=1e-5)
    assert found["review"] == record["review"]


@pytest.fixture(scope="module")
def downloaded(server, tmp_path_factory):
    """The folder that the registered model was downloaded to."""
    client = open_store(server, "uncseg").client
    version = client.get_model_version_by_alias("small", "candidate")
    target = tmp_path_factory.mktemp("model")
    command = (sys.executable, "-m", "mlflow", "artifacts", "download", "-u", f"models:/small/{version.version}")
    run_process(*command, "-d", target, folder=tmp_path_factory.mktemp("download"), MLFLOW_TRACKING_URI=server)
    return target


def test_all_problems_of_an_input_are_named_at_once(root, downloaded):
    model = _load_pyfunc(str(downloaded))
    good = input_of(root, cases(root)[0])
    image = good["image"].astype(np.float32)
    with_nan, empty = image.copy(), image.copy()
    with_nan[0, 3, 3, 3] = np.nan
    empty[1] = 0
    overflowing, constant = image.astype(np.float64), image.copy()
    overflowing[3, 0, 0, 0] = 1e25  # finite in float32, and its square is not
    constant[2] = 5
    wrong = [
        ({}, ["image", "spacing_mm"]),
        (image, ["image", "spacing_mm"]),
        ({"image": with_nan[:3], "spacing_mm": (1, 1)}, ["image", "image", "spacing_mm"]),
        ({"image": image, "spacing_mm": (1, 0, float("nan"))}, ["spacing_mm"]),
        ({"image": empty, "spacing_mm": (1, 1, 1)}, ["image: t1c"]),
        ({"image": overflowing, "spacing_mm": (1, 1, 1)}, ["image: t2f"]),
        ({"image": constant, "spacing_mm": (1, 1, 1)}, ["image: t2w"]),
        ({"image": [["a"], []], "spacing_mm": "one"}, ["image", "spacing_mm"]),
    ]
    for given, where in wrong:
        with pytest.raises(ProblemsFound) as caught:
            model.predict(given)
        assert [problem.where for problem in caught.value.problems] == where
    assert model.predict(good)["labels"].shape == image.shape[1:]


def test_nnunets_own_command_predicts_the_same_with_the_weights_alone(root, run, downloaded, tmp_path):
    """Fold 0's own cases, beside what the run itself has predicted of them."""
    splits = read_splits(next(root.rglob("splits_final.json")))
    (tmp_path / "images").mkdir()
    for case in splits[0]["val"]:
        for number, channel in enumerate(CHANNELS):
            image = root / "cases" / case / f"{case}-{channel}.nii.gz"
            (tmp_path / "images" / f"{case}_{number:04d}.nii.gz").symlink_to(image)
    run_nnunet(
        tmp_path,
        "nnUNetv2_predict_from_modelfolder",
        *("-i", tmp_path / "images", "-o", tmp_path / "theirs", "-m", downloaded, "-f", 0),
        *("--disable_tta", "-device", "cpu", "-npp", 1, "-nps", 1),
    )
    for case in splits[0]["val"]:
        theirs, ours = (voxels(folder / f"{case}.nii.gz") for folder in (tmp_path / "theirs", run.out_of_fold))
        np.testing.assert_array_equal(theirs, ours)


def test_what_a_finished_fold_keeps_and_what_is_stored(run, downloaded):
    for fold in (0, 1):
        kept = {file.name for file in run.fold(fold).iterdir() if file.suffix in (".pth", ".pt")}
        assert kept == {"checkpoint_best.pth", "checkpoint_final.pth", "resume_epoch_0020.pt", "failures.pth"}
        stored = {file.name for file in (downloaded / f"fold_{fold}").iterdir()}
        assert stored == {"checkpoint_final.pth", "failures.pth"}
        both = [folder / f"fold_{fold}" / "failures.pth" for folder in (run.model, downloaded)]
        assert both[0].read_bytes() == both[1].read_bytes()
    whole = torch.load(run.final_checkpoint(0), weights_only=False)
    alone = torch.load(downloaded / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert "optimizer_state" in whole
    assert "optimizer_state" not in alone
    for name, weights in whole["network_weights"].items():
        torch.testing.assert_close(alone["network_weights"][name], weights, rtol=0, atol=0)


def test_the_plan_says_what_will_be_kept_and_stored(root, run):
    weights = torch.load(run.final_checkpoint(0), weights_only=False)["network_weights"]
    storages = {tensor.untyped_storage().data_ptr(): tensor.numel() for tensor in weights.values()}
    stored = 4 * sum(storages.values())  # float32; the decoder names the encoder's tensors once more
    prepared = PreparedFolder(next((root / "runs").glob("prepared/*/prepared.json")).parent, "Dataset501_Small")
    disk = estimate_disk(load_experiment(run.experiment), prepared)
    assert (disk.weights, disk.checkpoint) == (stored, 2 * stored)  # momenta
    said = " ".join(uncseg("cross-validate", root / "experiment.yaml", "--dry-run").split())
    assert f"in MLflow the weights alone, {2 * stored / 1e6:.3g} MB" in said
    assert f"best and last checkpoint of each fold with its error memory, {2 * disk.kept / 1e6:.3g} MB" in said
