"""Files of other people in the folders that a user names: refused by name before the work, never changed or removed."""

import json
import shutil

import pytest
import yaml

from support.commands import uncseg
from support.small_sweeps import SPACE
from uncseg.dataset.phantom import write_phantoms
from uncseg.outputs import Outputs
from uncseg.tasks.built_in_tasks import paper_task

PLAIN = {"set": {"model.uncertainty": False}, "maps": ["entropy", "constant"]}
CASE = "BraTS-GLI-00000-000"


def contents(folder):
    """Return the bytes of all files below a folder; of a link where it leads."""
    files = [file for file in folder.rglob("*") if ".uncseg" not in file.parts and ".phantoms." not in file.name]
    return {
        str(file.relative_to(folder)): str(file.readlink()) if file.is_symlink() else file.read_bytes()
        for file in files
        if file.is_symlink() or file.is_file()
    }


def refused(folder, *command, names, said="that uncseg did not write there"):
    """Check that a command is refused for these files and no other, and that no file in the folder has changed."""
    before = contents(folder)
    output = uncseg(*command, code=2)
    lines = [line for line in output.splitlines() if said in line]
    assert len(lines) == len(names)
    assert all(any(f"{folder}/{name} " in line for line in lines) for name in names), output
    assert contents(folder) == before
    return output


@pytest.fixture(scope="module")
def predicted(root, run, tmp_path_factory):
    """A folder of predictions of one case; tests copy it."""
    folder = tmp_path_factory.mktemp("predicted")
    write_phantoms(folder / "one", cases=1, size=28, seed=11, task=paper_task())
    uncseg("predict", run.root, folder / "one", folder / "out")
    return folder


@pytest.fixture
def out(predicted, tmp_path, wide):
    """A copy of predictions, as they are after a command; times of files differ."""
    return shutil.copytree(predicted / "out", tmp_path / "out", copy_function=shutil.copyfile)


@pytest.mark.parametrize("name", [f"{CASE}.json", f"{CASE}.nii.gz", f"{CASE}_wt_probability.nii.gz", "predictions.csv"])
def test_predict_refuses_names_that_are_taken(run, predicted, tmp_path, wide, name):
    out = tmp_path / "mine"
    out.mkdir()
    (out / name).write_text('{"source": "mine", "files": ["notes.txt"]}')
    (out / "notes.txt").write_text("mine")
    refused(out, "predict", run.root, predicted / "one", out, names=[name])


def test_predict_refuses_links_and_folders_under_its_names(run, predicted, tmp_path, wide):
    out, elsewhere = tmp_path / "mine", tmp_path / "elsewhere.json"
    out.mkdir()
    elsewhere.write_text("mine")
    (out / f"{CASE}.json").symlink_to(elsewhere)
    (out / "task.yaml").symlink_to(tmp_path / "nowhere")
    (out / f"{CASE}.nii.gz").mkdir()
    refused(out, "predict", run.root, predicted / "one", out, names=[f"{CASE}.json", "task.yaml", f"{CASE}.nii.gz"])
    assert elsewhere.read_text() == "mine"


def test_folders_that_lead_elsewhere_are_refused(run, predicted, tmp_path, wide, local_ray):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "predictions").mkdir(parents=True)
    (elsewhere / f"{CASE}.json").write_text("mine")
    (elsewhere / "predictions/mine.jsonl").write_text("mine")
    before = contents(elsewhere)
    for folder, link in (("o", ".uncseg"), ("p", ".uncseg/predictions"), ("s", "s_cases")):
        (tmp_path / folder / link).parent.mkdir(parents=True)
        (tmp_path / folder / link).symlink_to(elsewhere)
    for folder in ("o", "p"):
        output = uncseg("predict", run.root, predicted / "one", tmp_path / folder, code=2)
        assert "OUTPUT cannot be written" in output
    command = ("score", predicted / "out", predicted / "one", "--out", tmp_path / "s/s.parquet")
    refused(tmp_path / "s", *command, names=["s_cases"])
    assert contents(elsewhere) == before


