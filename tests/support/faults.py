"""Faults at random, from a seed, while commands work on a cluster, an MLflow server and a disk of their own."""

import collections
import contextlib
import random
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from support.clusters import RayHead, ray_workers, raylets
from support.commands import start_uncseg
from support.progress import start_with_retries
from support.servers import MlflowServer
from support.small_disk import SmallDisk

KINDS = ("worker", "raylet", "driver", "MLflow server", "SIGTERM", "full disk", "truncated file")
STARTING_CPU_S = 12
"""About as many seconds of a core as a command takes to start."""
LAST_WORDS_MS = 10_000
"""How long workers may live after their command: less than the next one takes to start others."""


@dataclass
class Machine:
    """A cluster of a head without CPUs and a node of ``cpus``, an MLflow server, and a disk; all can be repaired."""

    disk: SmallDisk
    server: MlflowServer
    cpus: int
    cluster: RayHead | None = None
    address: str = ""

    def repair(self):
        """Bring back whatever does not work."""
        self.disk.free()
        if self.cluster is None or not self.cluster.command.is_running():
            self.stop_cluster()
            self.cluster = start_with_retries("ray start", self._start_cluster)
        elif not self.cluster.nodes[-1].is_running():
            self.cluster.join(self.cpus)
        if self.server.process is None or self.server.process.poll() is not None:
            self.server.start()

    def _start_cluster(self):
        head = RayHead(0, (), None, {}, before=self.disk.inside)
        try:
            head.join(self.cpus)
        except BaseException:
            head.stop()
            raise
        return head

    def stop_cluster(self):
        if self.cluster is not None:
            self.cluster.stop()

    def start(self, *arguments, log):
        """Start ``uncseg`` on this machine."""
        options = [] if arguments[0] == "sync" else ["--set", f"resources.ray_address={self.cluster.address}"]
        return start_uncseg(*arguments, *options, log=log, watched=[self.disk.seen, log], before=self.disk.inside)


@dataclass
class Work:
    """A command that is disturbed, and given again until it has ended well.

    Args:
        arguments: of ``uncseg``.
        count: returns how much has been done; it grows while the command works, and may fall.
        step: the largest difference of the count between two faults.
        workers: names of the Ray actors and tasks that work.
        truncate: given a source of random numbers, truncates a file that the command has written, and returns its
            name; "" if there is none yet.
        again: removes results, so that a command that has ended well has work again.
    """

    arguments: tuple
    count: object
    step: int
    workers: tuple
    truncate: object
    again: object


@dataclass
class Fault:
    """One that was done: when, to which command, and what; Unix times in milliseconds."""

    kind: str
    command: str
    what: str
    from_ms: int
    until_ms: int
    """After this nothing more dies of it."""


def now_ms():
    return time.time_ns() // 1_000_000


def cpu_seconds(process):
    """Return the seconds of a core that a process has taken; those before its end if it has ended."""
    with contextlib.suppress(psutil.Error):
        times = psutil.Process(process.pid).cpu_times()
        return times.user + times.system
    return float("inf")


def truncate(file, choice):
    """Cut a file at a random byte, without changing what links to it."""
    size = file.stat().st_size
    left = choice.randrange(size)
    with file.open("r+b") as stream:
        stream.truncate(left)
    return f"{file.name} at {left} of {size} bytes"


