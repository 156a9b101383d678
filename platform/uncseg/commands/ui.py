"""``uncseg ui``: MLflow's pages of a run, on this machine alone."""

import webbrowser
from pathlib import Path
from urllib.parse import quote

from uncseg.console import command_line, console
from uncseg.errors import Problem, ProblemsFound
from uncseg.layout import RunFolder
from uncseg.studies.study_folder import warn_of_changed_runs
from uncseg.tracking.given_address import usable_address
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.ui_server import free_port, run_page, ui_server


def show_run(root: Path, port: int | None = None, browser: bool = True) -> int:
    """Open the page of a run, a sweep or a benchmark; a database is shown by a local server, until Ctrl-C.

    Args:
        port: of the local server; None: the first free one from 5000 on.
        browser: open the page in a browser, if there is one.

    Raises:
        ProblemsFound: the address that the folder names may not be used, MLflow does not have the run, its server
            cannot be started, or the port is taken.
    """
    run = RunFolder(root.resolve())
    warn_of_changed_runs(run.root, "MLflow shows what was computed before")
    record = MlflowRecord.read(run.manifest)
    if record.tracking_uri:
        usable_address(run.root, None, record, "")
    page = run_page(record)
    if page is None:
        problem = Problem(
            str(root), "nothing in MLflow", "a run that MLflow holds", f"first: {command_line('uncseg', 'sync', root)}"
        )
        raise ProblemsFound("There is nothing to show.", [problem], exit_code=1)
    if record.tracking_uri.startswith("http"):
        _open(record.tracking_uri.rstrip("/") + page, browser)
        return 0
    console.print(f"starting MLflow's server on {record.tracking_uri} …", soft_wrap=True)
    with ui_server(record.tracking_uri, free_port(port)) as (address, process):
        _open(address + page, browser)
        console.print("Ctrl-C ends it")
        process.wait()
    return 1


def _open(address: str, browser: bool) -> None:
    console.print(f"MLflow:  {address}", soft_wrap=True)
    if browser:
        webbrowser.open(quote(address, safe=":/#?=&@"))
