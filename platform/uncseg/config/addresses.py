"""Addresses of SQLite databases, as MLflow takes them, for any path."""

from pathlib import Path
from urllib.parse import quote, unquote

PREFIXES = ("sqlite:///", "sqlite+pysqlite:///")
SPECIAL = "%?#"
"""Characters of a path that an address would read as its own."""
DATABASE, ARTIFACTS = "mlflow.db", "mlflow_artifacts"
"""Names of the database and of the folder of files beside it, in a storage whose experiments name no other."""


def sqlite_address(database: Path) -> str:
    """Return the address of the database in a file, ``sqlite:///PATH``; characters of :data:`SPECIAL` are quoted."""
    path = str(database.resolve())
    if not any(character in path for character in SPECIAL):
        return f"{PREFIXES[0]}{path}"
    # with the short prefix MLflow makes a folder of the quoted name beside the one that is meant
    return PREFIXES[1] + "".join(quote(letter) if letter in SPECIAL else letter for letter in path)


def sqlite_path(tracking_uri: str) -> Path | None:
    """Return the file of an SQLite database; None for any other address."""
    prefix = next((prefix for prefix in PREFIXES if tracking_uri.startswith(prefix)), None)
    return None if prefix is None else Path(unquote(tracking_uri.removeprefix(prefix).partition("?")[0])).resolve()