@dataclass
class Soak:
    """Commands and what disturbs them.

    Args:
        machine: on which they work.
        seed: of all random choices.
        logs: folder of the commands' output.
    """

    machine: Machine
    seed: int
    logs: Path
    done: list[Fault] = field(default_factory=list)
    ends: list[tuple[str, int]] = field(default_factory=list)
    """Each command, and how it ended."""

    def __post_init__(self):
        self.choice = random.Random(self.seed)

    def kinds(self, number):
        """Return as many kinds of faults in a random order, each as often as the others or once more."""
        kinds = [kind for kind in KINDS if kind != "full disk" or self.machine.disk.can_be_filled]
        chosen = [kind for _ in range(-(-number // len(kinds))) for kind in self.choice.sample(kinds, len(kinds))]
        self.choice.shuffle(chosen := chosen[:number])
        return chosen

    def command(self, *arguments):
        """Start a command on a machine that is whole."""
        self.machine.repair()
        return self.machine.start(*arguments, log=self.logs / f"{len(self.ends):03d}_{arguments[0]}.log")

    def run(self, work, kinds):
        """Give a command until every fault has been done, and it has ended well after that."""
        waiting = list(kinds)
        while True:
            command, disturbed, ending = self.command(*work.arguments), False, False
            while waiting and not ending and self._is_time(command, work, starting=not disturbed):
                from_ms = now_ms()
                what, ending = self._hit(waiting[0], command, work)
                if what:
                    disturbed = True
                    self._note(waiting.pop(0), command, what, from_ms)
                else:  # there was nothing to hit
                    waiting.append(waiting.pop(0))
            code = command.end()
            if ending:
                self.done[-1].until_ms = now_ms() + LAST_WORDS_MS
            self.ends.append((command.log.stem, code))
            print(f"{command.log.stem} ended with {code}", flush=True)
            self._check_end(command, code, self.done[-1].kind if ending else "worker" if disturbed else "")
            if code == 0 and not waiting:
                return
            if code == 0:
                work.again()

    def _check_end(self, command, code, last):
        """Fail where a command ends otherwise than after the fault that ended it, or after others, or after none."""
        if code == 0:
            return
        assert last, f"ended with {code} though nothing disturbed it: {command.describe()}"
        expected = {"driver": -9, "SIGTERM": 130}.get(last, code)
        assert code == expected, f"ended with {code} after {last}: {command.describe()}"
        assert last != "SIGTERM" or "Traceback" not in command.output, command.describe()

    def _note(self, kind, command, what, from_ms):
        self.done.append(Fault(kind, command.log.stem, what, from_ms, now_ms()))
        print(f"{len(self.done)}: {kind} in {command.log.stem}: {what}", flush=True)

    def undisturbed(self, *arguments):
        """Give a command that has to end well."""
        command = self.command(*arguments)
        output = command.require()
        self.ends.append((command.log.stem, 0))
        return output

    def _is_time(self, command, work, starting):
        """Wait for the next moment; return False where the command has ended before it."""
        if starting and self.choice.random() < 0.25:
            at = self.choice.uniform(0.5, STARTING_CPU_S)  # a signal before that meets a Python that has not started
            return self._reached(command, lambda: cpu_seconds(command) >= at)
        begin, more = work.count(), self.choice.randint(1, work.step)
        if not self._reached(command, lambda: abs(work.count() - begin) >= more):
            return False
        self.machine.repair()  # one thing is broken at a time: a server was away until now
        # and some share of the work that follows
        workers = ray_workers(self.machine.cluster.folder, *work.workers)
        if not workers:
            return command.is_running()
        worker = self.choice.choice(workers)
        at = cpu_seconds(worker) + self.choice.uniform(0, 0.5)
        return self._reached(command, lambda: cpu_seconds(worker) >= at)

    def _reached(self, command, condition):
        while not condition():
            if not command.is_running():
                return False
            command.progress.require(command.describe)
            time.sleep(0.02)
        return command.is_running()

    def _hit(self, kind, command, work):
        """Do a fault; return what was hit, "" for nothing, and whether the command ends by it."""
        if kind == "worker":
            return self._kill_worker(command, work), False
        return self._kill_raylet() if kind == "raylet" else self._simple_fault(kind, command, work)

    def _simple_fault(self, kind, command, work):
        if kind == "driver":
            command.kill()
            return "SIGKILL", True
        if kind == "SIGTERM":
            command.process.send_signal(signal.SIGTERM)
            return "SIGTERM", True
        if kind == "full disk":
            self.machine.disk.fill()
            return "until the command ends", True
        if kind == "MLflow server":
            self.machine.server.kill()
            return "away until the next fault", False
        return work.truncate(self.choice), False

    def _kill_worker(self, command, work):
        found = []

        def working():
            found[:] = ray_workers(self.machine.cluster.folder, *work.workers)
            return found

        if not self._reached(command, working):
            return ""
        worker = self.choice.choice(found)
        with contextlib.suppress(psutil.Error):
            name = worker.cmdline()[0]
            worker.kill()
            return name
        return ""

    def _kill_raylet(self):
        head, node = raylets(self.machine.cluster.folder)
        if self.choice.random() < 0.3:
            head.kill()
            self.machine.cluster.command.end()
            return "of the head node", True
        node.kill()
        self.machine.cluster.nodes[-1].end()
        self.machine.repair()
        return "of the node at work, which comes back", False

    def table(self):
        """Return how often each kind hit each command, as lines of text."""
        names = list(dict.fromkeys(fault.command.partition("_")[2] for fault in self.done))
        counts = collections.Counter((fault.kind, fault.command.partition("_")[2]) for fault in self.done)
        lines = [f"{'':16}" + "".join(f"{name:>16}" for name in names)]
        lines += [f"{kind:16}" + "".join(f"{counts[kind, name]:16}" for name in names) for kind in KINDS]
        return lines
