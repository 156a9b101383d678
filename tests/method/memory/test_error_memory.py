"""The error memory against a field of coordinates sent through nnU-Net's own training transforms."""

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from uncseg.method.checkpoints import load_resume_file, random_states, save_resume_file
from uncseg.method.memory.case_memory import BlockBox
from uncseg.method.memory.error_memory import ErrorMemory
from uncseg.method.memory.patch_geometry import PatchGeometry, carry_geometry
from uncseg.method.training.batches import seeded

CASE_SHAPE = (40, 44, 36)
PATCH = (24, 24, 24)
CROP = (38, 38, 38)
ROTATION = (-np.pi / 6, np.pi / 6)  # nnU-Net's default for isotropic 3D patches


def smooth_field(d, h, w):
    """An error in [0, 1] that is known at every point, between voxels too."""
    return 0.5 + 0.25 * np.sin(d / 7.0) * np.cos(h / 9.0) + 0.2 * np.sin(w / 8.0)


def nnunet_transforms(p_spatial=None, dummy_2d=False):
    """Return nnU-Net's default training transforms; rotation and scaling have a probability of 0.2 each unless set."""
    transforms = nnUNetTrainer.get_training_transforms(PATCH, ROTATION, None, (0, 1, 2), dummy_2d)
    for t in transforms.transforms:
        if p_spatial is not None and hasattr(t, "p_rotation"):
            t.p_rotation = t.p_scaling = p_spatial
    return carry_geometry(transforms)


def augmented_patch(transforms, lower, seed):
    """Return a patch's geometry, true coordinates (3, *PATCH), sent as regression target, and which are inside."""
    lower = np.array(lower)
    coordinates = np.stack(np.meshgrid(*[np.arange(s, s + n) for s, n in zip(lower, CROP, strict=True)], indexing="ij"))
    ones = np.ones((1, *CROP))
    target = torch.from_numpy(np.concatenate((coordinates, ones))).float()
    with seeded(seed):
        out = transforms(
            image=torch.zeros((1, *CROP)),
            segmentation=torch.zeros((1, *CROP), dtype=torch.int16),
            regression_target=target,
            geometry=PatchGeometry.from_crop(lower, CROP, CASE_SHAPE),
        )
    field = out["regression_target"].numpy()
    at = field[:3]
    last = np.array(CASE_SHAPE)[:, None, None, None] - 1
    inside = (field[3] > 0.999) & (at >= 0).all(0) & (at <= last).all(0)
    return out["geometry"], at, inside


def everywhere(shape=CASE_SHAPE):
    return tuple(slice(0, n) for n in shape)


def visit(memory, values, interest):
    """Visit a whole case with a patch of its size; values (D, H, W) by name."""
    shape = tuple(interest.shape)
    batch = {name: torch.as_tensor(value)[None, None].float() for name, value in values.items()}
    geometry = PatchGeometry.from_crop((0, 0, 0), shape, shape)
    memory.write(["case"], [geometry], batch, torch.as_tensor(interest)[None, None])
    memory.settle()


def coordinates(geometry):
    """Return the case coordinates of every patch voxel, (3, D, H, W) float64."""
    index = np.indices(geometry.shape, dtype=np.float64)
    return np.tensordot(geometry.matrix, index, axes=1) + geometry.offset[:, None, None, None]


def read_error(memory, shape=CASE_SHAPE):
    return memory.read_box("case", everywhere(shape)).values["error"][0, 0].numpy()


def count_visits(case):
    """Return the visits of every voxel of a case; 0 where no block is held."""
    box = BlockBox.around(everywhere(case.shape))
    rows = case.row.flatten()
    dense = torch.zeros((len(rows), 1, case.visits.shape[1]))
    dense[rows >= 0, 0] = case.visits[rows[rows >= 0].long()].float()
    return box.from_blocks(dense)[0].numpy()


