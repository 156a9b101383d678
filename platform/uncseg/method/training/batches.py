"""Batches as a pure function of (seed, fold, batch index), whatever the number of loader processes.

Sampling and transforms are nnU-Net's, reseeded: the cases of a batch are drawn from its index, and each sample from its
index and its place in the batch, so that the GPUs of a distributed fold share the batch that one GPU would draw. A
batch carries the geometry of its patches.
"""

import random
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch.utils.data import DataLoader, Dataset

from uncseg.method.memory.patch_geometry import PatchGeometry, carry_geometry
from uncseg.method.nnunet_internals import limit_threads_once

TRAINING, VALIDATION, INITIALISATION, STEPS = 0, 1, 2, 3
KEPT_BYTES = 128 * 2**20  # case properties kept per loader process
READY = 8  # batches kept ready by up to 4 processes together; of more processes, each keeps 2


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed torch, NumPy and random from a key of whole numbers; afterwards restore the states of all three."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    _seed(*key)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_steps(*key: int) -> None:
    """Seed what training steps draw (dropout, noise of logits), on the GPU too, from a key of whole numbers."""
    _seed(*key, STEPS)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(torch.default_generator.initial_seed())


def _seed(*key: int) -> None:
    state = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    # the CPU's generator alone: torch.manual_seed would start CUDA in every loader process
    torch.default_generator.manual_seed(int(state[2]))


@dataclass(frozen=True)
class Share:
    """The samples of a joint batch that one process draws: ``count`` of ``joint``, starting with ``first``."""

    joint: int
    first: int
    count: int


class _TransformsWithGeometry:
    """The transforms that nnU-Net's loader calls with image and segmentation; the crop's geometry goes through too."""

    def __init__(self, transforms: BasicTransform) -> None:
        self.transforms = carry_geometry(transforms)
        self.crop: PatchGeometry | None = None
        self.results: list[PatchGeometry] = []

    def __call__(self, **sample: Any) -> dict:
        sample = self.transforms(**sample, geometry=self.crop)
        self.results.append(sample.pop("geometry"))
        return sample


class _KeptCases:
    """nnU-Net's dataset, which opens a case and unpickles its properties for every sample; here some stay open.

    As many cases as fit into ``KEPT_BYTES`` do, if a case's properties take as much memory as their file. The voxels
    stay in their file, which is mapped.
    """

    def __init__(self, cases: Any) -> None:
        self.cases = cases
        self.identifiers = cases.identifiers
        self._kept: OrderedDict[str, Any] = OrderedDict()
        sizes = [Path(cases.source_folder, f"{name}.pkl").stat().st_size for name in self.identifiers]
        self._most = max(1, KEPT_BYTES // max(sizes))

    def load_case(self, identifier: str) -> Any:
        """Return nnU-Net's (data, segmentation, previous stage, properties)."""
        if identifier in self._kept:
            self._kept.move_to_end(identifier)
        else:
            self._kept[identifier] = self.cases.load_case(identifier)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return self._kept[identifier]


class LoaderWithGeometry(nnUNetDataLoader):
    """nnU-Net's loader, from which batches are taken by index.

    A batch depends on ``key`` (seed, fold, stage) and on its index alone; this process draws its ``share``, whose count
    is nnU-Net's ``batch_size``. A batch's ``geometry`` lists one :class:`PatchGeometry` per sample.
    """

    def __init__(self, *args: Any, key: tuple[int, ...], share: Share, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._data: Any = _KeptCases(self._data)
        self.key, self.share = key, share
        self.probabilistic = kwargs.get("probabilistic_oversampling", False)
        self.get_do_oversample = self._start_sample
        self.transforms: _TransformsWithGeometry = _TransformsWithGeometry(self.transforms)
        self._batch_key = key

    def __getitem__(self, index: int) -> tuple[int, dict]:
        """Return the index and its batch; the process's random states stay as they were."""
        self._batch_key = (*self.key, index)
        self.transforms.results = []
        with seeded(*self._batch_key):
            batch = self.generate_train_batch()
        batch["keys"] = [str(key) for key in batch["keys"]]
        batch["geometry"] = self.transforms.results
        return index, batch

    def get_indices(self) -> Any:
        """nnU-Net draws a batch's cases here; each process draws those of the joint batch and takes its share."""
        drawn = np.random.choice(self.indices, self.share.joint, replace=True, p=self.sampling_probabilities)
        return drawn[self.share.first : self.share.first + self.share.count]

    def _start_sample(self, sample: int) -> bool:
        """nnU-Net asks here, first for each sample, whether to force foreground; so each sample is seeded here."""
        place = self.share.first + sample
        _seed(*self._batch_key, place)
        if self.probabilistic:
            return bool(np.random.uniform() < self.oversample_foreground_percent)
        return bool(place >= round(self.share.joint * (1 - self.oversample_foreground_percent)))

    def get_bbox(self, data_shape: np.ndarray, *args: Any, **kwargs: Any) -> tuple[list[int], list[int]]:
        """nnU-Net chooses the crop here; the geometry starts from it."""
        lower, upper = super().get_bbox(data_shape, *args, **kwargs)
        self.transforms.crop = PatchGeometry.from_crop(lower, self.patch_size, data_shape)
        return lower, upper


def _as_it_is(batch: Any) -> Any:
    return batch


def _start_loader(_process: int) -> None:
    limit_threads_once()


class BatchStream:
    """Batches ``first``, ``first + 1``, … without end; 0 ``processes`` load in the training process.

    A free process takes the next index, so a slow batch, such as a rotated one, keeps no other process idle; a batch
    that is ready early waits here for its turn. ``seconds_waited`` adds up the time that ``next`` took; set it to 0
    when an epoch starts. After a resume, ``first`` is the number of batches used before.
    """

    def __init__(self, loader: LoaderWithGeometry, *, first: int, processes: int, pin_memory: bool) -> None:
        self.loader = loader
        self.seconds_waited = 0.0
        self._next = first
        self._early: dict[int, dict] = {}
        data: DataLoader = DataLoader(
            cast("Dataset", loader),
            batch_size=None,
            sampler=count(first),
            num_workers=processes,
            collate_fn=_as_it_is,
            worker_init_fn=_start_loader,
            pin_memory=pin_memory,
            # a child that is forked from a process with Ray's threads can hang; a spawned one cannot
            multiprocessing_context="spawn" if processes else None,
            prefetch_factor=max(2, -(-READY // processes)) if processes else None,
            in_order=False,
        )
        self._batches: Iterator[tuple[int, dict]] | None = iter(data)

    def __next__(self) -> dict:
        started = time.perf_counter()
        if self._batches is None:
            raise StopIteration
        while self._next not in self._early:
            index, batch = next(self._batches)
            self._early[index] = batch
        self._next += 1
        self.seconds_waited += time.perf_counter() - started
        return self._early.pop(self._next - 1)

    def close(self) -> None:
        """End the loader processes."""
        self._batches = None
        self._early.clear()
