"""`synthesize`: training data of queries and texts that nobody has judged."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Dict, Optional

from . import _local, _native
from .data import CSVOptions, texts, to_file
from .exception import FinetunerError, OutputError, SpecError, UnsupportedError, unsupported
from .experiment import Place
from .model import CROSS_ENCODERS, SynthesisModels
from .run import Run


def synthesize(
    query_data: Any,
    corpus_data: Any,
    models: SynthesisModels,
    num_relations: int = 10,
    run_name: Optional[str] = None,
    description: Optional[str] = None,
    experiment_name: Optional[str] = None,
    device: Optional[str] = None,
    num_workers: Optional[int] = None,
    csv_options: Optional[CSVOptions] = None,
    public: bool = False,
    *,
    local: bool = False,
) -> Run:
    """Relates texts to queries with one encoder or more and scores them with a cross-encoder.

    The run's `train_data` has `len(queries) * (num_relations - 1)` rows of query, positive, negative and margin, for
    `fit(loss="MarginMSELoss")`. It runs in this process; a server makes no data, so after `login` it asks for `local=True`.
    `description` and `num_workers` are without effect.
    """
    if public:
        unsupported("nothing is published", "leave out `public`")
    if Place(local).is_remote:
        raise UnsupportedError("a server makes no training data yet; `synthesize(…, local=True)` makes it in this process")
    if num_relations < 2:
        raise SpecError(f"`num_relations`: expected 2 or more, one similar text and one dissimilar, got {num_relations}")
    with tempfile.TemporaryDirectory() as scratch:
        read = [
            to_file(data, scratch, csv_options)[0] if csv_options and csv_options.rewrites else data
            for data in (query_data, corpus_data)
        ]
        queries = list(dict.fromkeys(texts(read[0], "query_data")))
        corpus = list(dict.fromkeys(texts(read[1], "corpus_data")))
    miners = [models.relation_miner] if isinstance(models.relation_miner, str) else list(models.relation_miner)
    cross_encoder = CROSS_ENCODERS.get(models.cross_encoder, models.cross_encoder)
    experiment = experiment_name or "default"
    name = run_name or _local._new_name("synthesis", experiment)
    folder = _local.folder_for(name, experiment)
    if os.path.isdir(folder) and os.listdir(folder):
        raise OutputError(f"output folder `{folder}` is not empty; take another `run_name`")
    os.makedirs(folder, exist_ok=True)
    config = {"relation_mining": {"models": miners, "num_relations": num_relations}, "cross_encoder": cross_encoder}
    run = _local.LocalRun(name, experiment, folder, config)
    said = _Events(os.path.join(folder, _local.EVENTS))

    def work(run: _local.LocalRun) -> None:
        said.state("started")
        output = os.path.join(folder, "train.jsonl")

        def progress(phase: str, done: int, total: int) -> None:
            run.heard(json.dumps({"event": "progress", "phase": phase, "done": done, "total": total}))

        try:
            rows = _native.synthesize(
                queries, corpus, miners, cross_encoder, num_relations, device or "auto", output, progress, run._stop
            )
        except FinetunerError as error:
            said.log("warning", str(error))
            said.state("failed")
            raise
        if rows is None:
            said.state("stopped")
            return
        said.log("info", f"{rows} rows of {len(queries)} queries and {len(corpus)} texts in `{output}`")
        with open(os.path.join(folder, _local.SYNTHESIS), "w", encoding="utf-8") as file:
            json.dump({"train_data": "train.jsonl", "config": config}, file)
        said.state("finished")

    run.start(work)
    return run


class _Events:
    """`events.jsonl` as a training run writes it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._sequence = 0

    def _write(self, event: Dict[str, Any]) -> None:
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"sequence": self._sequence, "time": _local.now(), **event}) + "\n")
        self._sequence += 1

    def log(self, level: str, message: str) -> None:
        self._write({"event": "log", "level": level, "message": message})

    def state(self, state: str) -> None:
        self._write({"event": "state", "state": state})
