"""What uncseg wrote into a folder that a user names: nothing else in it is ever overwritten or removed.

Before a file gets its final name, size and digest are noted in a record in the folder, which is kept twice: a damaged
one loses nothing. So at any moment, also after a kill, each file there is either one of ours, as we wrote it, or
someone's: another file of that name, or ours edited.
"""

import contextlib
import errno
import json
import os
import shutil
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from uncseg.errors import Problem, ProblemsFound, first_problems, listed, raise_if_any
from uncseg.files import before_a_rename, file_digest, file_lock, json_text, write_text
from uncseg.output_entries import entry_of, is_damaged, is_entry
from uncseg.partial_files import remove_partial

RECORDS = ".uncseg"
"""Folder of the records, in the folder that the user names."""
TWICE = (".jsonl", ".copy.jsonl")
"""How the names of a record's file and its copy end."""


@dataclass(frozen=True)
class Outputs:
    """The files of one kind in a folder: those of predictions, of phantoms, of one table of scores."""

    folder: Path
    kind: str
    """A part of a file's name; each kind has a record and a lock of its own."""
    option: str = "OUTPUT"
    """What the user calls the folder."""
    known: dict[str, list[dict[str, Any]]] = field(default_factory=dict, compare=False)
    """What is noted of each name, relative to the folder; a file may be as any of its entries says."""

    @property
    def _records(self) -> Path:
        return self.folder / RECORDS / self.kind

    @property
    def _packed(self) -> list[Path]:
        return [self.folder / f".{self.kind}{end}" for end in TWICE]

    @contextmanager
    def claimed(self, names: Iterable[str], owner: str = "") -> Iterator[None]:
        """Keep other commands away for a block, and note which of the names are written in it (:meth:`noting`).

        Args:
            names: what may be written, relative to the folder.
            owner: see :meth:`noting`.

        Raises:
            ProblemsFound: another command writes there, or a name is that of a file that is not ours (exit code 2).
                Nothing is written then.
        """
        claimed = dict.fromkeys(names)
        try:
            self.require_own(claimed)
        except ProblemsFound:
            if not self._records.is_dir():  # no command is at work there; one may just have ended
                self.require_own(claimed)
        with self._alone():  # a running one has written files since its record was read: it is named first
            self.require_own(claimed)
            self._tidy()
            with self.noting(owner, claimed):
                yield

    @contextmanager
    def noting(self, owner: str = "", among: Collection[str] | None = None) -> Iterator[None]:
        """Note each file that this process writes below the folder in a block; ``owner`` may be the case it is of.

        A name that is not ours is refused at the last moment by :class:`~uncseg.errors.ProblemsFound`. ``among`` are
        the only names that are noted and refused, all of them before the block begins; None: all that are written.
        """
        if among:  # the record of thousands of cases is not read for each of them
            self.require_own(among)
        note = partial(self._note, self.folder.resolve(), owner, among)
        before_a_rename.append(note)
        try:
            yield
        finally:
            before_a_rename.remove(note)

    def require_own(self, names: Iterable[str]) -> None:
        """Refuse names of files that exist and are not ours, or no longer as we wrote them.

        Raises:
            ProblemsFound: naming each (exit code 2).
        """
        self._read()
        problems = dict.fromkeys(problem for name in names if (problem := self._problem(name)) is not None)
        raise_if_any(first_problems(list(problems)), f"Files in {self.folder} are not uncseg's to overwrite.")

    def remove(self, names: Iterable[str] = (), owner: str | None = None) -> None:
        """Remove files of ours, those named and those of an owner; all others stay."""
        self._read()
        owned = [name for name, entries in self.known.items() if owner and entries[-1]["owner"] == owner]
        # records of finished cases come last in ``owned``, but have to go first
        for name in (*names, *reversed(owned)):
            if self.is_own(name):
                (self.folder / name).unlink(missing_ok=True)

    def pack(self) -> None:
        """Keep the record as one hidden file: nothing but cases is a folder in a folder of cases."""
        self._read()
        for file in self._packed:
            write_text(file, self._lines())
        shutil.rmtree(self._records, ignore_errors=True)
        with contextlib.suppress(OSError):  # records of other kinds
            self._records.parent.rmdir()

    def noted(self) -> list[str]:
        """Return the names that are noted, of files that may be gone."""
        self._read()
        return list(self.known)

    def adopt(self, names: Iterable[str], owner: str) -> None:
        """Note files that are there exactly as they would be written."""
        for name in names:
            self._append(entry_of(name, owner, self.folder / name))
        self._read()

    def adopt_older(self, names: Collection[str], written: Path) -> None:
        """Note files that an earlier version has written beside ``written`` and did not note: none of them is noted."""
        if written.is_file() and not {*names} & {*self.noted()}:
            self.adopt((name for name in names if (self.folder / name).is_file()), owner="")

    def is_own(self, name: str) -> bool:
        """Return whether a file is there as we wrote it, or damaged since (empty, truncated, flipped bits)."""
        file, entries = self.folder / name, self.known.get(name, ())
        if not entries or file.is_symlink() or not file.is_file():
            return False
        status = file.stat()
        if any((status.st_size, status.st_mtime_ns) == (entry["bytes"], entry["time"]) for entry in entries):
            return True
        content = file_digest(file)
        return any(e["sha256"] == content for e in entries) or is_damaged(file, entries)

    def is_whole(self, name: str, owner: str) -> bool:
        """Return whether a file is there exactly as it was written for an owner; ``claimed`` has read the record."""
        file = self.folder / name
        if file.is_symlink() or not file.is_file():
            return False
        bytes_, content = file.stat().st_size, file_digest(file)
        return any((bytes_, content, owner) == (e["bytes"], e["sha256"], e["owner"]) for e in self.known.get(name, ()))

    def _problem(self, name: str) -> Problem | None:
        """Return what is in the place of a file, or of a folder above it; None if it may be written."""
        advice = f"move it away, or give another {self.option}"
        for folder in reversed(Path(name).parents[:-1]):  # a link would lead to someone's files elsewhere
            path = self.folder / folder
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                what = "link" if path.is_symlink() else "file"
                return Problem(str(path), f"a {what} that uncseg did not write there", "a folder, or nothing", advice)
        path = self.folder / name
        if not os.path.lexists(path) or self.is_own(name):
            return None
        what = "folder" if path.is_dir() and not path.is_symlink() else "file"
        edited = what == "file" and name in self.known
        found = "changed since it was written" if edited else f"a {what} that uncseg did not write there"
        return Problem(str(path), found, "no such file, or one of an earlier command", advice)

    def _note(self, root: Path, owner: str, among: Collection[str] | None, file: Path, target: Path) -> None:
        """Write down what is about to get its final name; see ``files.before_a_rename``."""
        target = target.parent.resolve() / target.name
        if not target.is_relative_to(root) or (name := target.relative_to(root).as_posix()).startswith(RECORDS):
            return
        if among is not None and name not in among:
            return
        if os.path.lexists(target):
            self.require_own([name])
        self._append(entry_of(name, owner, file))

    def _append(self, entry: dict[str, Any]) -> None:
        self._records.mkdir(parents=True, exist_ok=True)  # where a worker on another node does not see it yet
        line = json_text(entry).encode() + b"\n"
        for end in TWICE:
            journal = self._records / f"{socket.gethostname()}-{os.getpid()}{end}"
            with journal.open("ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())

    def _read(self) -> None:
        """Read what is noted, of the names in this folder; damaged lines count as absent."""
        self.known.clear()
        journals = sorted(self._records.glob("*.jsonl"), key=lambda file: (file.name not in _ALL, file.name))
        for file in (*self._packed, *journals):
            if file.is_symlink() or not file.is_file():
                continue
            for line in file.read_bytes().splitlines():
                with contextlib.suppress(ValueError, RecursionError):
                    entry = json.loads(line)
                    if is_entry(entry) and entry not in (entries := self.known.setdefault(entry["name"], [])):
                        entries.append(entry)

    def _tidy(self) -> None:
        """Remove what a killed command left, and make one file of what all processes have noted."""
        remove_partial(self.folder, below=False)
        journals = [file for file in self._records.glob("*.jsonl") if file.name not in _ALL]
        if journals:
            for name in _ALL:
                write_text(self._records / name, self._lines())
            for file in journals:
                file.unlink(missing_ok=True)

    def _lines(self) -> str:
        """Return what is noted of files that are there, an entry a line."""
        left = [entries for name, entries in self.known.items() if os.path.lexists(self.folder / name)]
        return "".join(f"{json_text(entry)}\n" for entries in left for entry in entries)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other commands from the same outputs; the lock of a killed command is free."""
        try:
            self._records.mkdir(parents=True, exist_ok=True)
            os.utime(self._records.parent)  # as old as the newest files, like all else in the folder
            if self._records.is_symlink() or self._records.parent.is_symlink():
                raise OSError(errno.ELOOP, f"{RECORDS} is a link")
        except OSError as error:
            found, advice = f"{self.folder}: {error.strerror}", "give another folder"
            problem = Problem(self.option, found, "a folder that can be written to", advice)
            raise ProblemsFound(f"{self.option} cannot be written.", [problem]) from error
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(file_lock(self._records / "lock", wait=False))
            except BlockingIOError as error:
                found, advice = "another command that writes there", f"wait for it, or give another {self.option}"
                problem = Problem(str(self.folder), found, "no other command", advice)
                raise ProblemsFound(f"{self.option} is in use.", [problem]) from error
            except OSError:
                pass  # a file system without locks
            yield


def require_free(folder: Path, what: str) -> None:
    """Refuse a folder of someone's files as the place of a new run or study; hidden files do not count.

    Raises:
        ProblemsFound: naming some of the files (exit code 2).
    """
    if folder.is_dir():
        there = [path.name for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        found = [name for name in there if not (folder / name).is_dir() or any((folder / name).iterdir())]
        found_text = f"other files: {listed(found)}"
    else:
        found, found_text = [folder.name] * os.path.lexists(folder), "a file"
    if found:
        problem = Problem(str(folder), found_text, f"no such folder, or a {what}", "give another name or storage.path")
        raise ProblemsFound(f"The {what} has no place.", [problem])


_ALL = [f"all{end}" for end in TWICE]