def test_scores_do_not_replace_the_table_of_predictions(predicted, out, wide, local_ray):
    command = ("score", out, predicted / "one", "--out", out / "predictions.parquet")
    refused(out, *command, names=["predictions.parquet", "predictions.csv"])


def test_predict_leaves_all_other_files(run, predicted, out):
    mine = (
        ".part-7-notes.nii.gz",
        f"{CASE}_mine.nii.gz",
        f"{CASE}_1.nii.gz",
        f"{CASE}.png",
        "sub/.part-1-x",
        "sub/a.json",
    )
    (out / "sub").mkdir()
    for name in mine:
        (out / name).write_text(name)
    # other options: the files of the first command are replaced
    uncseg("predict", run.root, predicted / "one", out, "--folds", 0)
    assert {name: (out / name).read_text() for name in mine} == {name: name for name in mine}
    assert not (out / f"{CASE}_between_folds.nii.gz").exists()


@pytest.mark.parametrize("edited", [b"mine", b'{"mine": 1}', None])
@pytest.mark.parametrize("name", [f"{CASE}_uncertainty.nii.gz", f"{CASE}.json", "predictions.csv"])
def test_predict_refuses_to_replace_what_someone_has_edited(run, predicted, out, name, edited):
    if edited is None:  # another image, or a line less
        image = predicted / "one" / CASE / f"{CASE}-t1n.nii.gz"
        edited = image.read_bytes() if name.endswith(".gz") else (out / name).read_bytes().rpartition(b"\n")[0]
        edited = edited.replace(b"}", b', "mine": 1}') if name.endswith(".json") else edited
    (out / name).write_bytes(edited)
    for options in ((), ("--folds", 0)):
        refused(out, "predict", run.root, predicted / "one", out, *options, names=[name], said="changed since")
    (out / name).rename(out / "mine")
    uncseg("predict", run.root, predicted / "one", out)
    assert (out / "mine").read_bytes() == edited
    assert (out / name).exists()


