"""Which bodies a phantom of a task consists of: the labels of each lie within one another, and bodies lie apart.

The labels that an outermost region has for itself surround the regions within it, as oedema surrounds a tumour's core.
Further in, a region that holds one other region is inside that one, as necrosis is within the enhancing rim. Regions
that share no label become bodies of their own. A region that is no more than its parts has no body.
"""

from dataclasses import dataclass

from uncseg.tasks.rules import own_labels
from uncseg.tasks.task import Task


@dataclass(frozen=True)
class Body:
    """A body of a phantom.

    Args:
        labels: numbers of its labels, from the outside in.
        inner: bodies within the innermost label, apart from one another; none, or two and more.
    """

    labels: tuple[int, ...]
    inner: tuple["Body", ...] = ()


def bodies_of(task: Task, lesions: int) -> tuple[Body, ...]:
    """Return the bodies of a case with so many bodies of the main region."""
    regions = {region: set(labels) for region, labels in task.regions.items()}
    outermost = [region for region, labels in regions.items() if not any(labels < other for other in regions.values())]
    return tuple(body for region in outermost for body in _bodies(task, region, lesions, outermost=True))


def labels_in(body: Body) -> set[int]:
    """Return the numbers of the labels of a body and of those within it."""
    return set(body.labels).union(*map(labels_in, body.inner))


def _bodies(task: Task, region: str, lesions: int, outermost: bool) -> list[Body]:
    own = tuple(task.labels[label] for label in own_labels(task)[region])
    inner = [
        body for part in _parts(task, region) for body in _bodies(task, part, lesions, outermost=outermost and not own)
    ]
    if not own:
        found = inner
    elif len(inner) != 1:
        found = [Body(own, tuple(inner))]
    elif outermost or inner[0].inner:
        found = [Body(own + inner[0].labels, inner[0].inner)]
    else:
        found = [Body(inner[0].labels + own)]
    return found * (lesions if region == task.main_region else 1)


def _parts(task: Task, region: str) -> list[str]:
    """Return the regions that lie directly within a region."""
    within = {name: set(labels) for name, labels in task.regions.items() if set(labels) < set(task.regions[region])}
    return [name for name, labels in within.items() if not any(labels < other for other in within.values())]
