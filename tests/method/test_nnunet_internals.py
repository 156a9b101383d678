"""What this package relies on inside nnU-Net and the libraries below it still exists, with the same parameters."""

import importlib
import inspect
import re
from importlib.metadata import packages_distributions, version

import pytest

from uncseg.dataset.planner import PLANNERS
from uncseg.method.inference.predictor import UncertaintyPredictor
from uncseg.method.memory.patch_geometry import MirrorTransformWithGeometry, SpatialTransformWithGeometry
from uncseg.method.nnunet_internals import INTERNALS
from uncseg.method.training.batches import LoaderWithGeometry
from uncseg.method.training.trainer import UncertaintyTrainer

TRANSFORMS = SpatialTransformWithGeometry, MirrorTransformWithGeometry
SUBCLASSES = (UncertaintyTrainer, UncertaintyPredictor, LoaderWithGeometry, *TRANSFORMS, *PLANNERS.values())


def library_of(owner):
    """The name and version of the distribution that holds MODULE:CLASS."""
    distribution = packages_distributions()[owner.partition(".")[0]][0]
    return f"{distribution} {version(distribution)}"


@pytest.mark.parametrize("internal", INTERNALS, ids=lambda i: f"{i.owner.rpartition('.')[2]}.{i.name}")
def test_internal_name_still_exists(internal):
    module, _, name = internal.owner.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, name, None) if name else owner
    assert owner is not None, f"{library_of(internal.owner)} has no {internal.owner}"
    found = hasattr(owner, internal.name) or re.search(rf"\b{internal.name}\b", inspect.getsource(owner))
    assert found, f"{library_of(internal.owner)} has no {internal.name} in {internal.owner}"
    if internal.parameters is not None:
        parameters = tuple(inspect.signature(getattr(owner, internal.name)).parameters)[1:]
        where = f"{internal.name} of {internal.owner} in {library_of(internal.owner)}"
        assert parameters == internal.parameters, f"{where} has the parameters {parameters}"


@pytest.mark.parametrize("subclass", SUBCLASSES, ids=lambda subclass: subclass.__name__)
def test_private_names_shared_with_a_library_class_are_listed(subclass):
    """A private name of ours that a library's class has too is overridden, on purpose or by accident."""
    ours = [cls for cls in subclass.__mro__ if cls.__module__.startswith("uncseg.")]
    theirs = [cls for cls in subclass.__mro__ if cls.__module__.partition(".")[0] not in ("uncseg", "builtins", "abc")]
    used, known = (
        {name for cls in classes for name in re.findall(r"(?:self\.|def )(_[a-z]\w*)", inspect.getsource(cls))}
        for classes in (ours, theirs)
    )
    assert theirs
    assert used & known <= {internal.name for internal in INTERNALS}
