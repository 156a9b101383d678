"""A storage that was moved or copied: where its database says that files lie follows the database."""

import sqlite3
from contextlib import closing
from pathlib import Path

from uncseg.tracking.mlflow_internals import ARTIFACT_COLUMNS

BESIDE_TAG = {"uncseg.artifacts": "beside the database"}
"""Tag of an experiment whose files lie in a folder beside its database, and stay beside it wherever both are moved."""


def follow_move(database: Path, artifacts: Path) -> None:
    """Let a database's own experiments have their files in ``artifacts``, beside it, as after a move or a copy.

    Experiments without :data:`BESIDE_TAG` keep their places, and so does everything that lies outside the old folder.

    Raises:
        sqlite3.Error: the database cannot be read or written.
    """
    place = artifacts.as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        if not _has(connection, "experiment_tags", "value"):
            return  # MLflow has not made its tables yet
        ((key, value),) = BESIDE_TAG.items()
        query = (
            "SELECT DISTINCT artifact_location FROM experiments JOIN experiment_tags USING (experiment_id) "
            "WHERE key = ? AND value = ? AND artifact_location <> ?"
        )
        for (old,) in connection.execute(query, (key, value, place)).fetchall():
            for table, column in ARTIFACT_COLUMNS:
                if _has(connection, table, column):
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (place, len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )


def artifact_places(database: Path, experiment_id: str) -> list[str]:
    """Return where an experiment, its runs and its models have their files, by the addresses in a database.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    places: set[str] = set()
    with closing(sqlite3.connect(database)) as connection:
        for table, column in ARTIFACT_COLUMNS:
            if _has(connection, table, "experiment_id"):
                query = f"SELECT DISTINCT {column} FROM {table} WHERE experiment_id = ?"
                places |= {str(place) for (place,) in connection.execute(query, (int(experiment_id),)) if place}
    return sorted(places)


def _has(connection: sqlite3.Connection, table: str, column: str) -> bool:
    return column in {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
