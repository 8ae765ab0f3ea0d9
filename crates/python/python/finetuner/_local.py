"""Runs of this process, and the folders that runs of this machine have left.

A run is a folder: `runs/<name>`, in experiments other than `default` `runs/<experiment>/<name>`. What is known of it is what
stands there, so runs of other processes and of the command line are found too.
"""

from __future__ import annotations

import atexit
import datetime
import json
import os
import re
import shutil
import sys
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

from . import _native
from .exception import FinetunerError, NotFoundError, OutputError, RunError, SpecError
from .run import FINAL, Run, line

#: Where runs are, below the working directory.
RUNS = "runs"
DEFAULT = "default"
EVENTS = "events.jsonl"
MANIFEST = "finetuner.json"
REPORT = "report.json"
SYNTHESIS = "synthesis.json"

#: Seconds between two looks at what a run has said.
PAUSE = 0.1

#: One run computes at a time; others of this process wait.
_turn = threading.Lock()

#: Runs of this process by their folder.
_runs: Dict[str, LocalRun] = {}


class LocalRun(Run):
    """A run of this machine."""

    def __init__(self, name: str, experiment: str, folder: str, config: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(name, experiment, config or {})
        self._folder = os.path.abspath(folder)
        self._stop = _native.Stop()
        self._ended: Optional[threading.Event] = None
        self._waiting = False
        self._error: Optional[BaseException] = None
        self._progress: Optional[Dict[str, Any]] = None

    @property
    def config(self) -> Dict[str, Any]:
        made = _read(os.path.join(self._folder, MANIFEST)).get("spec") or self._synthesis().get("config")
        return dict(self._config or made or {})

    @property
    def artifact_id(self) -> str:
        return self._folder

    @property
    def train_data(self) -> str:
        if "relation_mining" not in self.config:
            return super().train_data
        self._needs_finished()
        return os.path.join(self._folder, self._synthesis()["train_data"])

    def _synthesis(self) -> Dict[str, Any]:
        return _read(os.path.join(self._folder, SYNTHESIS))

    def start(self, work: Callable[[LocalRun], Any]) -> None:
        """Does the work on a thread, when its turn has come."""

        def body() -> None:
            try:
                while not _turn.acquire(timeout=PAUSE):
                    if self._stop.is_set():
                        return
                try:
                    self._waiting = False
                    work(self)
                finally:
                    _turn.release()
            except BaseException as error:  # whoever asks for the result gets it
                self._error = error
            finally:
                ended.set()

        # Not `Thread.join`: before Python 3.13 a Ctrl-C in it makes a thread count as ended that is not.
        ended = self._ended = threading.Event()
        self._waiting = True
        _runs[self._folder] = self
        threading.Thread(target=body, name=f"finetuner {self.name}", daemon=True).start()

    def heard(self, text: str) -> None:
        """Takes progress as JSON."""
        self._progress = json.loads(text)

    def cancel(self) -> None:
        if self._ended is None and _native.is_claimed(self._folder):
            raise RunError(f"run `{self.name}` runs in another process; end it there")
        self._stop.set()
        if self._ended is not None:
            self._ended.wait()

    def delete(self) -> None:
        if self._state()[0] not in FINAL:
            raise RunError(f"run `{self.name}` has not ended; `cancel()` it first")
        shutil.rmtree(self._folder, ignore_errors=True)
        _runs.pop(self._folder, None)

    def _is_alive(self) -> bool:
        return self._ended is not None and not self._ended.is_set()

    def _state(self) -> Tuple[str, str]:
        if self._is_alive():
            if self._waiting:
                return "CREATED", "waits for another run of this process"
            progress = self._progress
            return "STARTED", f"{progress['phase']}: {progress['done']}/{progress['total']}" if progress else "begins"
        if self._error is not None:
            return "FAILED", str(self._error)
        if os.path.isfile(os.path.join(self._folder, MANIFEST)):
            return "FINISHED", f"the model is in `{self._folder}`"
        events = [event for _, event in self._said()]
        state = next((event["state"] for event in reversed(events) if event["event"] == "state"), None)
        if state == "finished":
            return "FINISHED", f"the result is in `{self._folder}`"
        if _native.is_claimed(self._folder):
            return "STARTED", "runs in another process"
        if state == "failed":
            logged = (event["message"] for event in reversed(events) if event["event"] == "log")
            return "FAILED", next(logged, "see its logs")
        if state == "started":
            return "FAILED", "its process ended without a word; `resume=True` goes on from its last checkpoint"
        if os.path.isfile(os.path.join(self._folder, "checkpoint.safetensors")):
            return "CANCELLED", f"stopped with a checkpoint; `resume=True` with `output={self._folder!r}` goes on with it"
        return "CANCELLED", "stopped before its first step"

    def _lines(self) -> Iterator[str]:
        for _, event in self._said():
            text = line(event)
            if text is not None:
                yield text
        if self._error is not None:
            yield f"{now()} failed: {self._error}"

    def _events(self) -> Iterator[Dict[str, Any]]:
        try:
            yield from self._follow()
        except KeyboardInterrupt:
            if self._is_alive():
                print("stopping with a checkpoint after the current step; Ctrl-C again stops at once", file=sys.stderr)
                self.cancel()
            raise

    def _follow(self) -> Iterator[Dict[str, Any]]:
        told, shown = 0, None
        while True:
            # Asked before the file is read: what is said last is read, too.
            alive = self._is_alive() or self._ended is None and _native.is_claimed(self._folder)
            for size, event in self._said(told):
                told += size
                yield event
            if self._progress is not shown:
                shown = self._progress
                yield dict(shown or {})
            if not alive:
                break
            if self._ended is not None:
                self._ended.wait(PAUSE)
            else:
                time.sleep(PAUSE)
        if self._error is not None:
            yield {"event": "log", "level": "warning", "time": now(), "message": str(self._error)}

    def _said(self, start: int = 0) -> Iterator[Tuple[int, Dict[str, Any]]]:
        """What stands in its file from this byte on: the length of each line, and the event."""
        try:
            with open(os.path.join(self._folder, EVENTS), "rb") as file:
                file.seek(start)
                for text in file:
                    if text.endswith(b"\n"):
                        yield len(text), json.loads(text)
        except FileNotFoundError:
            return

    def _failure(self) -> Optional[BaseException]:
        return self._error

    def _report(self) -> str:
        path = os.path.join(self._folder, REPORT)
        if not os.path.isfile(path):
            raise RunError(f"run `{self.name}` has no report")
        with open(path, encoding="utf-8") as file:
            return file.read()

    def _save(self, directory: str) -> None:
        manifest = _read(os.path.join(self._folder, MANIFEST))
        if not manifest:
            raise RunError(f"run `{self.name}` has no model; its data is `train_data`")
        if os.path.isfile(directory) or os.path.isdir(directory) and os.listdir(directory):
            raise OutputError(f"output folder `{directory}` holds something already; name another one")
        directory = directory.rstrip("/" + os.sep) or directory
        partial = f"{directory}.partial-{os.getpid()}"
        try:
            for name in [*manifest["files"], MANIFEST]:
                path = os.path.join(partial, *name.split("/"))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                shutil.copyfile(os.path.join(self._folder, *name.split("/")), path)
            if os.path.isdir(directory):
                os.rmdir(directory)
            os.replace(partial, directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def start_run(spec: Dict[str, Any], name: Optional[str], experiment: str) -> LocalRun:
    """Starts a run and does not wait for it."""
    folder = spec.get("output") or folder_for(name or _new_name(str(spec["model"]), experiment), experiment)
    name = name or os.path.basename(os.path.abspath(folder))
    spec = {**spec, "output": folder}
    current = _runs.get(os.path.abspath(folder))
    if current is not None and current._state()[0] not in FINAL:
        raise OutputError(f"output folder `{folder}` is in use by another run; wait for it or name another one")
    _native.claim(folder, bool(spec.get("resume")))
    run = LocalRun(name, experiment, folder, spec)
    text = json.dumps(spec)
    run.start(lambda run: _native.train(text, run.heard, run._stop))
    return run


def folder_for(name: str, experiment: str) -> str:
    """Where a run lies."""
    check_name("run_name", name)
    check_name("experiment_name", experiment)
    if experiment == DEFAULT:
        if os.path.isdir(os.path.join(RUNS, name)) and not _is_run(os.path.join(RUNS, name)):
            if os.listdir(os.path.join(RUNS, name)):
                raise SpecError(f"`run_name`: there is an experiment `{name}`; take another name")
        return os.path.join(RUNS, name)
    if _is_run(os.path.join(RUNS, experiment)):
        raise SpecError(f"`experiment_name`: there is a run `{experiment}`; take another name")
    return os.path.join(RUNS, experiment, name)


def _new_name(model: str, experiment: str) -> str:
    base = re.sub(r"[^A-Za-z0-9._-]", "-", model.rstrip("/").rsplit("/", 1)[-1]) or "run"
    base = f"{base}-{int(time.time())}".lstrip(".-_")
    for number in range(1, 1000):
        name = base if number == 1 else f"{base}-{number}"
        if not os.path.exists(folder_for(name, experiment)):
            return name
    raise OutputError(f"`{RUNS}` is full of runs named `{base}`; give `run_name`")


def check_name(field: str, name: str) -> None:
    """Names are one harmless part of a path, as at a server."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise SpecError(
            f"`{field}`: expected 1 to 100 letters, digits, `.`, `_` and `-`, the first a letter or a digit, got {name!r}"
        )


def runs(experiment: Optional[str]) -> List[LocalRun]:
    """The runs of an experiment, or of all, newest first."""
    names = [experiment] if experiment else experiments()
    found = {run._folder: run for name in names for run in _runs_of(name)}
    for folder, run in _runs.items():
        if run.experiment_name in names:
            found[folder] = run
    return sorted(found.values(), key=lambda run: _time(run._folder), reverse=True)


def run(name: str, experiment: str) -> LocalRun:
    """The run of a name."""
    for found in runs(experiment):
        if found.name == name:
            return found
    raise NotFoundError(f"there is no run `{name}` of experiment `{experiment}` below `{os.path.abspath(RUNS)}`")


def experiments() -> List[str]:
    """The names of all experiments; `default` is always there."""
    names = {DEFAULT} | {run.experiment_name for run in _runs.values()}
    if os.path.isdir(RUNS):
        for name in os.listdir(RUNS):
            folder = os.path.join(RUNS, name)
            if os.path.isdir(folder) and not name.startswith(".") and not _is_run(folder):
                names.add(name)
    return sorted(names)


def create_experiment(name: str) -> None:
    """Makes an experiment, if need be."""
    check_name("name", name)
    if name == DEFAULT:
        return
    if _is_run(os.path.join(RUNS, name)):
        raise SpecError(f"`name`: there is a run `{name}`; take another name")
    os.makedirs(os.path.join(RUNS, name), exist_ok=True)


def get_experiment(name: str) -> None:
    """An experiment that is there."""
    if name not in experiments():
        raise NotFoundError(f"there is no experiment `{name}` below `{os.path.abspath(RUNS)}`")


def delete_experiment(name: str) -> None:
    """Removes an experiment with its runs, all of which must have ended."""
    get_experiment(name)
    found = runs(name)
    for one in found:
        if one._state()[0] not in FINAL:
            raise RunError(f"run `{one.name}` has not ended; `cancel()` it first")
    for one in found:
        one.delete()
    folder = os.path.join(RUNS, name)
    if name != DEFAULT and os.path.isdir(folder) and not os.listdir(folder):
        os.rmdir(folder)


def _runs_of(experiment: str) -> Iterator[LocalRun]:
    above = RUNS if experiment == DEFAULT else os.path.join(RUNS, experiment)
    if not os.path.isdir(above):
        return
    for name in os.listdir(above):
        folder = os.path.join(above, name)
        if _is_run(folder):
            yield LocalRun(name, experiment, folder)


def _is_run(folder: str) -> bool:
    return os.path.isfile(os.path.join(folder, EVENTS)) or os.path.isfile(os.path.join(folder, MANIFEST))


def _time(folder: str) -> float:
    try:
        return os.stat(os.path.join(folder, EVENTS)).st_mtime
    except OSError:
        return 0.0


def _read(path: str) -> Dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            found: Dict[str, Any] = json.load(file)
            return found
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise FinetunerError(f"`{path}` is damaged: {error}") from error


def now() -> str:
    """The time as in events."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


@atexit.register
def _settle() -> None:
    """A program that ends waits for its runs; one that ends with an error, or Ctrl-C, stops them with checkpoints."""
    failed = getattr(sys, "last_type", None) is not None
    alive = [run for run in _runs.values() if run._is_alive()]
    try:
        for one in alive:
            if failed:
                one._stop.set()
            if one._ended is not None:
                one._ended.wait()
    except KeyboardInterrupt:
        for one in alive:
            one.cancel()
