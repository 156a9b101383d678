"""The folder in which a command is given may be from someone else: nothing is imported from there."""

from support.commands import start_uncseg
from support.small_experiment import write_small_experiment
from uncseg.dataset.phantom import write_phantoms
from uncseg.tasks.built_in_tasks import paper_task

MODULES = ("uncseg", "ray", "numpy", "SimpleITK", "nnunetv2")


def test_code_in_the_working_directory_is_not_run(tmp_path):
    write_phantoms(tmp_path / "cases", cases=4, size=28, seed=0, task=paper_task())
    experiment, folder, mark = write_small_experiment(tmp_path), tmp_path / "given", tmp_path / "intruded"
    folder.mkdir()
    for name in MODULES:
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r})\nraise ImportError\n")
    prepare = start_uncseg("prepare", experiment, log=tmp_path / "log", cwd=folder)
    code = prepare.end()
    assert not mark.exists()
    assert code == 0, prepare.describe()
