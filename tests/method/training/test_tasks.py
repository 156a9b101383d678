"""Training for tasks other than the paper's: a cavity, many lesions, one label in one image, separate regions."""

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from support.training import SHORT, predictor_of_checkpoint, train
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.splits import read_splits
from uncseg.estimators.registry import Augmentation
from uncseg.method.inference.native_space import predict_grid
from uncseg.method.inference.several_passes_on_cases import estimate_grid
from uncseg.method.network.uncertainty_network import MaskedUncertaintyNetwork
from uncseg.method.training.epoch_names import epoch_metric_names
from uncseg.method.training.observed_patch import choose_patch, observe
from uncseg.tasks.built_in_tasks import built_in
from uncseg.tasks.task import Task

ONE_LABEL = Task(name="nodule", modalities=("ct",), labels={"nodule": 1})
ORGAN = Task(
    name="organ",
    modalities=("t1", "t2"),
    labels={"rim": 1, "vessel": 2, "core": 3},
    regions={"vessel": ("vessel",), "tumour": ("rim", "core"), "core": ("core",)},
    main_region="tumour",
    shown="t2",
)
TASKS = {"gli-2024": built_in("gli-2024"), "met": built_in("met"), "nodule": ONE_LABEL, "organ": ORGAN}


@pytest.fixture(scope="session")
def cases_of(tmp_path_factory):
    """A function that returns a folder of four phantoms of a task; what is prepared of them is shared."""
    folders = {}

    def make(task):
        if task.name not in folders:
            folder = folders[task.name] = tmp_path_factory.mktemp(task.name) / "cases"
            write_phantoms(folder, cases=4, size=28, seed=0, task=task)
            (folder.parent / "prepared").mkdir()
        return folders[task.name]

    return make


@pytest.fixture
def trainer_of_task(trainer_for, cases_of):
    """A trainer of fold 0 for phantoms of a task."""

    def make(task, **sections):
        dataset = {"task": task.model_dump(mode="json"), "name": task.name.replace("-", "").capitalize()}
        weights = None if sections.get("model", {}).get("output") == "regions" else [0.2] + [1.0] * len(task.labels)
        loss = {"weight_ce": weights, "warmup_epochs": 0}
        return trainer_for(cases=cases_of(task), dataset=dataset, loss=loss, **SHORT, **sections)

    return make


def regions_of(labels, task):
    """The regions of label numbers, (B, …), by NumPy: (B, R, …)."""
    return np.stack([np.isin(labels, numbers) for numbers in task.numbers.values()], axis=1)


CHOICES = [(name, "labels") for name in TASKS] + [("gli-2024", "regions"), ("organ", "regions")]


@pytest.mark.parametrize(("name", "output"), CHOICES)
def test_metrics_have_the_names_of_the_tasks_regions(trainer_of_task, name, output):
    task = TASKS[name]
    trainer = trainer_of_task(task, model={"output": output})
    epochs = train(trainer)
    regions = [region.lower() for region in task.regions]
    expected = {f"val_patch/{what}_{region}" for region in regions for what in ("dice", "failure_rate")}
    known = epoch_metric_names(trainer.experiment)
    of_regions = {metric for metric in known if metric.startswith(("val_patch/dice_", "val_patch/failure_rate_"))}
    assert of_regions == expected | {"val_patch/dice_mean"}
    unknown = {metric for metrics in epochs.values() for metric in metrics} - set(known)
    assert all("oracle" in metric for metric in unknown)
    assert np.isfinite(epochs[1]["train/loss"])
    assert epochs[1]["val_patch/dice_mean"] == pytest.approx(
        np.mean(
            [epochs[1][f"val_patch/dice_{region}"] for region in regions if f"val_patch/dice_{region}" in epochs[1]]
        )
    )


