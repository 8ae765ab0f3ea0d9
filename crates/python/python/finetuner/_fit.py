"""`fit`: the original's arguments and ours to a spec, and a run of it."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, Any, Dict, List, Optional, TypedDict, Union

from . import _local, _native, _remote
from ._json import dumps
from .callback import Callback, EvaluationCallback
from .data import CSVOptions, to_file
from .exception import SpecError, UnsupportedError, unsupported
from .experiment import Place
from .model import model_fields
from .run import Run

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: Fields that hold data.
DATA = ("train_data", "eval_data", "query_data", "index_data")


class Fields(TypedDict, total=False):
    """The fields of a run that the original did not have; docs/reference/fields.md says what they mean."""

    image_model: str
    datasets: List[Dict[str, Any]]
    dataset_sampler: str
    query_data: Any
    index_data: Any
    kind: str
    skip_bad: bool
    allow_urls: bool
    strict: bool
    canary: bool
    augment: str
    loss_options: Dict[str, Any]
    guide: str
    sampler_options: Dict[str, Any]
    micro_batch_tokens: int
    warmup: float
    max_grad_norm: float
    max_length: int
    pooling: str
    pooling_options: Dict[str, Any]
    lora: Dict[str, Any]
    init: str
    query_prompt: str
    document_prompt: str
    precision: str
    threads: int
    seed: int
    preset: str
    max_time: str
    advise: bool
    output: str
    resume: bool
    keep: str


def fit(
    model: str = "mini",
    train_data: Any = None,
    eval_data: Any = None,
    val_split: Optional[float] = None,
    model_artifact: Optional[str] = None,
    run_name: Optional[str] = None,
    description: Optional[str] = None,
    experiment_name: Optional[str] = None,
    model_options: Optional[Dict[str, Any]] = None,
    loss: Optional[str] = None,
    miner: Optional[str] = None,
    miner_options: Optional[Dict[str, Any]] = None,
    optimizer: Optional[str] = None,
    optimizer_options: Optional[Dict[str, Any]] = None,
    learning_rate: Optional[float] = None,
    epochs: Optional[int] = None,
    batch_size: Optional[int] = None,
    callbacks: Optional[List[Union[Callback, str]]] = None,
    scheduler: Optional[str] = None,
    scheduler_options: Optional[Dict[str, Any]] = None,
    freeze: Union[None, bool, str] = None,
    output_dim: Optional[int] = None,
    device: Optional[str] = None,
    num_workers: Optional[int] = None,
    to_onnx: bool = False,
    csv_options: Optional[CSVOptions] = None,
    public: bool = False,
    num_items_per_class: Optional[int] = None,
    sampler: Optional[str] = None,
    loss_optimizer: Optional[str] = None,
    loss_optimizer_options: Optional[Dict[str, Any]] = None,
    *,
    local: bool = False,
    **fields: Unpack[Fields],
) -> Run:
    """Starts a run and gives it at once: at the server of `login`, else in this process; `local=True` stays here.

    Data is a path, an open file, or rows: texts, tuples or dicts. What is not given comes from the environment
    (`FINETUNER_LEARNING_RATE`), else is the default of the field. Of the original's arguments, `num_workers` is the number of
    threads, `freeze=True` is `freeze="all"`, and `description` is kept by a server only.

    Raises `SpecError` for whatever can be told without data and model; what goes wrong later stands in `status()` and in the
    logs, and is raised by calls that need the result.
    """
    if to_onnx:
        unsupported("ONNX is not in this version", "the artifact's folder holds safetensors that other tools load")
    if public:
        unsupported("nothing is published", "leave out `public`; whoever is to have the model gets its folder")
    place = Place(local)
    with tempfile.TemporaryDirectory(prefix="finetuner-") as scratch:
        # A server has the rows once they are sent; a run of this machine may want them again, to be resumed.
        data_folder = scratch if place.is_remote else os.path.join(_local.RUNS, ".data")
        arguments = {name: value for name, value in dict(**fields).items() if value is not None}
        given = {
            "model": model,
            "train_data": train_data,
            "eval_data": eval_data,
            "val_split": val_split,
            "loss": loss,
            "miner": miner,
            "miner_options": miner_options,
            "optimizer": optimizer,
            "optimizer_options": optimizer_options,
            "learning_rate": learning_rate,
            "epochs": epochs,
            "batch_size": batch_size,
            "scheduler": scheduler,
            "scheduler_options": scheduler_options,
            "freeze": ("all" if freeze else None) if isinstance(freeze, bool) else freeze,
            "output_dim": output_dim,
            "device": device,
            "threads": num_workers,
            "num_items_per_class": num_items_per_class,
            "sampler": sampler,
            "loss_optimizer": loss_optimizer,
            "loss_optimizer_options": loss_optimizer_options,
            **model_fields(model_options),
        }
        for name, value in given.items():
            if value is None:
                continue
            if name in arguments:
                other = "num_workers" if name == "threads" else "model_options"
                raise SpecError(f"`{name}`: is given by itself and by `{other}`; leave one out")
            arguments[name] = value
        if model_artifact is not None:
            arguments["model"] = _artifact(model_artifact, experiment_name, place)
        _data(arguments, data_folder, csv_options)
        if callbacks:
            arguments["callbacks"] = _callbacks(callbacks, arguments, data_folder, place)
        experiment = experiment_name or "default"
        if run_name is not None and "output" not in arguments and not place.is_remote:
            arguments["output"] = _local.folder_for(run_name, experiment)
        spec = json.loads(_native.resolve(dumps(arguments)))
        if place.client is not None:
            return _remote.start_run(place.client, spec, run_name, experiment, description or "")
        return _local.start_run(spec, run_name, experiment)

def _artifact(artifact: str, experiment: Optional[str], place: Place) -> str:
    """The folder of an earlier run: by its path, or by the run's name."""
    if os.path.isdir(artifact):
        return artifact
    if place.is_remote:
        raise UnsupportedError(
            "a server trains no artifact further; bring it here with `save_artifact` and train it with `local=True`"
        )
    return _local.run(artifact, experiment or "default").artifact_id


