"""A picture of a training that is damaged is named on the page, not shown."""

import pytest

from support.evaluated_runs import report, write_run
from uncseg.report.style import is_whole_picture


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "p.png"
    figure_of().savefig(file, format="png")
    return file


def figure_of():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([0, 1])
    return figure


def test_a_damaged_picture_is_noticed(picture):
    content = picture.read_bytes()
    assert is_whole_picture(picture)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    for damaged in (b"", content[: len(content) // 2], content[:-8], bytes(flipped), b"text"):
        picture.write_bytes(damaged)
        assert not is_whole_picture(picture)


def test_the_page_names_it(picture, tmp_path):
    run = write_run(tmp_path)
    place = run.progress / "fold_0_epoch_0000.png"
    place.parent.mkdir()
    place.write_bytes(picture.read_bytes()[:200])
    assert report(run.root, "--cases", 0) == 0
    assert "progress/fold_0_epoch_0000.png is damaged" in (run.root / "report.html").read_text()
