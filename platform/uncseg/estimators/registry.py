"""The registry of estimators: the names, maps, settings, requirements, costs and functions of all of them.

To add an estimator, write a file in this folder and an entry here. Settings, metrics, tables, files of maps and
benchmarks are derived from the entry. Experiments are checked without torch, so this module does not import it: an
estimator's file is imported when it first computes something.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field

from uncseg.section import Section, Seed, Weight

Part = Literal["total", "aleatoric", "epistemic", "variance", "entropy"]
AGAINST_DECISION = "against_decision"
"""|p − decision|, with p(main region) of a network, or the mean of several, and the decision that is judged: a second
opinion where that is another network's."""
PATCH_PASSES = 4
"""Largest number of passes over a validation patch while a fold trains."""


class Samples(Section):
    """Settings of an estimator that draws samples of a case's prediction."""

    from_one_pass: ClassVar[bool] = False
    """Whether all samples are drawn from one pass. False: each one is a pass of its own."""
    samples: Annotated[int, Field(ge=2, le=10_000)]
    seed: Seed = 0
    """Seed of the samples."""

    def on_patches(self) -> Self:
        """Return the settings for validation patches while a fold trains, with few passes."""
        few = self.samples if self.from_one_pass else min(self.samples, PATCH_PASSES)
        return self.model_copy(update={"samples": few})


class McDropout(Samples):
    """Predictions with dropout left on (Gal and Ghahramani 2016); needs ``model.dropout``."""

    samples: Annotated[int, Field(ge=2, le=10_000)] = 20
    """Number of passes, each with one mask for the whole volume."""


class Augmentation(Samples):
    """Predictions of changed copies of the case, changed back (Wang et al. 2019)."""

    samples: Annotated[int, Field(ge=2, le=10_000)] = 16
    """Number of passes: mirrored along each choice of axes, first without noise, then with noise, over and over."""
    noise_sd: Weight = 0.1
    """Standard deviation of the noise added to the normalised images, in their own standard deviations."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0
    """Largest angle by which samples after the first are turned, about a random axis."""
    scaling: Annotated[float, Field(ge=0, lt=1)] = 0
    """Samples after the first are scaled by a factor between 1 − scaling and 1 + scaling."""

    def on_patches(self) -> Self:
        """Return the settings with few passes that neither turn nor scale."""
        return super().on_patches().model_copy(update={"rotation_degrees": 0, "scaling": 0})


class LogitSamples(Samples):
    """Draws of logits around those of a heteroscedastic network; needs ``model.heteroscedastic``."""

    from_one_pass = True
    samples: Annotated[int, Field(ge=2, le=10_000)] = 50
    """Number of draws."""


class Requirement(NamedTuple):
    """A setting that an estimator needs."""

    met: Callable[[Any], bool]
    """Takes what has the sections ``evaluation``, ``model`` and ``training``."""
    message: str
    """"what is wrong; what to do" after the estimator's name; values of these sections are named in braces."""


@dataclass(frozen=True)
class Estimator:
    """One way to get uncertainty maps."""

    name: str
    function: str = ""
    """MODULE.FUNCTION in this folder, by default NAME.sample. It takes ``one_pass.OnePass`` and returns a map; with
    ``parts`` it takes ``several_passes.Passes`` and yields probabilities; the constant takes an error and weights."""
    source: Literal["p_main", "u", "variance_stable", "calibrated", "cross_fitted", "q", "error"] = "p_main"
    """Field of ``one_pass.OnePass`` that a map without parts needs. The error is in none: it is known only later."""
    role: Literal["method", "baseline", "floor"] = "method"
    """What it is in tables: a method that does not beat the floors of its own network has shown nothing."""
    parts: tuple[Part, ...] = ()
    """Maps of an estimator of several passes, each made from the moments of its predictions; none: of a single pass."""
    settings: type[Samples] | None = None
    """Section of an estimator of several passes in ``evaluation.estimators``; None: true chooses it."""
    needs: tuple[Requirement, ...] = ()
    combines_members: bool = False
    """Whether it predicts once with each of ``training.members`` networks. They are trained one by one, so it cannot
    be validated while a fold trains."""
    takes_batches: bool = False
    """Whether it takes a batch of validation patches as one volume, and not patch by patch."""

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of its maps."""
        return tuple(f"{self.name}_{part}" for part in self.parts) or (self.name,)

    @property
    def opinions(self) -> tuple[str, ...]:
        """Names of what its several predictions say of a decision that another prediction took."""
        return (*self.maps, f"{self.name}_{AGAINST_DECISION}") if self.parts else ()

    def costs(self, settings: Any, members: int) -> tuple[int, int]:
        """Return how many passes over a case it takes, and how many of a fold's ``members`` networks."""
        networks = members if self.combines_members else 1
        if isinstance(settings, Samples):
            return 1 if settings.from_one_pass else settings.samples, networks
        return networks, networks

    def resolve(self) -> Callable[..., Any]:
        """Import the function that computes it."""
        module, _, name = (self.function or f"{self.name}.sample").rpartition(".")
        return getattr(importlib.import_module(f"{__package__}.{module}"), name)


