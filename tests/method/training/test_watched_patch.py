"""Looking at a patch while the network trains: what is seen is true, and the training never notices."""

import random

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from support.training import SHORT, train
from uncseg.files import read_json
from uncseg.method.training.watched_patch import observe, watched_patch

KINDS = {
    "labels": {},
    "regions": {"model": {"output": "regions"}, "loss": {"weight_ce": None, "warmup_epochs": 0}},
    "baseline": {"model": {"uncertainty": False}},
    "2d": {"plan": {"configuration": "2d", "patch_size": [16, 16], "batch_size": 4}},
    "larger than the case": {"plan": {"patch_size": [48, 16, 16]}},
}


def patch_of(trainer):
    splits = read_json(trainer.preprocessed_dataset_folder_base + "/splits_final.json")
    cases, size = splits[0]["val"], trainer.configuration_manager.patch_size
    return watched_patch(trainer.preprocessed_dataset_folder, cases, size)


@pytest.mark.parametrize("kind", list(KINDS))
def test_what_is_seen_is_true(trainer_for, kind):
    trainer = trainer_for(**SHORT, **KINDS[kind])
    train(trainer)
    patch = patch_of(trainer)
    look = observe(trainer, patch)
    assert_the_patch_shows_its_case(trainer, patch, look)
    assert_the_prediction_is_the_networks(trainer, patch, look)
    assert_the_memory_is_the_validation_cases_own(trainer, patch, look)
    assert (look.uncertainty is None) == (kind == "baseline")
    if look.uncertainty is not None:
        assert_the_map_lies_in_the_dilated_prediction(look)


def assert_the_patch_shows_its_case(trainer, patch, look):
    data, labels, _, _ = nnUNetDatasetBlosc2(trainer.preprocessed_dataset_folder, [patch.case_id]).load_case(
        patch.case_id
    )
    whole = {"image": np.asarray(data[3]), "reference": np.maximum(np.asarray(labels[0]), 0)}
    for name, volume in whole.items():
        # an independent way to cut a box that may reach beyond the case
        padded = np.pad(volume, 64)
        expected = padded[tuple(slice(64 + a, 64 + a + n) for a, n in zip(patch.lower, patch.shape, strict=True))]
        np.testing.assert_allclose(getattr(look, name), expected, atol=1e-6)
    assert (look.reference > 0).any()
    for array in (look.prediction, look.error, look.variance):
        assert array.shape == patch.shape
    assert set(np.unique(look.prediction)) <= {0, 1, 2, 3}


def assert_the_prediction_is_the_networks(trainer, patch, look):
    data, _, _, _ = nnUNetDatasetBlosc2(trainer.preprocessed_dataset_folder, [patch.case_id]).load_case(patch.case_id)
    padded = np.pad(np.asarray(data[:]), [(0, 0), *[(64, 64)] * 3])
    box = tuple(slice(64 + a, 64 + a + n) for a, n in zip(patch.lower, patch.shape, strict=True))
    x = torch.from_numpy(padded[(slice(None), *box)])[None]
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
    np.testing.assert_array_equal(look.prediction, expected.numpy().reshape(patch.shape))


def assert_the_memory_is_the_validation_cases_own(trainer, patch, look):
    d, h, w = trainer.memories["validation"].cases[patch.case_id].shape
    known = trainer.memories["validation"].read_box(patch.case_id, (slice(0, d), slice(0, h), slice(0, w)))
    box = tuple(slice(64 + a, 64 + a + n) for a, n in zip(patch.lower, patch.shape, strict=True))
    for found, name in ((look.error, "error"), (look.variance, "variance")):
        np.testing.assert_array_equal(found, np.pad(known.values[name][0, 0].numpy(), 64)[box])


def assert_the_map_lies_in_the_dilated_prediction(look):
    assert 0 <= look.uncertainty.min() <= look.uncertainty.max() <= 1
    tumour = np.argwhere(look.prediction > 0)
    if len(tumour):
        doubted = np.argwhere(look.uncertainty > 0)
        distances = np.abs(doubted[:, None] - tumour[None]).max(-1).min(1)
        assert distances.max() <= 2


@pytest.mark.parametrize("kind", ["labels", "2d"])
def test_a_training_that_is_looked_at_ends_with_the_same_bits(trainer_for, kind):
    ends = []
    for looked in (False, True):
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        trainer = trainer_for(str(looked), **SHORT, **KINDS[kind])
        looks = []
        if looked:
            patch = patch_of(trainer)
            modes = [trainer.network.training]

            def look(epoch, trainer=trainer, patch=patch, looks=looks, modes=modes):
                before = trainer.network.training
                looks.append(observe(trainer, patch))
                modes.append(trainer.network.training == before)

            trainer.on_checkpoint = look
            trainer.save_every = 1
        else:
            trainer.save_every = 1
        metrics = train(trainer)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        memory = {side: memory.state()["cases"] for side, memory in trainer.memories.items()}
        ends.append((trainer.network.state_dict(), memory, states, metrics))
        assert len(looks) == (2 if looked else 0)
        assert all(modes[1:] if looked else [])
    (weights_a, memory_a, states_a, metrics_a), (weights_b, memory_b, states_b, metrics_b) = ends
    for name, tensor in weights_a.items():
        assert torch.equal(tensor, weights_b[name]), name
    for side, cases in memory_a.items():
        assert cases.keys() == memory_b[side].keys()
        for case, content in cases.items():
            torch.testing.assert_close(content, memory_b[side][case], rtol=0, atol=0)
    assert states_a == states_b
    for epoch, values in metrics_a.items():
        timeless = {name: value for name, value in values.items() if "seconds" not in name}
        assert timeless == {name: metrics_b[epoch][name] for name in timeless}


def test_cases_without_tumour_are_passed_over(trainer_for, tmp_path, monkeypatch):
    trainer = trainer_for(**SHORT)
    loaded = nnUNetDatasetBlosc2.load_case

    def without_tumour_in_the_first(self, case_id):
        data, labels, previous, properties = loaded(self, case_id)
        return data, labels[:] * (case_id != cases[0]), previous, properties

    cases = sorted(read_json(trainer.preprocessed_dataset_folder_base + "/splits_final.json")[0]["val"])
    monkeypatch.setattr(nnUNetDatasetBlosc2, "load_case", without_tumour_in_the_first)
    assert patch_of(trainer).case_id == cases[1]
    assert watched_patch(trainer.preprocessed_dataset_folder, cases[:1], [16, 16, 16]) is None