def remembered_everywhere(field):
    memory = ErrorMemory(("error",), 1.0)
    visit(memory, {"error": field}, np.ones(CASE_SHAPE, dtype=bool))
    return memory


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dummy_2d", [False, True])
def test_geometry_follows_nnunets_transforms(seed, dummy_2d):
    transforms = nnunet_transforms(p_spatial=1.0, dummy_2d=dummy_2d)
    geometry, at, inside = augmented_patch(transforms, (1, 3, -1), seed)
    assert inside.mean() > 0.5
    assert not geometry.exact
    np.testing.assert_allclose(coordinates(geometry)[:, inside], at[:, inside], atol=2e-4)


def test_crops_and_mirrors_read_and_write_exactly():
    transforms = nnunet_transforms(p_spatial=0.0)
    random = np.random.default_rng(0)
    case = random.random(CASE_SHAPE).astype(np.float16).astype(np.float32)
    mirrored = set()
    for seed in range(16):
        lower = random.integers(-4, 8, 3)
        geometry, at, inside = augmented_patch(transforms, lower, seed)
        assert geometry.exact
        mirrored.add(tuple(np.sign(np.diag(geometry.matrix))))
        index = np.round(at[:, inside]).astype(int)
        read = remembered_everywhere(case).read(["case"], [geometry])
        expected = np.zeros(PATCH, dtype=np.float32)
        expected[inside] = case[tuple(index)]
        np.testing.assert_array_equal(read.values["error"][0, 0].numpy(), expected)
        np.testing.assert_array_equal(read.visited[0, 0].numpy() > 0, inside)

        memory = ErrorMemory(("error",), 1.0)
        patch = torch.from_numpy(expected)[None, None]
        memory.write(["case"], [geometry], {"error": patch}, torch.ones_like(patch, dtype=torch.bool))
        known = memory.read_box("case", everywhere())
        seen = np.zeros(CASE_SHAPE, dtype=bool)
        seen[tuple(index)] = True
        np.testing.assert_array_equal(known.visited[0, 0].numpy() > 0, seen)
        np.testing.assert_array_equal(known.values["error"][0, 0].numpy()[seen], case[seen])
    assert len(mirrored) >= 4


def test_rotated_and_scaled_patches_read_within_interpolation_error():
    field = smooth_field(*np.indices(CASE_SHAPE, dtype=float))
    memory = remembered_everywhere(field)
    transforms = nnunet_transforms(p_spatial=1.0)
    for seed in range(8):
        geometry, at, inside = augmented_patch(transforms, (1, 3, -1), seed)
        read = memory.read(["case"], [geometry])
        visited = read.visited[0, 0].numpy() > 0
        assert visited[inside].mean() > 0.98
        both = visited & inside
        error = np.abs(read.values["error"][0, 0].numpy() - smooth_field(*at))[both]
        # linear interpolation of a field whose second derivatives are at most 0.25/49, plus half precision
        assert error.max() < 0.006


def test_augmented_patches_are_written_to_the_cases_own_voxels():
    """With nnU-Net's default rotation and scaling. Without the transformed patches, the counts of visits would fail."""
    transforms = nnunet_transforms()
    memory = ErrorMemory(("error",), 1 / 30)
    random = np.random.default_rng(1)
    transformed = 0
    shown = np.zeros(CASE_SHAPE)
    for seed in range(60):
        geometry, at, inside = augmented_patch(transforms, random.integers(-4, 8, 3), seed)
        transformed += not geometry.exact
        patch = torch.from_numpy(np.where(inside, smooth_field(*at), 0)).float()[None, None]
        memory.write(["case"], [geometry], {"error": patch}, torch.ones_like(patch, dtype=torch.bool))
        # an independent count: case voxels well inside the patch
        inverse = np.linalg.inv(geometry.matrix)
        position = np.tensordot(inverse, np.indices(CASE_SHAPE) - geometry.offset[:, None, None, None], axes=1)
        margin = 1e-3
        upper = np.array(PATCH)[:, None, None, None] - 1
        shown += ((position > -margin) & (position < upper + margin)).all(0)
    assert transformed > 10
    memory.settle()
    middle = tuple(slice(12, n - 12) for n in CASE_SHAPE)
    counted, expected = count_visits(memory.cases["case"])[middle], np.minimum(shown, 30)[middle]
    # every voxel shown within the crop counts
    assert (counted == expected).mean() > 0.9
    assert np.abs(read_error(memory) - smooth_field(*np.indices(CASE_SHAPE)))[middle].max() < 0.02


