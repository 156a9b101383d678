"""Which MLflow a folder's runs go to: an address that the user gave, now or before.

A folder from someone else may name any address. What is pushed there, and the credentials sent with it, would be
theirs. So such an address is used only after a question, and without credentials.
"""

import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from uncseg.config.addresses import sqlite_path
from uncseg.config.secret_addresses import masked
from uncseg.console import errors
from uncseg.errors import Problem, ProblemsFound
from uncseg.layout import own_database
from uncseg.ownership import is_own_run, is_signed, sign
from uncseg.tracking.mlflow_internals import send_no_credentials
from uncseg.tracking.moved_databases import artifact_places
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.store import Store

_not_given: set[str] = set()
"""Addresses that are used in this process, and that the user has not given."""


def keep_address(record: MlflowRecord, tracking_uri: str) -> None:
    """Note an address in a run's record, and, unless the user was only asked for it, that the user gave it."""
    record.tracking_uri = tracking_uri
    record.address_code = "" if tracking_uri in _not_given else sign(tracking_uri)


def usable_address(root: Path, given: str | None, record: MlflowRecord, otherwise: str) -> str:
    """Return the address that the user gave, else the one that a run's or a study's folder keeps, if it may be used.

    It may be used if the user gave it before, if MLFLOW_TRACKING_URI is the same, or if it is the database beside the
    runs, which has no address. Otherwise a user with a terminal is asked; after a yes no credentials are sent.

    Args:
        root: the folder.
        given: on the command line.
        record: of the folder.
        otherwise: what the folder's experiment file says, where the record has no address.

    Raises:
        ProblemsFound: it may not be used.
    """
    if given:
        return given
    kept = record.tracking_uri or otherwise
    if kept == os.environ.get("MLFLOW_TRACKING_URI") or is_given(root, record):
        return kept
    question = (
        f"{root} names an MLflow that you have not given: {masked(kept)}. Use it, without your credentials? [y/N] "
    )
    if is_beside(root, kept) or _ask(question):
        _not_given.add(kept)
        if sqlite_path(kept) is None:
            send_no_credentials()
        return kept
    found = f"{masked(kept)}, an address that {root} names and you have not given"
    advice = f"if you know it, set MLFLOW_TRACKING_URI to {masked(kept)}; or: uncseg sync {root} --tracking-uri ADDRESS"
    problem = Problem("tracking.uri", found, "an address that you give", advice)
    raise ProblemsFound("MLflow is not asked.", [problem])


def is_given(root: Path, record: MlflowRecord) -> bool:
    """Return whether the user gave the address that a folder keeps: in its record, else in its experiment file.

    The latter counts where the user made the folder, or the study above it.
    """
    if record.tracking_uri:
        return is_signed(record.tracking_uri, record.address_code)
    return is_own_run(root)


def is_beside(root: Path, address: str) -> bool:
    """Return whether an address is the database of the storage in which a run or a study lies."""
    database = sqlite_path(address)
    return database is not None and database == sqlite_path(own_database(root))


def require_artifacts_beside(store: Store) -> None:
    """Refuse a database beside runs that would have their files stored anywhere else than below its own folder.

    A database says where MLflow puts files: on a server, for example, or over somebody's own.

    Raises:
        ProblemsFound: naming the first such place.
    """
    database = sqlite_path(store.tracking_uri)
    if database is None:
        return
    for place in artifact_places(database, store.experiment_id):
        folder = local_folder(place)
        if folder is None or not folder.resolve().is_relative_to(database.parent.resolve()):
            found, expected = f"files that go to {masked(place)}", f"a folder below {database.parent}"
            advice = "give the address of an MLflow of your own: --tracking-uri"
            problem = Problem(masked(store.tracking_uri), found, expected, advice)
            raise ProblemsFound("MLflow is not asked.", [problem])


def local_folder(place: str) -> Path | None:
    """Return the folder of an artifact location; None if it is on no disk of this machine."""
    split = urlsplit(place)
    if split.scheme in ("", "file") and split.netloc in ("", "localhost"):
        return Path(unquote(split.path)) if split.scheme else Path(place)
    return None


def _ask(question: str) -> bool:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    errors.print(question, end="", soft_wrap=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
