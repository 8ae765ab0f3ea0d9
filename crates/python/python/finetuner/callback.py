"""What is watched while a run trains: the original's callbacks with its fields and defaults, and two loggers more."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any, Dict, Optional, Union

from ._json import dumps


class Callback:
    """A callback: its name and its options."""

    def options(self) -> Dict[str, Any]:
        """The options that are not at their defaults."""
        given = {}
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if field.default is MISSING or value != field.default:
                given[field.name] = value
        return given

    def __str__(self) -> str:
        options = self.options()
        return f"{type(self).__name__}({dumps(options) if options else ''})"


@dataclass
class EvaluationCallback(Callback):
    """Measures retrieval before training, after every epoch and at the end, and reports it.

    `query_data` and `index_data` take whatever `train_data` of `fit` takes. Without `index_data` the queries are searched in
    themselves. `model` and `index_model` are `clip-text` or `clip-vision`. Without effect are `batch_size`, `num_workers` and
    `multi_modal`: items are packed by tokens, every thread is used, and the data says what its items are.
    """

    query_data: Any
    index_data: Any = None
    model: Optional[str] = None
    index_model: Optional[str] = None
    multi_modal: bool = False
    batch_size: int = 32
    exclude_self: bool = True
    limit: int = 20
    distance: str = "cosine"
    steps_per_interval: Optional[int] = None
    gather_examples: bool = False
    num_example_queries: int = 5
    num_workers: int = 8
    caption: Optional[str] = None
    output_model_names: bool = False
    query_sample_size: Optional[int] = None


@dataclass
class BestModelCheckpoint(Callback):
    """Gives the best weights of the run, and not the last ones. `monitor`: `train_loss`, `val_loss` or a metric."""

    monitor: str = "val_loss"
    mode: str = "auto"


@dataclass
class EarlyStopping(Callback):
    """Ends the run after `patience` observations in a row without an improvement by more than `min_delta`."""

    monitor: str = "val_loss"
    mode: str = "auto"
    patience: int = 2
    min_delta: float = 0
    baseline: Optional[float] = None


@dataclass
class TrainingCheckpoint(Callback):
    """Keeps the checkpoints of the last epochs."""

    last_k_epochs: int = 1


@dataclass
class WiSEFTCallback(Callback):
    """Mixes the trained weights with the pretrained ones: `alpha` is the trained share, or `"auto"`."""

    alpha: Union[float, str] = 0.4


@dataclass
class WandBLogger(Callback):
    """The original's logger, which sends to a service outside: a run refuses it and names the loggers that are here."""

    metrics_logger_step: str = "epoch"
    wandb_args: Optional[Dict[str, Any]] = None
    log_zero_shot: bool = True


@dataclass
class TensorBoardLogger(Callback):
    """Writes event files for TensorBoard, into `tensorboard` of the run's folder unless `log_dir` is given."""

    log_dir: Optional[str] = None
    metrics_logger_step: str = "batch"
    log_zero_shot: bool = True


@dataclass
class CSVLogger(Callback):
    """Writes a table of `step,metric,value`, `metrics.csv` in the run's folder unless `path` is given."""

    path: Optional[str] = None
    metrics_logger_step: str = "batch"
    log_zero_shot: bool = True


@dataclass
class MLflowLogger(Callback):
    """Passes everything on to a run on an MLflow tracking server."""

    tracking_uri: Optional[str] = None
    experiment_name: Optional[str] = None
    run_name: Optional[str] = None
    metrics_logger_step: str = "batch"
    log_zero_shot: bool = True


#: Every callback by name.
CALLBACKS = {
    callback.__name__: callback
    for callback in (
        EvaluationCallback,
        BestModelCheckpoint,
        EarlyStopping,
        TrainingCheckpoint,
        WiSEFTCallback,
        WandBLogger,
        TensorBoardLogger,
        CSVLogger,
        MLflowLogger,
    )
}
