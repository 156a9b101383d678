"""Whether an MLflow can be reached, known in seconds: MLflow itself tries again for minutes before it says anything."""

import socket
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

LONGEST_S = 5.0
PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mariadb": 3306, "mssql": 1433}


def require_reachable(tracking_uri: str, database: Path | None) -> None:
    """Raise an error that names the cause unless the server accepts a connection, or the database can be written to.

    Args:
        tracking_uri: an address of any kind; of those that are not known nothing is asked.
        database: the file of an SQLite database; nothing is asked where it is absent.

    Raises:
        OSError: the host is unknown, or nobody answers there within five seconds.
        sqlite3.Error: the database is locked or damaged, or may not be written to.
        Exception: that of a database's driver.
    """
    if database is not None:
        _require_database(database)
        return
    split = urlsplit(tracking_uri)
    kind = split.scheme.partition("+")[0].lower()
    if kind not in PORTS or not split.hostname or "," in split.netloc:  # several hosts: the driver tries them all
        return
    if kind.startswith("http") and _has_proxy(tracking_uri):
        return
    _connect(split.hostname, split.port or PORTS[kind])
    if not kind.startswith("http"):
        import sqlalchemy

        with closing(sqlalchemy.create_engine(tracking_uri, poolclass=sqlalchemy.NullPool).connect()):
            pass


def _require_database(database: Path) -> None:
    if not database.exists():
        return
    address = f"{database.resolve().as_uri()}?mode=rw"
    with closing(sqlite3.connect(address, uri=True, timeout=LONGEST_S, isolation_level=None)) as connection:
        connection.execute("PRAGMA quick_check(1)" if database.stat().st_size < 2**20 else "PRAGMA schema_version")
        connection.execute("BEGIN IMMEDIATE")  # as the first write will
        connection.execute("ROLLBACK")


def _has_proxy(tracking_uri: str) -> bool:
    """Return whether requests to a server go through a proxy, which alone may know the host."""
    from requests.utils import get_environ_proxies

    return bool(get_environ_proxies(tracking_uri).get(urlsplit(tracking_uri).scheme.lower()))


def _connect(host: str, port: int) -> None:
    """Open a connection and close it again; the look-up of a name has no time limit of its own, so a thread does it."""
    failed: list[OSError] = []

    def attempt() -> None:
        try:
            socket.create_connection((host, port), timeout=LONGEST_S).close()
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=attempt, name="uncseg-preflight", daemon=True)
    thread.start()
    thread.join(LONGEST_S)
    if thread.is_alive():
        raise TimeoutError(f"{host}, port {port}: timed out after {LONGEST_S:g} seconds")
    if failed:
        kind = "the name cannot be resolved" if isinstance(failed[0], socket.gaierror) else "no connection"
        raise OSError(f"{host}, port {port}: {kind}: {failed[0]}") from failed[0]