_KWON: tuple[Part, ...] = ("total", "aleatoric", "epistemic", "entropy")
_VARIANCE: tuple[Part, ...] = ("total", "variance", "entropy")
_DROPOUT = Requirement(
    lambda sections: sections.model.dropout > 0,
    "leaves dropout on, and this network has none; set `model.dropout` to 0.2 and train, or remove the estimator",
)
_SEGMENTS = Requirement(
    lambda sections: sections.model.error_network is None,
    "compares segmentations, and all members of an error network hold the same one; "
    "choose it in the run that segments, or remove it",
)
_MEMBERS = Requirement(
    lambda sections: sections.training.members >= 2,
    "needs several networks of each fold, and training.members is {training.members}; "
    "set `training.members` to 5 and train, or remove the estimator",
)
NOT_MIRRORED = Requirement(
    lambda sections: not sections.evaluation.mirroring,
    "mirrors, and with evaluation.mirroring each copy is the mean of all mirrored ones; "
    "set `evaluation.mirroring` to false",
)
_LOG_VARIANCE = Requirement(
    lambda sections: sections.model.heteroscedastic,
    "draws logits from their variance, which this network was not trained to predict; "
    "set `model.heteroscedastic` to true and `model.uncertainty` to false and train, or remove the estimator",
)

_ALL = (
    Estimator("uncertainty", "head.uncertainty", "u"),
    Estimator("cross_fitted", "failures.cross_fitted", "cross_fitted"),
    Estimator("variance_stable", "variance.variance_stable", "variance_stable", "baseline"),
    Estimator("var1shot", "variance.var1shot", role="floor"),
    Estimator("entropy", "entropy.predictive_entropy", role="floor"),
    Estimator("mc_dropout", parts=_KWON, settings=McDropout, needs=(_DROPOUT,), takes_batches=True),
    Estimator("deep_ensemble", parts=_KWON, needs=(_SEGMENTS, _MEMBERS), combines_members=True),
    Estimator("augmentation", parts=_VARIANCE, settings=Augmentation, needs=(NOT_MIRRORED,)),
    Estimator("heteroscedastic", parts=_VARIANCE, settings=LogitSamples, needs=(_LOG_VARIANCE,), takes_batches=True),
    Estimator("calibrated", "failures.calibrated", "calibrated", "floor"),
    Estimator("min_p", "floors.min_p", role="floor"),
    Estimator("one_minus_p", "floors.one_minus_p", role="floor"),
    Estimator("one_minus_max", "floors.one_minus_max", role="baseline"),
    Estimator("border_distance", "floors.border_distance", role="floor"),
    Estimator("constant", "floors.best_constant", "error", "floor"),
    Estimator("oracle", "oracle.failure_probability", "q"),
)
ESTIMATORS = {estimator.name: estimator for estimator in _ALL}
"""Every estimator by name, in the order of Table 2's rows."""
HEAD, ORACLE, CALIBRATED, CROSS_FITTED = "uncertainty", "oracle", "calibrated", "cross_fitted"
VAR1SHOT = "var1shot"
SEVERAL_PASSES = tuple(estimator for estimator in _ALL if estimator.parts)
ALL_MAPS = tuple(name for estimator in _ALL for name in estimator.maps)
SEVERAL_PASS_MAPS = tuple(name for estimator in SEVERAL_PASSES for name in estimator.maps)
SECOND_OPINIONS = tuple(name for estimator in SEVERAL_PASSES for name in estimator.opinions)
"""What several predictions say of a decision that they did not take together."""
NO_FURTHER_PASS = tuple(name for name in ALL_MAPS if name not in (*SEVERAL_PASS_MAPS, ORACLE))
"""Maps of any run that take no pass beside the one that segments."""
LEARNT = tuple(name for name in NO_FURTHER_PASS if name in (CALIBRATED, CROSS_FITTED))
"""Maps that a fold has learnt from failures of the other folds."""
ONE_PASS = tuple(name for name in NO_FURTHER_PASS if ESTIMATORS[name].source == "p_main" or name in LEARNT)
"""Maps of new cases that need neither the head nor the error memory."""
FLOORS = tuple(name for name in NO_FURTHER_PASS if ESTIMATORS[name].role == "floor")
"""The one list of floors: maps of the same network and pass that need no training of a network for them."""