def _data(arguments: Dict[str, Any], folder: str, options: Optional[CSVOptions]) -> None:
    """Puts paths in the place of data."""
    kind = arguments.get("kind")
    for name in DATA:
        if name in arguments:
            arguments[name], found = to_file(arguments[name], folder, options, kind)
            if found is not None:
                arguments["kind"] = kind = found
    if "datasets" in arguments:
        tables = [dict(table) for table in arguments["datasets"]]
        for table in tables:
            for name in DATA:
                if name in table:
                    table[name] = to_file(table[name], folder, options, table.get("kind"))[0]
        arguments["datasets"] = tables


def _callbacks(
    callbacks: List[Union[Callback, str]], arguments: Dict[str, Any], folder: str, place: Place
) -> List[str]:
    """Callbacks as the spec has them.

    A server takes data in the run's own fields only, so a single `EvaluationCallback` with nothing but data becomes those.
    """
    entries = []
    for callback in callbacks:
        if isinstance(callback, EvaluationCallback):
            options = callback.options()
            for name in ("query_data", "index_data"):
                if options.get(name) is not None:
                    options[name] = to_file(options[name], folder, kind=arguments.get("kind"))[0]
            if place.is_remote and set(options) <= {"query_data", "index_data"} and "query_data" not in arguments:
                arguments.update(options)
                continue
            entries.append(f"EvaluationCallback({dumps(options)})")
        elif isinstance(callback, (Callback, str)):
            entries.append(str(callback))
        else:
            raise TypeError(
                f"`callbacks`: expected objects of `finetuner.callback` or texts, got {type(callback).__name__}; functions of "
                f"Python are not called by a run"
            )
    return entries
