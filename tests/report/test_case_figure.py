"""Figure 1: where its planes lie, which way up they are, and what they hold."""

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib import image as mpl_image

from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.scan import scan_folder
from uncseg.layout import CaseFiles, RunFolder
from uncseg.report.case_figure import draw_case
from uncseg.report.case_images import CaseImages, largest_disagreement, read_case
from uncseg.tasks.built_in_tasks import paper_task

ISOTROPIC = (1.0, 1.0, 1.0)
PAPER = paper_task()
MAPS = ("error memory", "uncertainty", "variance_stable", "var1shot")


def labels(shape=(30, 30, 30), **boxes):
    """Boxes of a label, as ED=(slice, slice, slice)."""
    volume = np.zeros(shape, np.uint8)
    for name, box in boxes.items():
        volume[box] = {"NCR": 1, "ED": 2, "ET": 3}[name]
    return volume


def cube(first, size):
    return tuple(slice(n, n + size) for n in first)


def test_the_thickest_place_of_the_largest_region():
    reference = labels(ED=cube((4, 4, 4), 12))
    prediction = labels(ED=cube((5, 5, 5), 10))  # a shell of one voxel, the largest region
    prediction[cube((16, 8, 8), 5)] = 2  # a thick part that touches it
    prediction[cube((24, 24, 24), 3)] = 2  # another region
    at, why = largest_disagreement(reference, prediction, ISOTROPIC, PAPER)
    assert at == (17, 10, 10)  # with the shell below it the part is 6 × 5 × 5: of two equally deep the inner one
    assert "whole tumour" in why


def test_thickness_is_in_millimetres():
    """A plate of 9 × 9 × 3 voxels and a rod of 3 × 3 voxels on it; with thick slices the rod is the deeper one."""
    reference = labels()
    prediction = labels(ED=(slice(10, 13), slice(5, 14), slice(5, 14)))
    prediction[13:26, 8:11, 8:11] = 2
    flat, _ = largest_disagreement(reference, prediction, ISOTROPIC, PAPER)
    assert flat[0] <= 13
    thin, _ = largest_disagreement(reference, prediction, (0.1, 1.0, 1.0), PAPER)
    assert thin[0] > 13
    assert thin[1:] == (9, 9)


def test_without_disagreement_of_the_tumour_the_labels_decide():
    reference = labels(ED=cube((4, 4, 4), 12), ET=cube((6, 6, 6), 3))
    at, why = largest_disagreement(reference, labels(ED=cube((4, 4, 4), 12)), ISOTROPIC, PAPER)
    assert (at, "labels" in why) == ((7, 7, 7), True)
    at, why = largest_disagreement(reference, reference, ISOTROPIC, PAPER)
    assert reference[at] > 0
    assert "reference = prediction" in why
    assert largest_disagreement(labels(), labels(), ISOTROPIC, PAPER)[0] == (15, 15, 15)


def stretches(flags, longer_than):
    """Stretches of consecutive True, as slices."""
    at = np.flatnonzero(flags)
    parts = np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)
    return [slice(part[0], part[-1] + 1) for part in parts if len(part) > longer_than]


def panels(path):
    """The pixels of each panel by row and column; every image is black apart from its labels."""
    pixels = mpl_image.imread(path)[..., :3]
    rows = stretches((pixels.sum(2) == 0).mean(1) > 0.5, 50)
    white = pixels.min(2) > 0.99
    return [[pixels[row, column] for column in stretches(~white[row].all(0), 100)] for row in rows]


def black_case(reference, spacing_mm=ISOTROPIC, maps=MAPS):
    flat = np.ones(reference.shape, np.float32)
    nothing = {name: np.zeros_like(flat) for name in maps}
    return CaseImages(flat, reference, reference, nothing, spacing_mm)


@pytest.mark.parametrize("spacing_mm", [ISOTROPIC, (2.0, 1.0, 1.0)])
def test_every_plane_is_the_right_way_up(tmp_path, spacing_mm):
    """A cube near the head, in front, on the patient's left."""
    reference = labels((40, 40, 40), ED=(slice(30, 36), slice(4, 10), slice(28, 34)))
    draw_case(tmp_path / "f.png", black_case(reference, spacing_mm), "a case", PAPER)
    drawn = panels(tmp_path / "f.png")
    assert (len(drawn), [len(row) for row in drawn]) == (3, [7, 7, 7])
    # (rows, columns) as shares of the panel: axial front up, coronal head up, right on the left; sagittal front left
    from_head = 1 - 33 / 40
    for row, place in zip(drawn, [(7 / 40, 31 / 40), (from_head, 31 / 40), (from_head, 7 / 40)], strict=True):
        for panel in row[1:3]:
            at = np.argwhere(panel.sum(2) > 0.5)
            np.testing.assert_allclose(at.mean(0) / panel.shape[:2], place, atol=0.03)
    height, width = drawn[1][1].shape[:2]
    assert height / width == pytest.approx(spacing_mm[0], rel=0.03)


def test_one_scale_for_all_maps_and_no_panel_for_a_map_that_is_not_there(tmp_path):
    reference = labels((40, 40, 40), ED=cube((15, 15, 15), 8))
    case = black_case(reference, maps=("error memory", "variance_stable", "var1shot"))
    for name, values in case.maps.items():
        values[cube((17, 17, 17), 4)] = {"error memory": 0.5, "variance_stable": 0.5, "var1shot": 1.0}[name]
    draw_case(tmp_path / "f.png", case, "a case", PAPER)
    (axial, *_), maps = panels(tmp_path / "f.png"), slice(3, 6)
    assert len(axial) == 6
    error, stable, oneshot = (panel[panel.shape[0] // 2 - 3, panel.shape[1] // 2 - 3] for panel in axial[maps])
    np.testing.assert_array_equal(error, stable)
    assert oneshot.sum() > error.sum() + 0.3  # lighter where the value is higher, in grey too


def test_a_case_is_turned_as_radiologists_look_at_it(tmp_path):
    """Files that run from left to right and from back to front give the same volumes as BraTS' own."""
    write_phantoms(tmp_path / "cases", cases=1, size=28, seed=0, task=paper_task())
    (case,) = scan_folder(tmp_path / "cases", task=paper_task()).cases
    run = RunFolder(tmp_path / "run")
    files = CaseFiles(run.out_of_fold, case.case_id)
    files.root.mkdir(parents=True)
    reference = sitk.ReadImage(str(case.reference))
    sitk.WriteImage(reference, str(files.segmentation))
    p = sitk.Cast(reference, sitk.sitkFloat32) / 6
    for name in ("error", "wt_probability"):
        sitk.WriteImage(p, str(files.map(name)))
    expected = read_case(run, case, PAPER)
    assert sorted(expected.maps) == ["error memory", "var1shot"]
    np.testing.assert_allclose(
        expected.maps["var1shot"], 4 * expected.maps["error memory"] * (1 - expected.maps["error memory"])
    )
    for file in (*case.images, case.reference, files.segmentation, files.map("error"), files.map("wt_probability")):
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), "RAI"), str(file))
    found = read_case(run, case, PAPER)
    for name in ("image", "reference", "prediction"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.maps["error memory"], expected.maps["error memory"])
