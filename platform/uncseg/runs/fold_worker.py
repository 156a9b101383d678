"""The training of one fold in a worker process, from its last checkpoint on. Knows nothing of Ray."""

import contextlib
import os
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from uncseg.dataset.preparation import nnunet_environment
from uncseg.dataset.splits import read_splits
from uncseg.files import read_json, write_json, write_text
from uncseg.layout import DONE
from uncseg.method.settings import TrainerSettings
from uncseg.runs.fold_request import FoldRequest
from uncseg.runs.needed_run import find_run, need_of
from uncseg.runs.own_folds import done_record
from uncseg.tracking.spool import SpoolWriter, write_state


def train_fold(
    request: FoldRequest,
    report: Callable[[dict[str, float]], None],
    rank: int = 0,
    report_from: Callable[[int], int] = lambda first: first,
) -> None:
    """Train a fold to its end, from its last checkpoint if there is one, and write every epoch to the spool.

    A Python error is deterministic: trying again would end the same way. It is therefore recorded as the end of the
    fold and not raised, so that only processes that died (killed, out of memory, node lost) are tried again.

    Args:
        report: called after each epoch with a few metrics.
        rank: of this process among those that train the fold; rank 0 writes.
        report_from: given the first epoch that is trained, returns the first epoch to report.
    """
    try:
        _train(request, report, rank, report_from)
    except Exception as error:
        suffix = f"_rank_{rank}" if request.processes > 1 else ""
        log = request.run.results / f"fold_{request.fold}{suffix}_failure.txt"
        text = f"{type(error).__name__}: {error}"
        if type(error).__name__ == "OutOfMemoryError":
            text += "; give each fold more of a GPU (resources.gpus_per_fold), or, in a run of another name,"
            text += " set `training.accumulate` to 2 or plan a smaller patch"
        # a full disk may prevent both; the command that waits for the fold then finds out by itself
        with contextlib.suppress(OSError):
            write_text(log, traceback.format_exc())
        with contextlib.suppress(OSError):
            write_state(request.run.spool, request.fold, "failed", f"{text} (see {log})")


def start_trainer(request: FoldRequest):  # type: ignore[no-untyped-def]
    """Set up the process for a fold (threads, nnU-Net's folders) and return its initialised trainer."""
    import torch

    gpu = torch.cuda.is_available()
    request = _with_loaders(request, gpu)
    torch.set_num_threads(max(1, request.cpus - (request.experiment.training.loader_processes or 0)))
    # as nnU-Net's own command sets it: the patch size never changes
    torch.backends.cudnn.benchmark = gpu
    os.environ.update(nnunet_environment(request.prepared, request.run.results))
    os.environ["nnUNet_n_proc_DA"] = "0"  # noqa: SIM112 - nnU-Net's name; our loader has its own processes
    from uncseg.method.training.trainer import UncertaintyTrainer  # nnU-Net reads its environment when imported

    plans = TrainerSettings.from_experiment(request.experiment).into_plans(read_json(request.prepared.plans))
    dataset_json = read_json(request.prepared.dataset / "dataset.json")
    configuration, device = request.experiment.plan.configuration, torch.device("cuda" if gpu else "cpu")
    with contextlib.redirect_stdout(None):
        trainer = UncertaintyTrainer(plans, configuration, request.fold, dataset_json, device)
        trainer.initialize()
    trainer.trust = request.trust
    return trainer


def _train(
    request: FoldRequest, report: Callable[[dict[str, float]], None], rank: int, report_from: Callable[[int], int]
) -> None:
    from uncseg.method.checkpoints import FINAL, keep_best_and_final
    from uncseg.method.distributed_fold import process_count

    assert process_count() == request.processes, "a process group across folds would average gradients over them"
    trainer = start_trainer(request)
    from uncseg.runs.training_pictures import TrainingPictures  # nnU-Net reads its environment when imported

    folder = Path(trainer.output_folder)
    first_epoch, note = _resume(trainer, folder, rank)
    if first_epoch == 0:  # its own checkpoints hold the judged run's network too
        load_judged_segmentation(request, trainer)
    if first_epoch < trainer.num_epochs:
        load_error_source(request, trainer)
        if rank == 0 and trainer.error_source is not None:
            _note_what_teaches(request, begun=first_epoch > 0)
    spool = SpoolWriter(request.run.spool, request.fold, first_epoch=first_epoch) if rank == 0 else None
    pictures = TrainingPictures(
        trainer, read_splits(request.prepared.splits)[request.fold]["val"], request.run.progress
    )

    def on_epoch(epoch: int, metrics: dict[str, float]) -> None:
        if spool is not None:
            spool.epoch(epoch, metrics)
            if epoch == 0:
                pictures.draw(epoch)
        if epoch >= first_reported:
            report({"epoch": epoch, **{name: metrics[name] for name in request.reported if name in metrics}})

    def on_checkpoint(epoch: int) -> None:
        assert spool is not None
        spool.checkpoint(epoch)
        if epoch > 0:
            pictures.draw(epoch)

    trainer.on_epoch = on_epoch
    if spool is not None:
        pictures.forget(first_epoch)
        spool.state("running", note)
        trainer.on_checkpoint = on_checkpoint
    first_reported = report_from(first_epoch)
    if first_epoch < trainer.num_epochs:
        console = folder / ("console.log" if rank == 0 else f"console_rank_{rank}.log")  # for what nnU-Net prints
        with console.open("a", encoding="utf-8") as stream, contextlib.redirect_stdout(stream):
            trainer.run_training()
    elif spool is not None:  # it was killed after its last checkpoint, before the record below
        spool.checkpoint(first_epoch - 1)
        keep_best_and_final(folder, first_epoch)
    if spool is not None:
        spool.state("finished")  # first: where there is a done.json, the spool is complete
        write_json(folder / DONE, done_record(request.fold, trainer.current_epoch, folder / FINAL))


