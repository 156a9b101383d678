"""The error memory in patch coordinates: wrong on purpose, and only where it is asked for."""

import numpy as np
import pytest
import torch

from support.training import SHORT, train
from uncseg.config.training_sections import Memory
from uncseg.method.memory.error_memory import ErrorMemory, make_memory
from uncseg.method.memory.patch_geometry import PatchGeometry
from uncseg.method.training.observed_patch import choose_patch, observe
from uncseg.tasks.built_in_tasks import paper_task

CASE = (40, 32, 24)
PATCHES = {"3d": ((8, 16, 16), [0, 0, 0], [16, 9, 5]), "2d": ((16, 16), [3, 0, 0], [7, 9, 5])}


def visits(patch, seed=0):
    generator = np.random.default_rng(seed)
    return [torch.from_numpy(generator.integers(0, 2, (1, 1, *patch))).float() for _ in range(2)]


def write(memory, geometry, failure):
    memory.write(["a"], [geometry], {"error": failure}, torch.ones_like(failure) > 0)


def voxels(reading, patch):
    return reading.values["error"].reshape(patch), reading.visited.reshape(patch)


@pytest.mark.parametrize("kind", list(PATCHES))
def test_patch_coordinates_average_two_places_of_a_case(kind):
    """Of two visits of different anatomy the patch memory keeps the mean per voxel, and the case memory both."""
    patch, *places = PATCHES[kind]
    failures = visits(patch)
    geometries = [PatchGeometry.from_crop(place, patch, CASE) for place in places]
    elsewhere = PatchGeometry.from_crop([20, 3, 1], patch, CASE)
    wrong = make_memory(Memory(coordinates="patch"), ("error",))
    right = make_memory(Memory(), ("error",))
    for memory in (wrong, right):
        for geometry, failure in zip(geometries, failures, strict=True):
            write(memory, geometry, failure)
    mean = (failures[0] + failures[1])[0, 0] / 2
    for geometry in (*geometries, elsewhere, geometries[0].mirrored([1, 2])):
        error, visited = voxels(wrong.read(["a"], [geometry]), patch)
        torch.testing.assert_close(error, mean, rtol=0, atol=1e-3)
        assert visited.all()
    assert not wrong.read(["b"], geometries[:1]).visited.any()

    expected, count = np.zeros(CASE), np.zeros(CASE)
    boxes = [tuple(slice(p, p + n) for p, n in zip(place, (1, *patch)[-3:], strict=True)) for place in places]
    for box, failure in zip(boxes, failures, strict=True):
        expected[box] += failure.reshape((1, *patch)[-3:]).numpy()
        count[box] += 1
    expected /= np.maximum(count, 1)
    for geometry, box in zip(geometries, boxes, strict=True):
        error, _ = voxels(right.read(["a"], [geometry]), patch)
        np.testing.assert_allclose(error.numpy(), expected[box].reshape(patch), atol=1e-3)
        assert not torch.allclose(error, mean, atol=0.1)


def test_rotated_patch_is_kept_as_it_is():
    """Nothing is resampled to or from the patch's own grid."""
    patch = (8, 16, 16)
    turn = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    rotated = PatchGeometry.from_crop([5, 3, 2], patch, CASE).then(turn, np.zeros(3), patch)
    (failure, _) = visits(patch)
    memory = make_memory(Memory(coordinates="patch"), ("error",))
    write(memory, rotated, failure)
    error, _ = voxels(memory.read(["a"], [rotated]), patch)
    assert torch.equal(error, failure[0, 0])


def test_no_place_in_a_case_is_known():
    patch = (8, 16, 16)
    memory = make_memory(Memory(coordinates="patch"), ("error", "variance"))
    (failure, variance) = visits(patch)
    geometry = PatchGeometry.from_crop([5, 3, 2], patch, CASE)
    memory.write(["a"], [geometry], {"error": failure, "variance": variance}, failure >= 0)
    reading = memory.read_box("a", tuple(slice(0, n) for n in CASE))
    for values in (reading.visited, *reading.values.values()):
        assert values.shape == (1, 1, *CASE)
        assert not values.any()


def test_case_coordinates_are_the_default():
    assert type(make_memory(Memory(), ("error",))) is ErrorMemory


def test_trainer_keeps_patches_on_their_own_grid(trainer_for):
    trainer = trainer_for(**SHORT, memory={"coordinates": "patch"})
    metrics = train(trainer)[1]
    size = tuple(trainer.configuration_manager.patch_size)
    for memory in trainer.memories.values():
        assert memory.cases
        assert {case.shape for case in memory.cases.values()} == {size}
    # a case's second patch finds every voxel visited, whatever anatomy it shows
    assert metrics["uncertainty/memory/visited_share_union"] == 1
    case = next(iter(trainer.memories["validation"].cases))
    patch = choose_patch(trainer.preprocessed_dataset_folder, [case], size, task=paper_task())
    assert not observe(trainer, patch).error.any()
