"""Why MLflow did not do something, for people: the whole reason on one line, and the advice that fits it."""

import re
from typing import NamedTuple

from uncseg.config.secret_addresses import masked
from uncseg.errors import Problem

LONGEST = 500
"""Characters of a reason that are shown."""


class Cause(NamedTuple):
    """What to expect and to do where an error's text matches."""

    pattern: str
    expected: str
    advice: str


ABSENT = Cause(
    r"not[ _]found|\b404\b|does not exist|unknown database",
    "an MLflow at this address",
    "correct the address: something else answers there, or create the database",
)
CAUSES = (
    Cause(
        r"database (table )?is locked",
        "a database that no other process is writing to",
        "wait for the other process, or end it; then give the same command",
    ),
    Cause(
        r"no space left|disk is full|quota exceeded|file too large",
        "room on the disk",
        "free some space; then give the same command",
    ),
    Cause(
        r"file is not a database|malformed|disk image|file is encrypted",
        "an SQLite database",
        "restore it from a copy, or move it away: uncseg sync RUN fills a new one",
    ),
    Cause(
        r"readonly database|read-only|permission denied|unable to open database|is a directory|not a directory",
        "a file that you may write to, in a folder",
        "correct the path, or ask for the right to write there",
    ),
    Cause(
        r"not known|getaddrinfo|resolve|translate host name|name resolution|unknown (mysql )?(server )?host|nodename",
        "the name of a host in this network",
        "correct the name, or connect this machine to the network; then give the same command",
    ),
    Cause(
        r"certificate|ssl|tls",
        "a certificate that this machine trusts",
        "name the file of its authority in MLFLOW_TRACKING_SERVER_CERT_PATH, or correct the address",
    ),
    Cause(
        r"authentication|access denied|unauthenticated|unauthorized|forbidden|permission_denied|\b40[13]\b",
        "a name and a password that it knows",
        "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or PGPASSWORD for PostgreSQL",
    ),
    Cause(
        r"no module named|can't load plugin|no such driver",
        "the driver of this kind of database",
        "install it, for example psycopg[binary] for postgresql+psycopg://, or correct the address",
    ),
    Cause(
        r"refused|unreachable|no route",
        "an MLflow that answers",
        "start it, or correct host and port",
    ),
    Cause(
        r"timed? ?out|timeout",
        "an answer in a few seconds",
        "see whether it runs, is overloaded or lies behind a firewall; then give the same command",
    ),
    ABSENT,
)
OTHERWISE = Cause("", "an MLflow that answers", "start it or correct the address")


def whole_reason(error: BaseException) -> str:
    """Return all lines of an error's text on one line, without secrets and without the statement that failed."""
    text = str(error).strip() or repr(error)
    # SQLAlchemy appends the statement with its values, and a link
    text = re.split(r"\n?\[SQL: |\(Background on this error", text)[0]
    text = masked(" ".join(text[: 10 * LONGEST].split()))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def cause_of(error: BaseException) -> Cause:
    """Return the cause that an error's text, or that of an error which led to it, names."""
    seen: list[str] = []
    found: BaseException | None = error
    while found is not None and len(seen) < 10:
        seen.append(f"{type(found).__name__}: {found}")
        found = found.__cause__ or found.__context__
    text = "\n".join(seen)
    return next((cause for cause in CAUSES if re.search(cause.pattern, text, re.I)), OTHERWISE)


def problem_of(where: str, tracking_uri: str, error: BaseException) -> Problem:
    """Return what is wrong with an MLflow that did not do what it was asked."""
    cause = cause_of(error)
    return Problem(where, f"{masked(tracking_uri)}: {whole_reason(error)}", cause.expected, cause.advice)
