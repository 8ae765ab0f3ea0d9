"""Fine-tunes embedding models for similarity search, in this process or at a server.

    import finetuner

    run = finetuner.fit(model="mini", train_data="train.csv", eval_data="eval.csv")
    for line in run.stream_logs():
        print(line)
    run.display_metrics()
    run.save_artifact("model/")
    vectors = finetuner.encode(finetuner.get_model("model/"), ["hello"])
"""

from __future__ import annotations

import os
from typing import Any, Dict, Optional

from . import _remote, callback, exception
from .callback import CALLBACKS, Callback
from .data import CSVOptions
from .exception import FinetunerError, FinetunerServerError, RunFailedError, RunInProgressError, RunPreparingError
from .experiment import (
    Experiment,
    create_experiment,
    delete_experiment,
    delete_experiments,
    delete_run,
    delete_runs,
    get_experiment,
    get_run,
    list_experiments,
    list_runs,
)
from ._fit import fit
from ._login import get_token, login, logout, notebook_login
from .model import (
    InferenceEngine,
    SynthesisModels,
    cos_sim,
    describe_models,
    encode,
    evaluate,
    list_model_options,
    list_models,
    open_model,
    synthesis_model_en,
    synthesis_model_multi,
)
from .run import Run
from ._synthesis import synthesize

__version__ = "0.1.0"

create_training_run = fit
create_run = fit
create_synthesis_run = synthesize


def list_callbacks() -> Dict[str, type]:
    """Every callback by name."""
    return dict(CALLBACKS)


def build_model(
    name: str,
    model_options: Optional[Dict[str, Any]] = None,
    batch_size: int = 32,
    select_model: Optional[str] = None,
    device: Optional[str] = None,
    is_onnx: bool = False,
) -> InferenceEngine:
    """A pretrained model, as it is. `batch_size` is without effect: items are packed by their tokens."""
    return open_model(name, model_options, select_model, device, is_onnx)


def get_model(
    artifact: str,
    token: Optional[str] = None,
    batch_size: int = 32,
    select_model: Optional[str] = None,
    device: Optional[str] = None,
    logging_level: str = "WARNING",
    is_onnx: bool = False,
) -> InferenceEngine:
    """A fine-tuned model: a folder, the id of an artifact or the name of a run at the server of `login`, or whatever
    `build_model` takes. `token` goes before the key of the login; `batch_size` and `logging_level` are without effect.
    """
    artifact = os.fspath(artifact)
    for address in ("https://huggingface.co/", "http://huggingface.co/"):
        if artifact.startswith(address):
            artifact = artifact[len(address) :].strip("/")
    if artifact.endswith(".zip"):
        exception.unsupported(f"`{artifact}`: artifacts are folders", "unpack it, and convert weights to safetensors")
    known = os.path.isdir(artifact) or "/" in artifact or artifact in list_models() or artifact == "mini"
    client = None if known else _remote.client()
    if client is not None and token is not None:
        client = type(client)(client.server, token)
    if client is not None:
        artifact = _remote.download(client, artifact)
    elif artifact.startswith("artifact-"):
        raise exception.ModelError(f"`{artifact}` is an artifact of a server; log in to it with `finetuner.login(server)`")
    return open_model(artifact, None, select_model, device, is_onnx)


def __getattr__(name: str) -> Any:
    if name in ("Document", "DocumentArray"):
        raise AttributeError(f"`{name}` is docarray's; import it from there, or give texts, tuples and dicts")
    raise AttributeError(f"module `finetuner` has no attribute `{name}`")


__all__ = [
    "CSVOptions",
    "Callback",
    "Experiment",
    "FinetunerError",
    "FinetunerServerError",
    "InferenceEngine",
    "Run",
    "RunFailedError",
    "RunInProgressError",
    "RunPreparingError",
    "SynthesisModels",
    "build_model",
    "callback",
    "cos_sim",
    "create_experiment",
    "create_run",
    "create_synthesis_run",
    "create_training_run",
    "delete_experiment",
    "delete_experiments",
    "delete_run",
    "delete_runs",
    "describe_models",
    "encode",
    "evaluate",
    "exception",
    "fit",
    "get_experiment",
    "get_model",
    "get_run",
    "get_token",
    "list_callbacks",
    "list_experiments",
    "list_model_options",
    "list_models",
    "list_runs",
    "login",
    "logout",
    "notebook_login",
    "synthesis_model_en",
    "synthesis_model_multi",
    "synthesize",
]
