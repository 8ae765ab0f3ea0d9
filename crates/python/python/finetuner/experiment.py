"""Experiments: names that runs are kept under, on this machine or at a server."""

from __future__ import annotations

from types import ModuleType
from typing import Any, List, Optional

from . import _local, _remote
from .run import Run


class Place:
    """Where runs are: at the server that somebody has logged in to, else on this machine."""

    def __init__(self, local: bool = False) -> None:
        self.client = None if local else _remote.client()

    @property
    def is_remote(self) -> bool:
        """Whether runs are at a server."""
        return self.client is not None

    def ask(self, name: str, *arguments: Any) -> Any:
        """Calls the function of this name of `_remote` or `_local`."""
        module: ModuleType = _remote if self.is_remote else _local
        before = (self.client,) if self.is_remote else ()
        return getattr(module, name)(*before, *arguments)


class Experiment:
    """A name that runs are kept under."""

    def __init__(self, name: str, place: Optional[Place] = None) -> None:
        self._name = name
        self._place = place or Place()

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    @property
    def status(self) -> str:
        """`ACTIVE`."""
        return "ACTIVE"

    def get_run(self, name: str) -> Run:
        """The run of a name."""
        found: Run = self._place.ask("run", name, self.name)
        return found

    def list_runs(self, page: int = 1, size: int = 50) -> List[Run]:
        """A page of its runs, newest first."""
        return paged(self._place.ask("runs", self.name), page, size)

    def delete_run(self, name: str) -> None:
        """Removes a run that has ended, with its artifact."""
        self.get_run(name).delete()

    def delete_runs(self) -> None:
        """Removes all its runs."""
        for run in self._place.ask("runs", self.name):
            run.delete()

    def create_training_run(self, model: str, train_data: Any, **arguments: Any) -> Run:
        """`fit` within this experiment."""
        from ._fit import fit

        return fit(model, train_data, experiment_name=self.name, local=not self._place.is_remote, **arguments)

    def create_synthesis_run(self, query_data: Any, corpus_data: Any, models: Any, **arguments: Any) -> Run:
        """`synthesize` within this experiment."""
        from ._synthesis import synthesize

        local = arguments.pop("local", not self._place.is_remote)
        return synthesize(query_data, corpus_data, models, experiment_name=self.name, local=local, **arguments)

    def __repr__(self) -> str:
        return f"<Experiment {self.name!r}>"


def paged(found: List[Any], page: int, size: int) -> List[Any]:
    """One page, counted from 1, of at most 100."""
    if page < 1 or not 1 <= size <= 100:
        raise ValueError(f"expected a `page` of 1 or more and a `size` of 1 to 100, got {page} and {size}")
    return found[(page - 1) * size : page * size]


def create_experiment(name: str = "default") -> Experiment:
    """Makes an experiment; one that is there already is given."""
    place = Place()
    place.ask("create_experiment", name)
    return Experiment(name, place)


def get_experiment(name: str) -> Experiment:
    """An experiment that is there."""
    place = Place()
    place.ask("get_experiment", name)
    return Experiment(name, place)


def list_experiments(page: int = 1, size: int = 50) -> List[Experiment]:
    """A page of experiments, by name."""
    place = Place()
    return [Experiment(name, place) for name in paged(place.ask("experiments"), page, size)]


def delete_experiment(name: str) -> Experiment:
    """Removes an experiment with its runs, all of which must have ended."""
    place = Place()
    place.ask("delete_experiment", name)
    return Experiment(name, place)


def delete_experiments() -> List[Experiment]:
    """Removes all experiments with their runs."""
    return [delete_experiment(name) for name in Place().ask("experiments")]


def get_run(run_name: str, experiment_name: Optional[str] = None) -> Run:
    """The run of a name."""
    found: Run = Place().ask("run", run_name, experiment_name or "default")
    return found


def list_runs(experiment_name: Optional[str] = None, page: int = 1, size: int = 50) -> List[Run]:
    """A page of runs of an experiment, or of all, newest first."""
    return paged(Place().ask("runs", experiment_name), page, size)


def delete_run(run_name: str, experiment_name: Optional[str] = None) -> None:
    """Removes a run that has ended, with its artifact."""
    get_run(run_name, experiment_name).delete()


def delete_runs(experiment_name: Optional[str] = None) -> None:
    """Removes all runs of an experiment, or of all."""
    for run in Place().ask("runs", experiment_name):
        run.delete()