@pytest.mark.parametrize(
    "name", [f"{CASE}_uncertainty.nii.gz", f"{CASE}.json", "predictions.parquet", "predictions.csv"]
)
def test_predict_makes_again_what_was_damaged(run, predicted, out, name):
    whole = (predicted / "out" / name).read_bytes()
    (out / name).write_bytes(whole[: len(whole) // 2])
    uncseg("predict", run.root, predicted / "one", out)
    assert (out / name).read_bytes() == whole


def test_two_commands_do_not_write_into_one_folder(run, predicted, out):
    before = contents(out)
    with Outputs(out, "predictions").claimed([]):  # as another command does
        assert "OUTPUT is in use" in uncseg("predict", run.root, predicted / "one", out, code=2)
    assert contents(out) == before
    uncseg("predict", run.root, predicted / "one", out)
    assert contents(out) == before


def test_score_refuses_names_that_are_taken(run, predicted, tmp_path, wide, local_ray):
    command = ("score", predicted / "out", predicted / "one", "--out", tmp_path / "s.parquet")
    (tmp_path / "s.csv").write_text("mine")
    (tmp_path / "s_cases").mkdir()
    (tmp_path / f"s_cases/{CASE}.json").write_text("{}")
    refused(tmp_path, *command, names=["s.csv", f"s_cases/{CASE}.json"])
    for name in ("s.csv", f"s_cases/{CASE}.json"):
        (tmp_path / name).unlink()
    (tmp_path / ".part-s.csv").write_text("mine")
    uncseg(*command)
    uncseg(*command)
    assert (tmp_path / ".part-s.csv").read_text() == "mine"
    with (tmp_path / "s.csv").open("a") as table:
        table.write("mine\n")
    refused(tmp_path, *command, names=["s.csv"], said="changed since")


def test_phantoms_refuse_names_that_are_taken(tmp_path, wide):
    image = tmp_path / CASE / f"{CASE}-t1n.nii.gz"
    image.parent.mkdir()
    image.write_text("mine")
    command = ("phantom", tmp_path, "--cases", 1, "--size", 24)
    refused(tmp_path, *command, names=[f"{CASE}/{CASE}-t1n.nii.gz"])
    image.unlink()
    uncseg(*command)
    before = contents(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [CASE]
    image.write_bytes(b"")  # a damaged one is drawn again
    (tmp_path / "phantoms.json").unlink()
    uncseg(*command)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("edited", ["t1n.nii.gz", "seg.nii.gz", None])
def test_phantoms_that_someone_edited_are_refused_and_whole_ones_are_kept(tmp_path, wide, edited, lost):
    """Also where the record of what was written is lost: it tells nothing that drawing them again does not."""
    command = ("phantom", tmp_path, "--cases", 2, "--size", 24)
    uncseg(*command)
    records = list(tmp_path.glob(".phantoms*"))
    for record in records if lost else ():
        record.write_text("")
    if edited is not None:
        image = tmp_path / CASE / f"{CASE}-{edited}"
        image.write_bytes((tmp_path / CASE / f"{CASE}-t2w.nii.gz").read_bytes())
        said = "a file that uncseg did not write there" if lost else "changed since"
        refused(tmp_path, *command, names=[f"{CASE}/{CASE}-{edited}"], said=said)
        image.rename(tmp_path / ".mine")
    kept = {file: file.read_bytes() for file in tmp_path.glob("*/*.nii.gz")}
    for _ in range(2):
        uncseg(*command)
    assert {file: file.read_bytes() for file in kept} == kept
    assert len(list(tmp_path.glob("*/*.nii.gz"))) == 12
    for record in records:
        assert len({json.loads(line)["name"] for line in record.read_text().splitlines()}) == 13
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [CASE, CASE.replace("00000", "00001")]


@pytest.mark.parametrize("place", ["runs/small/notes.txt", "runs/small/figures/mine.png", "runs/small"])
def test_a_run_and_a_study_need_a_folder_of_their_own(experiment_file, tmp_path, wide, place):
    file = experiment_file(tmp_path / "cases", dataset={"phantoms": {"cases": 4, "size": 28}})
    (tmp_path / place).parent.mkdir(parents=True)
    (tmp_path / place).write_text("mine")
    both = {"name": "small", "base": str(file)}
    of_sweep = both | {"space": SPACE, "trials": 9}
    of_benchmark = both | {"seeds": [0, 1], "trainings": {"plain": PLAIN}}
    sweep, benchmark = tmp_path / "sweep.yaml", tmp_path / "benchmark.yaml"
    sweep.write_text(yaml.safe_dump(of_sweep))
    benchmark.write_text(yaml.safe_dump(of_benchmark))
    for command in (("cross-validate", file), ("sweep", sweep), ("benchmark", benchmark)):
        assert f"{tmp_path}/runs/small " in uncseg(*command, code=2)
    assert (tmp_path / place).read_text() == "mine"
    assert not (tmp_path / "cases").exists()


def test_report_refuses_a_page_that_someone_wrote_or_edited(run, tmp_path, wide):
    copy = tmp_path / "small"
    shutil.copytree(
        run.root, copy, ignore=shutil.ignore_patterns("folds", ".uncseg", "figures", "*.tex", "work_list.*")
    )
    (copy / "report.html").write_text("mine")
    refused(copy, "report", copy, "--cases", 0, names=["report.html"])
    (copy / "report.html").unlink()
    for _ in range(2):
        uncseg("report", copy, "--cases", 0)
    page = (copy / "report.html").read_text()
    (copy / "report.html").write_text(page.replace("</html>", "mine</html>"))
    refused(copy, "report", copy, "--cases", 0, names=["report.html"], said="changed since")
