"""What goes wrong, one class for each family of errors. All of them are a `FinetunerError`."""

from __future__ import annotations

from typing import Any, List, Optional, Tuple


class FinetunerError(Exception):
    """Everything that this package raises of its own accord, beside `TypeError` for arguments of a wrong type."""


class SpecError(FinetunerError, ValueError):
    """A run cannot be started as asked for. `problems` lists every field with what is wrong."""

    def __init__(self, message: str, problems: Optional[List[Tuple[str, str]]] = None) -> None:
        super().__init__(message)
        self.problems = problems or []


class DataError(FinetunerError, ValueError):
    """Rows, files or pictures that cannot be used; the message names file and line."""


class ModelError(FinetunerError):
    """A model is missing, damaged, of an unsupported kind, or cannot be downloaded."""


class FileError(FinetunerError, OSError):
    """The operating system refused a file operation."""


class OutputError(FinetunerError):
    """A folder holds something that must not be overwritten."""


class TrainingError(FinetunerError):
    """Training or a measurement cannot go on: numbers that are not finite, or no memory left."""


class UnsupportedError(FinetunerError, NotImplementedError):
    """Something of the original Finetuner that is not here; the message says what to do instead."""


class ServiceError(FinetunerError):
    """A server is not there, refuses, or is none.

    `code` is the HTTP status (-1 without one), `reason` the server's name of the problem, as in `run_not_found`, and `param`
    the parameter at fault.
    """

    def __init__(
        self, message: str, code: int = -1, reason: Optional[str] = None, param: Optional[str] = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.param = param


#: The original's name of `ServiceError`.
FinetunerServerError = ServiceError


class RunError(FinetunerError):
    """A run is not in the state that a call needs."""


class RunPreparingError(RunError):
    """It has not begun."""


class RunInProgressError(RunError):
    """It has not ended."""


class RunFailedError(RunError):
    """It has failed or was cancelled."""


class NotFoundError(FinetunerError, LookupError):
    """There is no run or experiment of this name on this machine."""


def unsupported(what: str, instead: str) -> Any:
    """Raises an `UnsupportedError`."""
    raise UnsupportedError(f"{what}; {instead}")
