"""One page that needs no network: tables, figures, and cases to look at slice by slice."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path

from jinja2 import DictLoader, Environment
from matplotlib import colormaps
from matplotlib.colors import to_hex

from uncseg.files import json_text, write_text
from uncseg.page_table import PageTable
from uncseg.report.slices import Sheet, data_url
from uncseg.report.style import MAP_COLOURS


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption."""

    file: Path
    caption: str

    @property
    def url(self) -> str:
        """The picture itself, as the page holds it."""
        return data_url("png", self.file.read_bytes())


@dataclass(frozen=True)
class Viewer:
    """The slices of a case."""

    case: str
    anchor: str
    text: str
    sheet: Sheet

    @property
    def names(self) -> list[str]:
        """Names of the overlays."""
        return [name for name in self.sheet.layers if name != "image"]


@dataclass(frozen=True)
class PageSection:
    """What a page says of a run, of a benchmark or of a comparison; parts that are empty are left out."""

    label: str
    subtitle: str = ""
    prefix: str = ""
    """First part of its anchors, where a page has several sections."""
    missing: Sequence[str] = ()
    """Sentences on what is not there yet, or was left out."""
    verdicts: Sequence[str] = ()
    tables: Sequence[PageTable] = ()
    figures: Sequence[Picture] = ()
    progress: Sequence[Picture] = ()
    work: PageTable | None = None
    viewers: Sequence[Viewer] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    """Colours of the labels that the viewers show."""
    commands: str = ""
    configuration: str = ""
    environment: str = ""


def write_page(path: Path, title: str, sections: Sequence[PageSection], comparison: PageSection | None = None) -> None:
    """Write a page of one section or several, below what compares them."""
    parts = [part for part in files("uncseg.report").iterdir() if part.name.endswith(".html")]
    templates = {part.name: part.read_text(encoding="utf-8") for part in parts}
    # the page quotes names of files and cases that strangers chose
    environment = Environment(loader=DictLoader(templates), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_function"] = json_text
    page = environment.get_template("page.html").render(
        title=title,
        comparison=comparison,
        sections=sections,
        sheets=[asdict(viewer.sheet) for section in sections for viewer in section.viewers],
        scale=[to_hex(colormaps[MAP_COLOURS](step / 8)) for step in range(9)],
    )
    write_text(path, page)
