"""Types of an experiment's values beside those of ``section.py``: ranges of numbers, addresses, lists of names."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from uncseg.config.secret_addresses import secret_in
from uncseg.section import path_text
from uncseg.tasks.fields import ConventionName

MOST_PHANTOMS, LARGEST_PHANTOM = 99_999, 1024
"""Phantoms of a folder, and the voxels along each of their axes."""
Spacing = Annotated[float, Field(ge=0.001, le=1000)]
"""Edge of a voxel in millimetres."""
Features = Annotated[int, Field(gt=0, le=10_000)]
"""Number of feature maps."""

ADDRESSES = ("", "http", "https", "file", "sqlite", "postgresql", "mysql", "mssql", "databricks", "databricks-uc")
"""Beginnings of the addresses that MLflow knows; none: a folder."""


def _whole_above_one(value: float) -> float:
    """Refuse one and a half GPUs, of which Ray gives no process a share."""
    if value > 1 and value != int(value):
        raise PydanticCustomError("gpus", "A whole number, or a fraction of one")
    return value


def _address(value: str) -> str:
    """Refuse what cannot be the address of a server or a database."""
    try:
        parts = urlsplit(value)
        kind = parts.scheme.partition("+")[0]
        fits = parts.port != 0 and (parts.hostname or not kind.startswith("http")) and kind in ADDRESSES
    except ValueError:  # http://[, http://host:99999
        fits = False
    spaced = kind not in ("", "file", "sqlite") and any(map(str.isspace, value)) if fits else False
    if not fits or not value.strip() or spaced:
        raise PydanticCustomError("address", "An address, as http://HOST:PORT or sqlite:///FILE")
    return value


def _without_secret(value: str) -> str:
    """Refuse a Ray's address with a token or a password: it would be kept with the run and shown."""
    if secret_in(value) or any(sign in value for sign in "@?#;"):
        raise PydanticCustomError("address", "HOST:PORT or ray://HOST:PORT alone, and a token in RAY_AUTH_TOKEN")
    return value


def _year(value: Any) -> Any:
    """Take the number 2018, as YAML reads it, for its text."""
    return str(value) if type(value) is int else value


def _names(value: Any) -> Any:
    """Refuse a list of names with numbers: YAML reads 001 as 1."""
    if isinstance(value, str):  # a file
        return path_text(value)
    if value is None or (isinstance(value, list | tuple) and not all(isinstance(name, str) for name in value)):
        raise PydanticCustomError("names", "A list of names, each of them in quotes if it looks like a number")
    return value


GpusPerFold = Annotated[float, Field(ge=0, le=1000), AfterValidator(_whole_above_one)]
"""A number of GPUs, or a share of one."""
RayAddress = Annotated[str, Field(pattern=r"^[^\s/]+(://\S+)?$", max_length=300), AfterValidator(_without_secret)]
"""auto, HOST:PORT or ray://HOST:PORT."""
TrackingUri = Annotated[str, AfterValidator(_address)]
"""Address of an MLflow server or a database."""
MlflowName = Annotated[str, Field(pattern=r"^\S([^\r\n\t]*\S)?$", max_length=200)]
"""One line of text."""
Year = Annotated[ConventionName, BeforeValidator(_year)]
"""Name of a convention, which may be a year."""
Names = BeforeValidator(_names)
"""What a list of names is checked by."""
