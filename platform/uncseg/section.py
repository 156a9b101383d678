"""What the sections of an experiment are made of: their base class and two types of numbers."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
"""An integer above 0."""
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A finite number of at least 0."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""A name that can be a folder's: letters, digits, dots, dashes and underscores, beginning with a letter or digit."""


class Section(BaseModel):
    """A part of an experiment. Unknown keys are errors, and values cannot change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)
