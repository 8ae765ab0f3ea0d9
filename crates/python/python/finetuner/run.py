"""A run, wherever it runs."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, Optional, Tuple

from . import _native
from ._progress import Progress
from .exception import RunFailedError, RunInProgressError, RunPreparingError

#: States that nothing follows.
FINAL = ("FINISHED", "FAILED", "CANCELLED")


class Run:
    """A run of this machine or of a server. `fit`, `get_run` and `list_runs` make it."""

    def __init__(self, name: str, experiment: str, config: Dict[str, Any]) -> None:
        self._name = name
        self._experiment = experiment
        self._config = config

    @property
    def name(self) -> str:
        """Its name, unique in its experiment."""
        return self._name

    @property
    def experiment_name(self) -> str:
        """The experiment it belongs to."""
        return self._experiment

    @property
    def config(self) -> Dict[str, Any]:
        """The fields of the run, as in `finetuner.json`."""
        return dict(self._config)

    @property
    def artifact_id(self) -> str:
        """What `get_model` opens: the id at a server, the folder on this machine."""
        raise NotImplementedError

    def status(self) -> Dict[str, str]:
        """`{"status", "details"}`: `CREATED`, `STARTED`, `FINISHED`, `FAILED` or `CANCELLED`, and what is behind it."""
        status, details = self._state()
        return {"status": status, "details": details}

    def logs(self) -> str:
        """What it has said, a line each."""
        if self._state()[0] == "CREATED":
            raise RunPreparingError(f"run `{self.name}` has not begun; `stream_logs()` waits for it")
        return "".join(f"{line}\n" for line in self._lines())

    def stream_logs(self, interval: float = 5, progress: bool = True) -> Iterator[str]:
        """What it says, line by line, until it has ended; with `progress` a bar on standard error.

        Ctrl-C ends a run of this process with a checkpoint; a run of a server goes on. `interval` is without effect: lines
        come when they are said.
        """
        with Progress(progress) as shown:
            for event in self._events():
                text = line(event)
                if text is None:
                    shown.event(event)
                else:
                    shown.clear()
                    yield text

    def wait(self, progress: bool = True) -> Run:
        """Waits until it has finished, showing how far it is. A run that failed or was cancelled is an error."""
        for _ in self.stream_logs(progress=progress):
            pass
        self._needs_finished()
        return self

    def report(self) -> Dict[str, Any]:
        """Everything that was measured: `report.json`."""
        self._needs_finished()
        found: Dict[str, Any] = json.loads(self._report())
        return found

    def metrics(self) -> Dict[str, Any]:
        """The evaluation: `{"before", "after", "delta", "interval", "k", "original"}`, or the correlations of scored pairs
        before and after; empty where nothing was measured. `original` holds the original's definitions."""
        report = self.report()
        columns, correlation = report.get("metrics"), report.get("correlation")
        if columns is None:
            return {"before": correlation["pretrained"], "after": correlation["finetuned"]} if correlation else {}
        original = columns["original"]
        return {
            "before": columns["pretrained"],
            "after": columns["finetuned"],
            "delta": columns["delta"],
            "interval": columns["interval"],
            "k": columns["k"],
            "original": {"before": original["pretrained"], "after": original["finetuned"], "delta": original["delta"]},
        }

    def display_metrics(self) -> None:
        """Prints the table *pretrained | finetuned | delta*, queries that changed, and the conclusion."""
        self._needs_finished()
        print(_native.report_text(self._report()))

    def example_results(self) -> Dict[str, Any]:
        """Queries that got better, worse, and stayed: `{"improved", "worsened", "unchanged"}`; empty where no retrieval was
        measured. An `EvaluationCallback` with `gather_examples=True` says how many."""
        queries = self.report().get("queries")
        found: Dict[str, Any] = queries["examples"] if queries else {}
        return found

    def display_examples(self, k: int = 5) -> None:
        """Prints up to `k` queries of each sort, with what was found first before and after."""
        for sort, examples in self.example_results().items():
            for example in examples[:k]:
                ranks = [example["rank_before"] or "-", example["rank_after"] or "-"]
                print(f"{sort}: {example['query']}\n  rank {ranks[0]} -> {ranks[1]}, expected: {example['expected']}")
                print(f"  before: {example['first_before']}\n  after:  {example['first_after']}")

    def save_artifact(self, directory: Optional[str] = None) -> str:
        """Brings the model to a folder that is empty or not there, by default `artifacts/<name>`, and gives its path. The
        folder is in the layout of sentence-transformers, and `get_model` opens it."""
        self._needs_finished()
        directory = os.path.join("artifacts", self.name) if directory is None else os.fspath(directory)
        self._save(directory)
        return directory

    def cancel(self) -> None:
        """Ends it with a checkpoint; one that has ended stays as it is."""
        raise NotImplementedError

    def delete(self) -> None:
        """Removes it with its artifact. It must have ended."""
        raise NotImplementedError

    @property
    def train_data(self) -> str:
        """The data that a run of `synthesize` has made."""
        raise ValueError(f"run `{self.name}` trains a model and makes no data; only runs of `synthesize` do")

    def _needs_finished(self) -> None:
        status, details = self._state()
        if status in ("FAILED", "CANCELLED"):
            raise RunFailedError(f"run `{self.name}` is {status}: {details}") from self._failure()
        if status != "FINISHED":
            raise RunInProgressError(f"run `{self.name}` is {status}: {details}; `wait()` waits for its end")

    def _state(self) -> Tuple[str, str]:
        raise NotImplementedError

    def _lines(self) -> Iterator[str]:
        raise NotImplementedError

    def _events(self) -> Iterator[Dict[str, Any]]:
        raise NotImplementedError

    def _report(self) -> str:
        raise NotImplementedError

    def _save(self, directory: str) -> None:
        raise NotImplementedError

    def _failure(self) -> Optional[BaseException]:
        return None

    def __repr__(self) -> str:
        return f"<Run {self.name!r} of experiment {self.experiment_name!r}>"


def line(event: Dict[str, Any]) -> Optional[str]:
    """An event as a line of the log; none where it is for a progress bar."""
    if event["event"] == "log":
        warning = "warning: " if event["level"] == "warning" else ""
        return f"{event['time']} {warning}{event['message']}"
    if event["event"] == "state":
        return f"{event['time']} {event['state']}"
    return None
