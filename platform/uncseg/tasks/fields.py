"""The fields of a task, their defaults, and what follows from them. ``task.py`` checks that they fit together."""

from typing import Annotated

from pydantic import Field, StrictInt

from uncseg.section import Name, Positive, Section

MASK = "seg"
"""Role of the reference among a case's files; the other roles are the modalities."""
ORACLE = "-q"
"""Ending of a phantom's true probabilities, which lie beside its images."""
Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$", max_length=40)]
"""A name that becomes part of the names of columns, metrics and files."""
Ending = Annotated[str, Field(pattern=r"^[-_.][A-Za-z0-9._-]*[A-Za-z0-9]$")]


ConventionName = str
"""Name of one of the conventions of a task."""


class LesionRule(Section):
    """How lesions are told apart and which count, as in the BraTS challenge of the task."""

    dilations: Annotated[StrictInt, Field(ge=0, le=20)] = 3
    """Dilations of the reference, with the 18-neighbour element, after which connected parts are one lesion."""
    smallest_mm3: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 50
    """Largest volume of a lesion, in mm³, that does not count."""

    def __str__(self) -> str:
        """Return what counts as a lesion, as "lesions of more than 50 mm³, 3 dilations"."""
        times = f"{self.dilations or 'no'} dilation{'s' * (self.dilations != 1)}"
        return f"lesions of more than {self.smallest_mm3:g} mm³, {times}"


class Convention(Section):
    """How the files of a folder are named, and which value each label has in its masks."""

    title: str = ""
    """What it is called in messages."""
    images: dict[Word, Ending]
    """Ending of the file of each modality, between the case's name and .nii.gz."""
    mask: Ending = "-seg"
    """Ending of the reference."""
    values: dict[Word, Annotated[StrictInt, Field(gt=0)]] | None = None
    """Value of each label in masks. None: as the task numbers them."""


class PhantomShape(Section):
    """What a synthetic case of the task looks like; ``dataset/phantom_bodies.py`` says how it follows from regions."""

    lesions: tuple[Positive, Positive] = (1, 1)
    """Smallest and largest number of bodies of the main region per case."""
    cases: str | None = None
    """Names of the cases, with the numbers {patient} and {scan}. None: TASK-00000-000."""


class TaskFields(Section):
    """What the files of a dataset mean. Labels are numbered 1 to n, as in nnU-Net; 0 is the background."""

    name: Name = "own"
    title: str = ""
    """One line that says what is segmented in which images."""
    modalities: Annotated[tuple[Word, ...], Field(min_length=1)]
    """Images of a case, in the order of the network's channels."""
    shown: str | None = None
    """Modality that is drawn under overlays. None: the first one."""
    labels: Annotated[dict[Word, StrictInt], Field(min_length=1)]
    """Number of each label, from 1, in the order of the network's classes after the background."""
    regions: Annotated[dict[Word, Annotated[tuple[str, ...], Field(min_length=1)]], Field(min_length=1)]
    """Labels of each region that is scored. Regions lie within one another, the larger one first, or apart. None: all
    labels together as ``foreground``, then each label."""
    main_region: str
    """Region whose errors the head learns, and by which cases are ranked. None: the first one."""
    lesions: LesionRule = LesionRule()
    conventions: Annotated[dict[Name, Convention], Field(min_length=1)]
    """How files are named and labels numbered; the first one is usual, the others are earlier ones. None: -MODALITY and
    -seg."""
    cases: str | None = None
    """Regular expression of names of cases that tell this task."""
    patients: str | None = None
    """Regular expression that finds the patient, its first group, in a case's name. None: names of public datasets
    tell, as in ``dataset/patients.py``."""
    other_names: dict[Word, tuple[str, ...]] = Field(default_factory=dict)
    """Further names that nnU-Net's dataset.json may give a label or a modality, in lower case without other characters
    than letters and digits."""
    meanings: dict[Word, str] = Field(default_factory=dict)
    """What modalities, labels and regions are called in full, in pictures and model cards."""
    phantom: PhantomShape = PhantomShape()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the network's classes, in lower case, the background first."""
        return ("background", *(name.lower() for name in self.labels))

    @property
    def numbers(self) -> dict[str, tuple[int, ...]]:
        """Numbers of the labels of each region."""
        return {region: tuple(self.labels[label] for label in labels) for region, labels in self.regions.items()}

    @property
    def convention(self) -> str:
        """Name of the usual convention."""
        return next(iter(self.conventions))

    def values(self, convention: str) -> dict[str, int]:
        """Return the value of each label in masks of a convention."""
        return dict(self.conventions[convention].values or self.labels)

    @property
    def region_keys(self) -> dict[str, str]:
        """What regions are called in the names of columns, metrics and files: in lower case."""
        return {region: region.lower() for region in self.regions}

    @property
    def regions_of_map(self) -> tuple[str, ...]:
        """The regions whose errors the map of the main region shows: itself, and those within it."""
        whole = set(self.numbers[self.main_region])
        return tuple(region for region, numbers in self.numbers.items() if whole.issuperset(numbers))

    @property
    def main_key(self) -> str:
        """What the main region is called there."""
        return self.main_region.lower()

    @property
    def shown_channel(self) -> int:
        """Number of the modality that is drawn under overlays."""
        return 0 if self.shown is None else self.modalities.index(self.shown)

    @property
    def shown_image(self) -> str:
        """What pictures call that modality."""
        name = self.modalities[self.shown_channel]
        return f"image ({self.meanings.get(name, name)})"

    @property
    def main_in_words(self) -> str:
        """What the main region is called within a sentence: by its meaning where the task has one, else by its name."""
        meaning = self.meanings.get(self.main_region)
        return self.main_region if meaning is None else f"the {meaning}"

    def described(self, name: str) -> str:
        """Return the name of a modality, a label or a region, with its meaning where the task has one."""
        return f"{name} ({self.meanings[name]})" if name in self.meanings else name

    def same_meaning(self, other: "TaskFields") -> bool:
        """Return whether regions have the same names and numbers as another task's; names of labels may differ."""
        return (self.numbers, self.main_region) == (other.numbers, other.main_region)

    def describe_labels(self, convention: str | None = None) -> str:
        """Return values and names of the labels in masks of a convention, as "1 NCR, 2 ED, 3 ET"."""
        values = self.labels if convention is None else self.values(convention)
        return ", ".join(f"{value} {name}" for name, value in values.items())