def load_error_source(request: FoldRequest, trainer) -> None:  # type: ignore[no-untyped-def]
    """Load what another run teaches the head; most heads learn from the error memory.

    Raises:
        ProblemsFound: there is no such run, or a file of it cannot be read.
    """
    need = need_of(request.experiment)
    if need is not None and need.source != "judged":
        import torch

        from uncseg.runs.run_that_teaches import error_source  # nnU-Net reads its environment when imported

        run = find_run(request.run.root, need)
        with torch.random.fork_rng(devices=[]):  # building networks draws numbers that a resumed training needs
            trainer.error_source = error_source(run, need.source, request)


def _note_what_teaches(request: FoldRequest, begun: bool) -> None:
    need = need_of(request.experiment)
    if need is not None and need.source != "judged":
        from uncseg.runs.run_that_teaches import keep_what_taught  # nnU-Net reads its environment when imported

        keep_what_taught(find_run(request.run.root, need), need.source, request, begun)


def load_judged_segmentation(request: FoldRequest, trainer) -> None:  # type: ignore[no-untyped-def]
    """Load the network of the run that an error network judges; other trainers need none.

    Raises:
        ProblemsFound: there is no such run, or its checkpoint cannot be read.
    """
    from uncseg.method.network.error_network import ErrorNetwork, load_segmentation
    from uncseg.method.nnunet_internals import unwrapped

    need = need_of(request.experiment)
    if need is not None and need.source == "judged":
        judged, network = find_run(request.run.root, need), unwrapped(trainer.network)
        assert isinstance(network, ErrorNetwork)
        load_segmentation(network, judged.final_checkpoint(request.fold), request.trust)


def _resume(trainer, folder: Path, rank: int) -> tuple[int, str]:  # type: ignore[no-untyped-def]
    """Load the newest whole checkpoint; return the epoch to train next, and what was wrong with newer checkpoints.

    In a distributed fold rank 0 chooses, because it may move a damaged file away.
    """
    from uncseg.method.distributed_fold import from_rank_zero

    if rank > 0:
        if (name := from_rank_zero(None)) is None:
            raise RuntimeError("rank 0 could not load a checkpoint")
        if name:
            trainer.load_checkpoint(str(folder / name))
        return trainer.current_epoch, ""
    name = None
    try:
        name, note = _load_newest(trainer, folder)
    finally:
        from_rank_zero(name)
    return trainer.current_epoch, note


def _load_newest(trainer, folder: Path) -> tuple[str, str]:  # type: ignore[no-untyped-def]
    """Return the name of the loaded checkpoint, "" if there is none, and what was wrong with newer ones."""
    from uncseg.method.checkpoints import FINAL, LATEST, PREVIOUS, DamagedCheckpoint

    found = [folder / name for name in (FINAL, LATEST, PREVIOUS) if (folder / name).is_file()]
    notes = []
    for checkpoint in found:
        try:
            trainer.load_checkpoint(str(checkpoint))
        except DamagedCheckpoint as error:
            if checkpoint == found[-1]:
                raise
            # rename it: the next checkpoint would make the file of this name the previous one
            checkpoint.replace(checkpoint.with_suffix(".damaged"))
            notes.append(f"{error.problems[0].where} was damaged")
        else:
            return checkpoint.name, "; ".join([*notes, f"resumed from {checkpoint.name}"] if notes else [])
    return "", ""


def _with_loaders(request: FoldRequest, gpu: bool) -> FoldRequest:
    """Fill in the number of loader processes if the experiment leaves it open."""
    training = request.experiment.training
    if training.loader_processes is not None:
        return request
    # with a GPU the cores have nothing else to do; without one they train
    processes = request.cpus - 1 if gpu else request.cpus // 4
    filled = training.model_copy(update={"loader_processes": processes})
    return replace(request, experiment=request.experiment.model_copy(update={"training": filled}))
