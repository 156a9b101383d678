"""Claims on a folder that a user names: whose a file is, and who is at work."""

import pytest

from uncseg.errors import ProblemsFound
from uncseg.files import write_text
from uncseg.outputs import Outputs


def refusal(outputs, *names):
    with pytest.raises(ProblemsFound) as caught, outputs.claimed(names):
        raise AssertionError("claimed")
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_files_of_a_running_command_are_not_called_foreign(tmp_path):
    """Its record may be read before it notes a file, and the file be seen after: here it is never noted."""
    with Outputs(tmp_path, "predictions").claimed([]):
        (tmp_path / "a.json").write_text("as of the running command")
        assert "OUTPUT is in use" in refusal(Outputs(tmp_path, "predictions"), "a.json")
        with Outputs(tmp_path, "tables").claimed(["b.json"]):  # another kind does not wait
            pass
    assert "a file that uncseg did not write there" in refusal(Outputs(tmp_path, "predictions"), "a.json")


def test_nothing_is_written_where_a_name_is_taken(tmp_path):
    (tmp_path / "a.json").write_text("mine")
    assert "a file that uncseg did not write there" in refusal(Outputs(tmp_path, "predictions"), "a.json")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("packed", [False, True])
def test_files_of_an_ended_command_are_replaced(tmp_path, packed):
    for text in ("first", "second"):
        outputs = Outputs(tmp_path, "predictions")
        with outputs.claimed(["a.json"]):
            write_text(tmp_path / "a.json", text)
            if packed:
                outputs.pack()
        assert (tmp_path / "a.json").read_text() == text


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("left", [0.0, 0.6])
def test_a_damaged_record_loses_no_file(tmp_path, packed, left):
    """Whichever file of ours is emptied or broken off, the same command goes on."""
    names = ["a.json", "b.json", "c.json"]
    for number in range(6):
        outputs = Outputs(tmp_path, "predictions")
        with outputs.claimed(names):
            for name in names:
                write_text(tmp_path / name, f'"{number}"')
            if packed:
                outputs.pack()
        ours = sorted(file for file in tmp_path.rglob("*") if file.is_file())
        file = ours[number % len(ours)]
        file.write_bytes(file.read_bytes()[: int(left * file.stat().st_size)])
    with Outputs(tmp_path, "predictions").claimed(names):
        pass


def test_a_case_reads_no_record_of_all_the_others(tmp_path):
    """With thousands of cases, each would read thousands of lines."""
    with Outputs(tmp_path, "predictions").claimed(["a.json"]):
        write_text(tmp_path / "a.json", "1")
        of_a_case = Outputs(tmp_path, "predictions")
        with of_a_case.noting(owner="b"):
            write_text(tmp_path / "b.json", "2")
    assert not of_a_case.known
    assert set(of_a_case.noted()) == {"a.json", "b.json"}
