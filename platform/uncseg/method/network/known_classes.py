"""Which classes a model's plans.json may name: nnU-Net finds a dotted name anywhere in Python and calls what it finds.

Other names in plans.json are harmless. nnU-Net searches its own folders (``recursive_find_python_class``) for the
preprocessor, label manager, image reader, normalisation and resampling, and calls them with arguments that it chooses;
it does not need the experiment planner to predict.
"""

import pydoc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dynamic_network_architectures
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from torch import nn

from uncseg.errors import Problem, raise_if_any

KNOWN = ("torch.nn.", "dynamic_network_architectures.")
ARCHITECTURES = Path(dynamic_network_architectures.__path__[0], "architectures")


def require_known_classes(architecture: Any, where: str) -> None:
    """Refuse an architecture in which nnU-Net would call anything but network classes of torch and nnU-Net.

    An architecture holds ``network_class_name``, ``arch_kwargs`` and ``_kw_requires_import`` of a configuration.

    Raises:
        ProblemsFound: with every name that is refused, and ``where`` it stands.
    """
    expected = f"a network class below {' or '.join(KNOWN)}"
    advice = "add --trust if you know where the model comes from"
    try:
        problems = [
            Problem(where, f"{field}: {name}", expected, advice)
            for field, name in _names(architecture)
            if not _is_known(name, field == "network_class_name")
        ]
    except (KeyError, TypeError, AttributeError):
        found, wanted = "an architecture that is not whole", "network_class_name, arch_kwargs, _kw_requires_import"
        problems = [Problem(where, found, wanted, "fetch the file again")]
    raise_if_any(problems, "The model cannot be used: its plans name code to run.")


def _names(architecture: Any) -> Iterator[tuple[str, Any]]:
    """Yield field and value of what nnU-Net looks up in Python; it passes None on as it is."""
    yield "network_class_name", architecture["network_class_name"]
    for field in architecture["_kw_requires_import"]:
        if architecture["arch_kwargs"][field] is not None:
            yield field, architecture["arch_kwargs"][field]


def _is_known(name: Any, is_network: bool) -> bool:
    # a look-up imports modules, so the name itself is checked first
    if not isinstance(name, str) or not name.startswith(KNOWN):
        return False
    try:
        found = pydoc.locate(name)
        if found is None and is_network:  # nnU-Net searches this folder for networks that have moved
            last = name.split(".")[-1]
            found = recursive_find_python_class(str(ARCHITECTURES), last, f"{KNOWN[1]}architectures")
    except Exception:  # whatever a module raises when it is imported
        return False
    # a dotted name also reaches what these modules import from elsewhere
    return isinstance(found, type) and issubclass(found, nn.Module) and f"{found.__module__}.".startswith(KNOWN)
