"""A server, and the runs there."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, List, Optional, Tuple

from . import _native
from ._progress import Progress
from .exception import NotFoundError, RunFailedError, ServiceError
from .run import FINAL, Run

DEFAULT = "default"

#: Where a login goes that names no server.
SERVER = "http://localhost:7700"


def client() -> Optional[_native.Client]:
    """The server that somebody has logged in to, here or on the command line; `FINETUNER_SERVER` and `FINETUNER_TOKEN` go
    before. None where runs are of this machine."""
    login = _native.stored_login(os.environ.get("FINETUNER_SERVER") or None)
    return _native.Client(*login) if login else None


class RemoteRun(Run):
    """A run of a server."""

    def __init__(self, client: _native.Client, run: Dict[str, Any]) -> None:
        super().__init__(run["name"], run["experiment"], run["spec"])
        self._client = client
        self._id: str = run["id"]
        self._artifact: str = run["artifact_id"]
        self._known: Optional[str] = None

    @property
    def artifact_id(self) -> str:
        return self._artifact

    def cancel(self) -> None:
        self._client.cancel(self._id)

    def delete(self) -> None:
        self._client.delete_run(self._id)

    def _state(self) -> Tuple[str, str]:
        run = json.loads(self._client.run(self._id))
        error = run["error"]
        return run["status"], error["message"] if error else run["reason"] or run["phase"]

    def _lines(self) -> Iterator[str]:
        return iter(self._client.logs(self._id).splitlines())

    def _events(self) -> Iterator[Dict[str, Any]]:
        for text in self._client.events(self._id):
            yield json.loads(text)

    def _report(self) -> str:
        if self._known is None:
            self._known = self._client.artifact_file(self._id, "report.json").decode("utf-8")
        return self._known

    def _save(self, directory: str) -> None:
        with Progress() as progress:
            self._client.download(self._id, directory, lambda done, total: progress.transfer("download", done, total))


def start_run(
    client: _native.Client, spec: Dict[str, Any], name: Optional[str], experiment: str, description: str
) -> RemoteRun:
    """Uploads data and starts a run."""
    client.owner()  # a server that is not there, or a key that has ended, is told of before anything is read
    with Progress() as progress:
        run = client.create_run(json.dumps(spec), name, experiment, description, progress.transfer)
    return RemoteRun(client, json.loads(run))


def runs(client: _native.Client, experiment: Optional[str], most: int = 10_000) -> List[RemoteRun]:
    """Runs, newest first."""
    return [RemoteRun(client, run) for run in json.loads(client.runs(experiment, most))]


def run(client: _native.Client, name: str, experiment: str) -> RemoteRun:
    """The run of a name, or of an id."""
    found = client.run_of(experiment, name)
    if found is None and name.startswith("run-"):
        found = client.run(name)
    if found is None:
        raise NotFoundError(f"there is no run `{name}` of experiment `{experiment}` at {client.server}")
    return RemoteRun(client, json.loads(found))


def experiments(client: _native.Client) -> List[str]:
    """The names of all experiments."""
    return [experiment["name"] for experiment in json.loads(client.experiments())]


def create_experiment(client: _native.Client, name: str) -> None:
    """Makes an experiment, if need be."""
    try:
        client.create_experiment(name)
    except ServiceError as error:
        if error.code != 409:
            raise


def get_experiment(client: _native.Client, name: str) -> None:
    """An experiment that is there."""
    try:
        client.experiment(name)
    except ServiceError as error:
        if error.code == 404:
            raise NotFoundError(str(error)) from error
        raise


def delete_experiment(client: _native.Client, name: str) -> None:
    """Removes an experiment with its runs, all of which must have ended."""
    for one in runs(client, name):
        one.delete()
    client.delete_experiment(name)


def download(client: _native.Client, artifact: str) -> str:
    """The folder of an artifact, by its id or its run's name or id; brought to the cache of this user once."""
    run_id = "run-" + artifact[len("artifact-") :] if artifact.startswith("artifact-") else artifact
    found = RemoteRun(client, json.loads(client.run(run_id)))
    status, details = found._state()
    if status != "FINISHED":
        raise RunFailedError(f"run `{found.name}` is {status}: {details}; there is no model")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(cache, "finetuner", "artifacts", found.artifact_id)
    if not os.path.isdir(folder):
        found._save(folder)
    return folder