@pytest.mark.parametrize(("name", "output"), CHOICES)
def test_the_head_learns_the_errors_of_the_main_region(trainer_of_task, name, output):
    """The memory takes in where argmax, or the region's own channel, and the reference differ in that region."""
    task = TASKS[name]
    trainer = trainer_of_task(task, model={"output": output})
    trainer.on_train_start()
    trainer.network.eval()
    written = []
    trainer.memories["validation"].write = lambda _keys, _places, *given: written.append(given)
    batch = next(trainer.dataloader_val)
    target = (batch["target"][0] if isinstance(batch["target"], list) else batch["target"]).numpy()
    with torch.no_grad():
        logits = trainer.network(batch["data"])
        logits = (logits[0] if isinstance(logits, list) else logits).numpy()
        trainer.on_validation_epoch_start()
        trainer.validation_step(batch)
    main = list(task.regions).index(task.main_region)
    assert logits.shape[1] == (len(task.labels) + 1 if output == "labels" else len(task.regions))
    if output == "labels":
        predicted, reference = regions_of(logits.argmax(1), task), regions_of(target[:, 0], task)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        p = p[:, list(task.numbers[task.main_region])].sum(1)
    else:
        predicted, reference = logits > 0, target > 0
        p = 1 / (1 + np.exp(-logits[:, main]))
    ((values, interest),) = written
    np.testing.assert_array_equal(values["error"][:, 0], predicted[:, main] != reference[:, main])
    np.testing.assert_allclose(values["variance"][:, 0], 4 * p * (1 - p), atol=1e-5)
    assert interest[:, 0].numpy()[reference[:, main]].all()


@pytest.mark.parametrize(("name", "output"), [("gli-2024", "regions"), ("nodule", "labels"), ("organ", "labels")])
def test_the_observed_patch_shows_the_tasks_image_and_labels(trainer_of_task, name, output):
    task = TASKS[name]
    trainer = trainer_of_task(task, model={"output": output})
    train(trainer)
    cases = read_splits(trainer.preprocessed_dataset_folder_base + "/splits_final.json")[0]["val"]
    patch = choose_patch(trainer.preprocessed_dataset_folder, cases, trainer.configuration_manager.patch_size, task)
    seen = observe(trainer, patch)
    assert np.isin(seen.reference, task.numbers[task.main_region]).any()
    assert set(np.unique(seen.reference)) | set(np.unique(seen.prediction)) <= {0, *task.labels.values()}
    data, _, _, _ = nnUNetDatasetBlosc2(trainer.preprocessed_dataset_folder, [patch.case_id]).load_case(patch.case_id)
    shown = 0 if task.shown is None else task.modalities.index(task.shown)
    inside = patch.geometry.bounding_box()
    expected = patch.geometry.padded(np.asarray(data[(shown, *inside)], dtype=np.float32))
    np.testing.assert_allclose(seen.image, expected, atol=1e-6)


@pytest.mark.parametrize(("name", "output"), CHOICES)
def test_estimators_and_the_loaded_network_see_the_same_main_region(trainer_of_task, name, output):
    """One pass without mirroring or noise is the network's own prediction: equal samples vary nowhere."""
    task = TASKS[name]
    trainer = trainer_of_task(task, model={"output": output})
    train(trainer)
    predictor = predictor_of_checkpoint(trainer.output_folder_base)
    assert isinstance(predictor.network, MaskedUncertaintyNetwork)
    data = np.random.default_rng(0).normal(size=(len(task.modalities), 20, 24, 28)).astype(np.float32)
    logits = predict_grid(predictor, data).logits.astype(np.float64)
    predictor.allowed_mirroring_axes = ()
    estimators = trainer.settings.estimators.model_copy(update={"augmentation": Augmentation(samples=2, noise_sd=0)})
    estimate = estimate_grid("augmentation", [predictor], data, estimators)
    main = list(task.regions).index(task.main_region)
    if output == "labels":
        p = np.exp(logits) / np.exp(logits).sum(0)
        p = p[list(task.numbers[task.main_region])].sum(0)
    else:
        p = 1 / (1 + np.exp(-logits[main]))
    np.testing.assert_allclose(estimate.maps["augmentation_total"], 4 * p * (1 - p), atol=1e-3)
    assert estimate.maps["augmentation_variance"].max() == 0
