"""Observing a patch while the network trains: what is shown is true, and the training is not affected."""

import random

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from support.training import SHORT, train
from uncseg.dataset.splits import read_splits
from uncseg.method.training.observed_patch import choose_patch, observe
from uncseg.tasks.built_in_tasks import paper_task

KINDS = {
    "labels": {},
    "regions": {"model": {"output": "regions"}, "loss": {"weight_ce": None, "warmup_epochs": 0}},
    "baseline": {"model": {"uncertainty": False}},
    "2d": {"plan": {"configuration": "2d", "patch_size": [16, 16], "batch_size": 4}},
    "larger than the case": {"plan": {"patch_size": [48, 16, 16]}},
}


def validation_cases(trainer):
    return sorted(read_splits(trainer.preprocessed_dataset_folder_base + "/splits_final.json")[0]["val"])


def patch_of(trainer):
    size = trainer.configuration_manager.patch_size
    return choose_patch(trainer.preprocessed_dataset_folder, validation_cases(trainer), size, task=paper_task())


def cut(volume, patch):
    """Cut a patch, which may reach beyond the case, out of (…, D, H, W), in another way than the package does."""
    padded = np.pad(volume, [(0, 0)] * (volume.ndim - 3) + [(64, 64)] * 3)
    first = 64 + patch.geometry.offset.astype(int)
    return padded[(..., *(slice(a, a + n) for a, n in zip(first, patch.geometry.shape, strict=True)))]


@pytest.mark.parametrize("kind", list(KINDS))
def test_observation_shows_the_case_the_prediction_and_the_error_memory(trainer_for, kind):
    trainer = trainer_for(**SHORT, **KINDS[kind])
    train(trainer)
    patch = patch_of(trainer)
    observation = observe(trainer, patch)
    folder = trainer.preprocessed_dataset_folder
    data, labels, _, _ = nnUNetDatasetBlosc2(folder, [patch.case_id]).load_case(patch.case_id)
    image = cut(np.asarray(data[:]), patch)
    np.testing.assert_allclose(observation.image, image[3], atol=1e-6)
    np.testing.assert_array_equal(observation.reference, cut(np.maximum(np.asarray(labels[0]), 0), patch))
    assert (observation.reference > 0).any()
    assert_prediction_is_the_networks(trainer, image, observation)
    d, h, w = trainer.memories["validation"].cases[patch.case_id].shape
    memory = trainer.memories["validation"].read_box(patch.case_id, (slice(0, d), slice(0, h), slice(0, w)))
    for name in ("error", "variance"):
        np.testing.assert_array_equal(getattr(observation, name), cut(memory.values[name][0, 0].numpy(), patch))
    assert (observation.uncertainty is None) == (kind == "baseline")
    if observation.uncertainty is not None:
        assert_map_lies_in_the_dilated_prediction(observation)


def assert_prediction_is_the_networks(trainer, image, observation):
    x = torch.from_numpy(image)[None]
    trainer.network.eval()
    with torch.no_grad():
        output = trainer.network(x[:, :, 0] if len(trainer.configuration_manager.patch_size) == 2 else x)
    logits = (output[0] if isinstance(output, list) else output)[0]
    if trainer.settings.model.output == "labels":
        expected = logits.argmax(0)
    else:
        wt, tc, et = logits > 0
        expected = torch.zeros(wt.shape, dtype=int)
        for mask, label in ((wt, 2), (tc, 1), (et, 3)):
            expected[mask] = label
    np.testing.assert_array_equal(observation.prediction, expected.numpy().reshape(observation.image.shape))
    assert set(np.unique(observation.prediction)) <= {0, 1, 2, 3}


def assert_map_lies_in_the_dilated_prediction(observation):
    assert 0 <= observation.uncertainty.min() <= observation.uncertainty.max() <= 1
    tumour = np.argwhere(observation.prediction > 0)
    if len(tumour):
        uncertain = np.argwhere(observation.uncertainty > 0)
        distances = np.abs(uncertain[:, None] - tumour[None]).max(-1).min(1)
        assert distances.max() <= 2


@pytest.mark.parametrize("kind", ["labels", "2d"])
def test_observed_training_ends_with_the_same_bits(trainer_for, kind):
    ends = []
    for observed in (False, True):
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        trainer = trainer_for(str(observed), **SHORT, **KINDS[kind])
        trainer.save_every = 1
        observations, modes = [], []
        if observed:
            patch = patch_of(trainer)

            def on_checkpoint(_epoch, trainer=trainer, patch=patch, observations=observations, modes=modes):
                before = trainer.network.training
                observations.append(observe(trainer, patch))
                modes.append(trainer.network.training == before)

            trainer.on_checkpoint = on_checkpoint
        metrics = train(trainer)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        memory = {side: memory.state()["cases"] for side, memory in trainer.memories.items()}
        ends.append((trainer.network.state_dict(), memory, states, metrics))
        assert len(observations) == (2 if observed else 0)
        assert all(modes)
    (weights_a, memory_a, states_a, metrics_a), (weights_b, memory_b, states_b, metrics_b) = ends
    torch.testing.assert_close(weights_a, weights_b, rtol=0, atol=0)
    torch.testing.assert_close(memory_a, memory_b, rtol=0, atol=0)
    assert states_a == states_b
    for epoch, values in metrics_a.items():
        timeless = {name: value for name, value in values.items() if "seconds" not in name}
        assert timeless == {name: metrics_b[epoch][name] for name in timeless}


def test_cases_without_tumour_are_passed_over(trainer_for, monkeypatch):
    trainer = trainer_for(**SHORT)
    cases, load_case = validation_cases(trainer), nnUNetDatasetBlosc2.load_case

    def without_tumour_in_the_first(self, case_id):
        data, labels, previous, properties = load_case(self, case_id)
        return data, labels[:] * (case_id != cases[0]), previous, properties

    monkeypatch.setattr(nnUNetDatasetBlosc2, "load_case", without_tumour_in_the_first)
    assert patch_of(trainer).case_id == cases[1]
    assert choose_patch(trainer.preprocessed_dataset_folder, cases[:1], [16, 16, 16], task=paper_task()) is None