def test_running_mean_then_exponential_average():
    alpha, shape = 0.25, (8, 8, 8)
    memory = ErrorMemory(("error",), alpha)
    expected, failures = 0.0, [1, 0, 1, 1, 0, 0, 1, 0, 1, 1]
    for n, failure in enumerate(failures, start=1):
        expected += max(1 / n, alpha) * (failure - expected)
        visit(memory, {"error": np.full(shape, float(failure))}, np.ones(shape, dtype=bool))
    assert read_error(memory, shape) == pytest.approx(expected, abs=2e-3)


def test_late_block_counts_the_visits_without_failure():
    shape = (8, 8, 8)
    memory = ErrorMemory(("error",), 1 / 30)
    for _ in range(9):
        visit(memory, {"error": np.zeros(shape)}, np.zeros(shape, dtype=bool))
    assert memory.cases["case"].visits.numel() == 0
    visit(memory, {"error": np.ones(shape)}, np.ones(shape, dtype=bool))
    assert read_error(memory, shape) == pytest.approx(0.1, abs=1e-3)


def test_patch_that_is_not_finite_is_no_visit():
    shape = (16, 8, 8)
    memory = ErrorMemory(("error", "variance"), 1 / 30)
    yes = np.ones(shape, dtype=bool)
    visit(memory, {"error": np.ones(shape), "variance": np.full(shape, 0.5)}, yes)
    spoilt = np.zeros(shape)
    spoilt[3, 3, 3] = np.nan
    visit(memory, {"error": np.zeros(shape), "variance": spoilt}, yes)
    known = memory.read_box("case", everywhere(shape))
    assert known.values["error"].min() == 1
    assert known.values["variance"].min() == known.values["variance"].max() == 0.5


def test_unvisited_voxels_read_as_unvisited():
    memory = ErrorMemory(("error", "variance"), 1 / 30)
    geometry = PatchGeometry.from_crop((2, 2, 2), (8, 8, 8), CASE_SHAPE)
    read = memory.read(["never seen"], [geometry])
    assert read.visited.shape == (1, 1, 8, 8, 8)
    assert not read.visited.any()
    assert set(read.values) == {"error", "variance"}


def test_memory_survives_its_file(tmp_path):
    memory = ErrorMemory(("error", "variance"), 1 / 30)
    geometry = PatchGeometry.from_crop((-2, 5, 20), (16, 16, 16), CASE_SHAPE)
    patch = torch.rand((1, 1, 16, 16, 16))
    memory.write(["case"], [geometry], {"error": patch, "variance": patch / 2}, patch > 0.5)
    file = tmp_path / "resume_epoch_0007.pt"
    content = {"epoch": 7, "memories": {"validation": memory.state()}, "random": random_states(), "next_batch": {}}
    save_resume_file(file, content)
    again = ErrorMemory(("error", "variance"), 1 / 30)
    again.load_state(load_resume_file(file)["memories"]["validation"])
    before, after = memory.read(["case"], [geometry]), again.read(["case"], [geometry])
    assert before.visited.any()
    torch.testing.assert_close(before.values, after.values, rtol=0, atol=0)
    torch.testing.assert_close(before.visited, after.visited, rtol=0, atol=0)
    assert [f.name for f in tmp_path.iterdir()] == [file.name]


def test_size_of_a_brats_case():
    """The memory of a tumour of 100 mL takes at most 2 MB within the reference, and 6 MB with variance and surround."""
    shape = (140, 170, 138)
    d, h, w = np.indices(shape)
    radius = ((d - 70) ** 2 + (h - 85) ** 2 + (w - 69) ** 2) ** 0.5
    nothing = np.zeros(shape)
    training = ErrorMemory(("error",), 1 / 30)
    visit(training, {"error": nothing}, radius < 28.8)
    assert training.bytes_per_case < 2e6
    union = ErrorMemory(("error", "variance"), 1 / 30)
    for reach in (28.8, 36):
        visit(union, {"error": nothing, "variance": nothing}, radius < reach)
    assert union.bytes_per_case < 6e6
