"""What the sections of an experiment are made of: their base class, and types of numbers, names and paths.

Every number has a range, so that a slip of the keyboard is refused with its field and not by a library later.
"""

from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

LONGEST_NAME = 100
"""Letters of a name: those of files that are called after it stay below the 255 bytes of file systems."""
TOO_LONG = "a path of at most 4000 bytes, whose names have at most 255 bytes each"


def is_too_long(path: str) -> bool:
    """Return whether no file can have this path: a name in it has more than 255 bytes, or the whole more than 4000.

    Systems take 4096, with the working directory before it.
    """
    parts = [len(part.encode(errors="replace")) for part in path.split("/")]
    return max(parts) > 255 or sum(parts) + len(parts) > 4000


def path_text(value: Any) -> Any:
    """Refuse texts that name no file or another one than is meant."""
    if isinstance(value, str) and not value.strip():
        raise PydanticCustomError("path", "A path, and not an empty text")
    if is_too_long(str(value)):
        raise PydanticCustomError("path", TOO_LONG[0].upper() + TOO_LONG[1:])
    if str(value).startswith("~"):
        raise PydanticCustomError("path", "A path without ~, which only a shell replaces by the home folder")
    return value


def free_name(name: str) -> str:
    """Refuse names of what lies beside the runs in their storage, in upper or lower case."""
    if name.lower() in ("prepared", "mlflow_artifacts") or name.lower().startswith("mlflow.db"):
        raise PydanticCustomError("name", "Another name: the storage keeps something else under this one")
    return name


Positive = Annotated[int, Field(gt=0, le=10**9)]
"""An integer above 0."""
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
"""A finite number of at least 0."""
Seed = Annotated[int, Field(ge=0, lt=2**31)]
"""What random numbers are drawn from; the generators of all libraries take these."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=LONGEST_NAME)]
"""A name that can be a folder's: letters, digits, dots, dashes and underscores, beginning with a letter or digit."""
RunName = Annotated[Name, AfterValidator(free_name)]
"""A name for a folder in the storage of runs."""
FilePath = Annotated[Path, BeforeValidator(path_text)]
"""A path of a file or a folder, absolute or from the working directory."""


def without_gone(content: Mapping[str, Any], gone: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a section without fields that are gone and stand at their defaults."""
    return {name: value for name, value in content.items() if name not in gone or value != gone[name]}


class Section(BaseModel):
    """A part of an experiment. Unknown keys are errors, and values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    older: ClassVar[Mapping[str, Any]] = {}
    """Values of newer fields which settings stand for that were written without these, where it is not the default."""
    gone: ClassVar[Mapping[str, Any]] = {}
    """Fields of earlier versions and their defaults, at which saved experiments hold them; they are left out."""

    @model_validator(mode="before")
    @classmethod
    def _without_gone(cls, content: Any) -> Any:
        """Leave out fields of earlier versions that stand at their defaults."""
        return without_gone(content, cls.gone) if isinstance(content, Mapping) and cls.gone else content

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_value_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false for a number, which Python takes for 1 and 0."""
        values = value if isinstance(value, list | tuple) else (value,)
        if any(isinstance(one, bool) for one in values):
            field = cls.model_fields[str(info.field_name)]
            if (types := types_in(field.annotation)) & {int, float} and not types & {bool, Any}:
                raise PydanticCustomError("number", "A number, and neither true nor false")
        return value


def first_wrong(error: ValidationError) -> str:
    """Return the first field that is not valid, or what is said where that is of no single field."""
    first = error.errors()[0]
    return ".".join(map(str, first["loc"])) or str(first["msg"])


def types_in(annotation: Any) -> set[Any]:
    """Return the types of a value and of what it is a list of."""
    if get_origin(annotation) in (Annotated, Union, UnionType, tuple):
        return set().union(*map(types_in, get_args(annotation)))
    return {annotation} if isinstance(annotation, type) or annotation is Any else set()


def field_names(section: type[BaseModel], prefix: str = "") -> list[str]:
    """Return the dotted names of all sections and fields, those of sections that may be left out included."""
    names = []
    for name, field in section.model_fields.items():
        names.append(f"{prefix}{name}")
        for part in types_in(field.annotation):
            if isinstance(part, type) and issubclass(part, Section):
                names += field_names(part, f"{prefix}{name}.")
    return names
