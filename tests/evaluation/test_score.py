"""``uncseg score`` on folders of NIfTI files, against the figures of the challenges' own scripts."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from uncseg.cli import main
from uncseg.console import console

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "brats_metrics"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
REAL = Path(__file__).resolve().parents[3] / "shared" / "brats18"
# the challenge's names, and ours
OFFICIAL = {
    "Num_TP": "num_tp",
    "Num_FP": "num_fp",
    "Num_FN": "num_fn",
    "Sensitivity": "sensitivity",
    "Specificity": "specificity",
    "Legacy_Dice": "dice",
    "Legacy_HD95": "hd95_mm",
    "LesionWise_Score_Dice": "lesionwise_dice",
    "LesionWise_Score_HD95": "lesionwise_hd95_mm",
}


def score(*arguments):
    """The command's exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["score", *map(str, arguments)])
    return ended.value.code or 0


def save(folder, name, array, spacing_mm=(1, 1, 1)):
    file = folder / f"{name}.nii.gz"
    file.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing_mm, 1.0])), file)
    return file


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The golden triples as folders: prediction, reference, brain, percent and unit."""
    root = tmp_path_factory.mktemp("golden")
    for name in EXPECTED:
        with np.load(GOLDEN / f"{name}.npz") as case:
            for what in ("prediction", "reference", "brain"):
                save(root / what, name, case[what], case["spacing_mm"])
            for region in ("wt", "tc", "et"):
                percent = case[f"uncertainty_{region}"]
                save(root / "percent", f"{name}_{region}", percent, case["spacing_mm"])
                save(root / "unit", f"{name}_{region}", (percent / 100).astype(np.float32), case["spacing_mm"])
    return root


@pytest.mark.parametrize("scale", ["percent", "unit"])
def test_golden_triples(golden, tmp_path, local_ray, scale, capsys):
    out = tmp_path / "scores.parquet"
    options = ("--uncertainty", golden / scale, "--uncertainty-scale", scale, "--brain", golden / "brain")
    assert score(golden / "prediction", golden / "reference", "--out", out, *options) == 0
    found = pd.read_parquet(out).set_index(["case", "region"])
    assert len(found) == 3 * len(EXPECTED)
    for case, regions in EXPECTED.items():
        for region, figures in regions.items():
            for figure, value in figures.items():
                assert found.loc[(case, region), figure] == pytest.approx(value, abs=1e-6), (case, region, figure)
    summary = pd.read_parquet(tmp_path / "scores_summary.parquet").set_index(["region", "figure"])
    for region in ("WT", "TC", "ET"):
        figures = summary.loc[(region, "dice")]
        assert figures["mean"] == pytest.approx(np.mean([case[region]["dice"] for case in EXPECTED.values()]))
        assert figures["ci_low"] < figures["mean"] < figures["ci_high"]
    assert (tmp_path / "scores_reliability.png").stat().st_size > 1000
    assert "scored cases: 12 of 12" in capsys.readouterr().out


@pytest.mark.skipif(not REAL.is_dir(), reason="the real cases are not here")
def test_real_pairs(tmp_path, local_ray):
    out = tmp_path / "scores.parquet"
    assert score(REAL / "predictions", REAL / "cases", "--out", out) == 0
    found = pd.read_parquet(out).set_index(["case", "region"])
    with (REAL / "official_scores.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(found) == 30
    for row in rows:
        mine = found.loc[(row["case"], row["Labels"])]
        assert mine["reference_volume_ml"] == pytest.approx(float(row["GT_Complete_Volume"]) / 1000)
        for theirs, ours in OFFICIAL.items():
            assert mine[ours] == pytest.approx(float(row[theirs]), rel=1e-9, abs=1e-9), (row["case"], theirs)


def ball(centre, radius, shape=(24, 24, 24)):
    grid = np.indices(shape)
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius**2


def labels(shift=0):
    array = np.zeros((24, 24, 24), np.uint8)
    for label, radius in ((2, 8), (1, 5), (3, 3)):
        array[ball((12 + shift, 12, 12), radius)] = label
    return array


def test_old_labels_and_one_map_for_all_regions(tmp_path, local_ray, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 600)  # no cell wraps
    new, old = labels(), labels()
    old[old == 3] = 4
    u = ball((12, 12, 12), 9).astype(np.float32) / 2
    for convention, reference in (("new", new), ("old", old)):
        root = tmp_path / convention
        save(root / "references", "BraTS-GLI-00001-000", reference)
        save(root / "predictions", "BraTS-GLI-00001-000", labels(2))
        save(root / "maps", "BraTS-GLI-00001-000", u)
        out = root / "scores.parquet"
        folders = (root / "predictions", root / "references", "--out", out, "--uncertainty", root / "maps")
        if convention == "old":
            # the name says 2023, when 4 was no label
            assert score(*folders) == 1
            assert "set --reference-convention to 2018" in capsys.readouterr().err
            folders += ("--reference-convention", "2018")
        assert score(*folders) == 0
    first, second = (pd.read_parquet(tmp_path / name / "scores.parquet") for name in ("new", "old"))
    pd.testing.assert_frame_equal(first, second)
    assert set(first["patient"]) == {"BraTS-GLI-00001"}
    assert first["qu_score"].notna().all()


def test_a_prediction_of_ours_is_scored_as_it_lies(tmp_path, local_ray):
    """CASE.nii.gz with its maps beside it, in one folder."""
    save(tmp_path / "references/a", "a-seg", labels())
    save(tmp_path / "references/a", "a-t1n", np.ones((24, 24, 24), np.float32))
    save(tmp_path / "out", "a", labels(1))
    save(tmp_path / "out", "a_uncertainty", np.full((24, 24, 24), 0.25, np.float32))
    out, maps = tmp_path / "scores.parquet", ("--uncertainty", tmp_path / "out", "--brain", tmp_path / "references")
    assert score(tmp_path / "out", tmp_path / "references", "--out", out, *maps) == 0
    row = pd.read_parquet(out).set_index("region").loc["WT"]
    wrong = (labels() > 0) != (labels(1) > 0)
    assert row["ece"] == pytest.approx(abs(wrong.mean() - 0.25))
    assert row["mean_uncertainty"] == pytest.approx(0.25)


def test_a_mask_is_not_taken_for_a_map(tmp_path, local_ray, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 600)
    save(tmp_path / "references", "a", labels())
    save(tmp_path / "out", "a", (labels(1) > 0).astype(np.uint8))
    out, maps = tmp_path / "scores.parquet", ("--uncertainty", tmp_path / "out")
    assert score(tmp_path / "out", tmp_path / "references", "--out", out, *maps) == 1
    assert "no map in" in capsys.readouterr().err
    assert not out.exists()


def test_folders_of_ours_on_both_sides_and_mixed_names(tmp_path, local_ray):
    for folder in ("one", "two"):
        save(tmp_path / folder, "a", labels())
        save(tmp_path / folder, "a_uncertainty", np.zeros((24, 24, 24), np.float32))
    save(tmp_path / "two", "b_seg", labels())
    save(tmp_path / "one", "b", labels())
    out = tmp_path / "scores.parquet"
    assert score(tmp_path / "one", tmp_path / "two", "--out", out) == 0
    assert pd.read_parquet(out)["case"].unique().tolist() == ["a", "b"]


def test_labels_with_a_scale_factor(tmp_path, local_ray):
    """A float array under a header of integers: nibabel stores a factor, and 1.00000002 comes back."""
    like = nib.load(save(tmp_path / "references", "a", labels()))
    (tmp_path / "predictions").mkdir()
    stored = nib.Nifti1Image(labels().astype(float), like.affine, like.header)
    nib.save(stored, tmp_path / "predictions/a.nii.gz")
    assert np.unique(nib.load(tmp_path / "predictions/a.nii.gz").get_fdata()).tolist() != [0, 1, 2, 3]
    out = tmp_path / "scores.parquet"
    assert score(tmp_path / "predictions", tmp_path / "references", "--out", out) == 0
    assert (pd.read_parquet(out)["dice"] == 1).all()


def test_every_bad_file_is_named_and_the_good_cases_are_scored(tmp_path, local_ray, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 600)  # no cell wraps
    predictions, references, maps = (tmp_path / name for name in ("predictions", "references", "maps"))
    names = ["good", "smaller", "moved", "strange", "nan", "percent", "negative", "corrupt", "mapless", "both"]
    for name in names:
        save(references, name, labels())
        save(predictions, name, labels(1))
        save(maps, name, np.full((24, 24, 24), 0.5, np.float32))
    save(predictions, "alone", labels())
    save(references, "unpredicted", labels())
    save(predictions, "smaller", labels()[1:])
    save(predictions, "moved", labels(), spacing_mm=(1, 1, 2))
    strange = labels()
    strange[0, 0, :3] = 7
    save(predictions, "strange", strange)
    both = labels()
    both[0, 0, 0] = 4
    save(references, "both", both)
    for name, value in (("nan", np.nan), ("percent", 87.5), ("negative", -0.5)):
        bad = np.full((24, 24, 24), 0.5, np.float32)
        bad[1, 2, 3] = value
        save(maps, name, bad)
    whole = (predictions / "corrupt.nii.gz").read_bytes()
    (predictions / "corrupt.nii.gz").write_bytes(whole[: len(whole) // 2])
    (maps / "mapless.nii.gz").unlink()
    out = tmp_path / "scores.parquet"
    assert score(predictions, references, "--out", out, "--uncertainty", maps) == 1
    assert set(pd.read_parquet(out)["case"]) == {"good"}
    said = "".join(capsys.readouterr().err.split())
    for word in ("alone", "unpredicted", *(name for name in names if name != "good")):
        assert word in said
    for words in ("noreference", "noprediction", "size(23,24,24)", "7(3voxels)", "NaN", "87.5", "-0.5", "nomapin"):
        assert words in said, words
    assert "--uncertainty-scalepercent" in said


def test_a_map_of_another_scale_among_percents(tmp_path, local_ray, capsys):
    for name, value in (("a", 40.0), ("b", 0.4), ("c", 0.0)):
        save(tmp_path / "references", name, labels())
        save(tmp_path / "predictions", name, labels(1))
        save(tmp_path / "maps", name, np.full((24, 24, 24), value, np.float32))
    out, options = tmp_path / "scores.parquet", ("--uncertainty", tmp_path / "maps", "--uncertainty-scale", "percent")
    assert score(tmp_path / "predictions", tmp_path / "references", "--out", out, *options) == 1
    assert set(pd.read_parquet(out)["case"]) == {"a", "c"}
    assert "another scale" in " ".join(capsys.readouterr().err.split())


def test_only_what_is_missing_is_scored_again(tmp_path, local_ray):
    for name in ("a", "b"):
        save(tmp_path / "references", name, labels())
        save(tmp_path / "predictions", name, labels(1))
    out = tmp_path / "scores.parquet"
    arguments = (tmp_path / "predictions", tmp_path / "references", "--out", out)
    assert score(*arguments) == 0
    kept = tmp_path / "scores_cases"
    before = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    save(tmp_path / "predictions", "b", labels(2))
    assert score(*arguments) == 0
    after = {file.name: file.stat().st_mtime_ns for file in kept.iterdir()}
    assert after["a.json"] == before["a.json"]
    assert after["b.json"] > before["b.json"]
    scores = pd.read_parquet(out).set_index(["case", "region"])["dice"]
    assert scores["b", "WT"] < scores["a", "WT"]
    assert not list(tmp_path.rglob(".part-*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere", "references", "--out", "s.parquet"), "no folder"),
        (("predictions", "references", "--out", "s.csv"), ".parquet"),
        (("predictions", "references", "--out", "s.parquet", "--uncertainty-scale", "per mille"), "per mille"),
        (("predictions", "empty", "--out", "s.parquet"), "no reference"),
    ],
)
def test_wrong_requests(tmp_path, capsys, monkeypatch, arguments, said):
    save(tmp_path / "references", "a", labels())
    save(tmp_path / "predictions", "a", labels())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert score(*arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob("s.*"))


def test_patients_are_told_by_names_or_by_an_option(tmp_path, local_ray, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 300)
    names = ("sub-01_ses-1", "sub-01_ses-2", "P7_pre", "P7_post")
    for folder in ("references", "predictions"):
        for name in names:
            save(tmp_path / folder, name, labels())
    out, file = tmp_path / "scores.parquet", tmp_path / "patients.csv"
    arguments = (tmp_path / "predictions", tmp_path / "references", "--out", out)

    def patients():
        return pd.read_parquet(out).groupby("case")["patient"].first().to_dict()

    assert score(*arguments) == 0
    assert patients() == {"sub-01_ses-1": "sub-01", "sub-01_ses-2": "sub-01", "P7_pre": "P7_pre", "P7_post": "P7_post"}
    said = capsys.readouterr()
    assert "patients: 3 patients, by the names sub-NN_ses-NN, and 2 cases of other names, each its own" in said.out
    assert "P7_post, P7_pre: names that differ only in a last part" in said.err
    assert score(*arguments, "--patients", "(.+?)_") == 0  # what is kept of the cases is not scored again
    assert patients() == {"sub-01_ses-1": "sub-01", "sub-01_ses-2": "sub-01", "P7_pre": "P7", "P7_post": "P7"}
    said = capsys.readouterr()
    assert "patients: 2 patients, by the pattern (.+?)_" in said.out
    assert "Warnings" not in said.err
    file.write_text("case,patient\n" + "".join(f"{name},anna\n" for name in names))
    assert score(*arguments, "--patients", file) == 0
    assert set(patients().values()) == {"anna"}
    file.write_text("case,patient\nP7_pre,anna\n")
    capsys.readouterr()
    assert score(*arguments, "--patients", file) == 2
    said = " ".join(capsys.readouterr().err.split())
    for name in names:
        assert (f"no line for {name}" in said) == (name != "P7_pre")
    assert score(*arguments, "--patients", "(") == 2
    assert set(patients().values()) == {"anna"}
