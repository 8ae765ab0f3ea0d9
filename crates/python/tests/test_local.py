"""Runs in this process."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial

import numpy
import pytest
from conftest import DEADLINE, GOLDEN, SHORT, rows, wait_for

import finetuner
from finetuner import callback, exception

STATES = ("CREATED", "STARTED", "FINISHED")


def test_the_sample(workplace, capsys):
    run = finetuner.fit(
        model="mini",
        train_data="train.csv",
        eval_data="eval.csv",
        loss="TripletMarginLoss",
        miner="TripletMarginMiner",
        miner_options={"margin": 0.3, "type_of_triplets": "hard"},
        learning_rate=1e-4,
        batch_size=16,
        epochs=2,
        device="cpu",
    )
    assert run.status()["status"] in STATES
    lines = list(run.stream_logs())
    assert any(line.endswith("started") for line in lines) and lines[-1].endswith("finished"), lines
    assert run.status()["status"] == "FINISHED"
    assert run.logs().splitlines() == lines
    metrics = run.metrics()
    assert metrics["k"] == 20 and 0 < metrics["before"]["mrr"] <= 1
    assert metrics["after"]["mrr"] - metrics["before"]["mrr"] == pytest.approx(metrics["delta"]["mrr"])
    assert set(metrics["original"]["before"]) >= {"average_precision", "reciprocal_rank"}
    run.display_metrics()
    assert "pretrained" in capsys.readouterr().out
    assert set(run.example_results()) == {"improved", "worsened", "unchanged"}
    run.display_examples(k=1)
    assert "expected:" in capsys.readouterr().out
    assert run.config["miner_options"] == {"margin": 0.3, "type_of_triplets": "hard"}
    assert run.save_artifact("model/") == "model/"
    vectors = finetuner.encode(finetuner.get_model("model/"), ["hello"])
    assert vectors.shape == (1, 384) and vectors.dtype == numpy.float32
    again = finetuner.encode(finetuner.get_model(run.artifact_id), ["hello"])
    assert numpy.array_equal(vectors, again)
    with pytest.raises(exception.OutputError, match="holds something"):
        run.save_artifact("model")


def test_runs_and_experiments_are_folders():
    assert [one.name for one in finetuner.list_experiments()] == ["default"]
    experiment = finetuner.create_experiment("search")
    assert finetuner.get_experiment("search").status == "ACTIVE"
    first = experiment.create_training_run(train_data="train.csv", run_name="first", **SHORT)
    second = finetuner.create_run(train_data="train.csv", run_name="second", **SHORT)
    assert second.status()["status"] in STATES
    first.wait(progress=False)
    second.wait(progress=False)
    assert os.path.isfile("runs/search/first/finetuner.json") and os.path.isfile("runs/second/finetuner.json")
    # Another process knows them by their folders.
    script = "import finetuner; print([(r.name, r.status()['status']) for r in finetuner.list_runs()])"
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert set(eval(listed)) == {("first", "FINISHED"), ("second", "FINISHED")}
    assert [run.name for run in finetuner.list_runs("search")] == ["first"]
    assert [run.name for run in experiment.list_runs()] == ["first"]
    assert finetuner.list_runs(page=2, size=1)[0].name in ("first", "second")
    assert finetuner.get_run("first", "search").config["batch_size"] == 16
    assert experiment.get_run("first").artifact_id == os.path.abspath("runs/search/first")
    # An earlier run goes on as a model.
    third = finetuner.fit(train_data="train.csv", model_artifact="second", run_name="third", **SHORT).wait(progress=False)
    assert third.config["model"] == os.path.abspath("runs/second")
    with pytest.raises(exception.SpecError, match="there is an experiment"):
        finetuner.fit(train_data="train.csv", run_name="search", **SHORT)
    with pytest.raises(exception.OutputError, match="not empty"):
        finetuner.fit(train_data="train.csv", run_name="second", **SHORT)
    finetuner.delete_run("second")
    with pytest.raises(exception.NotFoundError, match="no run `second`"):
        finetuner.get_run("second")
    assert finetuner.delete_experiment("search").name == "search"
    assert not os.path.exists("runs/search")
    finetuner.delete_runs()
    assert finetuner.list_runs() == []
    assert [one.name for one in finetuner.delete_experiments()] == ["default"]
    with pytest.raises(exception.NotFoundError):
        finetuner.get_experiment("search")


def test_what_is_wrong_is_told_at_once():
    with pytest.raises(exception.SpecError, match="did you mean `learning_rate`") as caught:
        finetuner.fit(train_data="train.csv", learning_rat=1e-4)
    assert caught.value.problems[0][0] == "learning_rat"
    with pytest.raises(exception.SpecError) as caught:
        finetuner.fit(
            train_data="train.csv", loss="TripletMarginLos", epochs=0, callbacks=[callback.WandBLogger()], scheduler="cos"
        )
    assert [field for field, _ in caught.value.problems] == ["epochs", "loss", "scheduler", "callbacks"]
    assert "TensorBoardLogger" in str(caught.value) and "did you mean `TripletMarginLoss`" in str(caught.value)
    with pytest.raises(exception.SpecError, match="expected a whole number, got `1.5`"):
        finetuner.fit(train_data="train.csv", epochs=1.5)
    with pytest.raises(exception.SpecError, match="threads.*num_workers"):
        finetuner.fit(train_data="train.csv", threads=1, num_workers=2)
    with pytest.raises(exception.UnsupportedError, match="ONNX"):
        finetuner.fit(train_data="train.csv", to_onnx=True)
    with pytest.raises(exception.UnsupportedError, match="public"):
        finetuner.fit(train_data="train.csv", public=True)
    with pytest.raises(TypeError, match="Python are not called"):
        finetuner.fit(train_data="train.csv", callbacks=[print])
    with pytest.raises(exception.SpecError, match="train_data"):
        finetuner.fit()
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, finetuner.FinetunerError)
    assert not os.path.exists("runs")


def test_the_environment_stands_behind_arguments(monkeypatch):
    monkeypatch.setenv("FINETUNER_SEED", "9")
    monkeypatch.setenv("FINETUNER_EPOCHS", "7")
    run = finetuner.fit(train_data="train.csv", num_workers=1, freeze=True, model_options={"pooler": "cls"}, **SHORT)
    config = run.config
    run.cancel()
    assert (config["seed"], config["epochs"], config["threads"]) == (9, 1, 1)
    assert (config["freeze"], config["pooling"]) == ("all", "cls")


def test_a_run_that_fails_says_so():
    run = finetuner.fit(train_data="missing.csv", **SHORT)
    lines = list(run.stream_logs())
    assert "missing.csv" in lines[-1], lines
    assert run.status()["status"] == "FAILED" and "missing.csv" in run.status()["details"]
    with pytest.raises(finetuner.RunFailedError, match="missing.csv") as caught:
        run.metrics()
    assert isinstance(caught.value.__cause__, exception.FileError)
    with open("bad.csv", "w") as file:
        file.write("a,b,c,d\n1,2,3,4,5\n")
    with pytest.raises(finetuner.RunFailedError) as caught:
        finetuner.fit(train_data="bad.csv", **SHORT).wait(progress=False)
    assert isinstance(caught.value.__cause__, exception.DataError)
    with pytest.raises(finetuner.RunFailedError) as caught:
        finetuner.fit(train_data="train.csv", **{**SHORT, "model": "no-such-model"}).wait(progress=False)
    assert isinstance(caught.value.__cause__, exception.ModelError)


def test_a_cancelled_run_keeps_a_checkpoint_and_goes_on():
    long = {**SHORT, "epochs": 500, "kind": "labelled"}
    run = finetuner.fit(train_data=[list(row) for row in rows(64)], run_name="long", **long)
    with pytest.raises(finetuner.RunInProgressError, match="wait"):
        run.metrics()
    waiting = finetuner.fit(train_data="train.csv", run_name="waiting", **SHORT)
    assert waiting.status()["status"] == "CREATED"
    with pytest.raises(finetuner.RunPreparingError):
        waiting.logs()
    with pytest.raises(exception.RunError, match="cancel"):
        run.delete()
    wait_for(lambda: run.status()["details"].startswith("train: "), "training")
    waiting.cancel()
    run.cancel()
    assert run.status()["status"] == "CANCELLED" and "resume" in run.status()["details"]
    assert waiting.status()["status"] == "CANCELLED"
    with pytest.raises(finetuner.RunFailedError, match="CANCELLED"):
        run.report()
    assert os.path.isfile("runs/long/checkpoint.safetensors")
    again = finetuner.fit(train_data=[list(row) for row in rows(64)], run_name="long", resume=True, **long)
    wait_for(lambda: "resumed at step" in "".join(again._lines()), "resuming")
    again.cancel()


SCRIPT = """
import finetuner
run = finetuner.fit(train_data="train.csv", model="mini", epochs=500, batch_size=16, max_length=8, canary=False,
                    device="cpu", run_name="interrupted")
{then}
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGINT is Unix's")
@pytest.mark.parametrize(
    "then",
    ["for line in run.stream_logs(): print(line, flush=True)", "import time\ntime.sleep(1000)", "pass", "run.wait()"],
    ids=["streaming", "elsewhere", "at the end", "waiting"],
)
def test_ctrl_c_saves_a_checkpoint(workplace, then):
    # As a terminal starts programs: of a job in a script's background Ctrl-C would be ignored from the beginning.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    command = [sys.executable, "-c", SCRIPT.format(then=then)]
    program = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    events = workplace / "runs/interrupted/events.jsonl"
    wait_for(lambda: events.is_file() and '"train_loss"' in events.read_text(), "the first step")
    program.send_signal(signal.SIGINT)
    _, told = program.communicate(timeout=DEADLINE)
    assert program.returncode != 0 or then == "pass", told
    assert (workplace / "runs/interrupted/checkpoint.safetensors").is_file(), told
    states = [json.loads(line).get("state") for line in events.read_text().splitlines()]
    assert [state for state in states if state] == ["started", "stopped"]
    assert finetuner.get_run("interrupted").status()["status"] == "CANCELLED"


def test_a_program_that_ends_waits_for_its_run(workplace):
    script = f"import finetuner\nfinetuner.fit(train_data='train.csv', run_name='short', **{SHORT!r})"
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=DEADLINE)
    assert finetuner.get_run("short").status()["status"] == "FINISHED"


def test_callbacks_have_the_originals_names():
    assert {"EvaluationCallback", "BestModelCheckpoint", "EarlyStopping", "TrainingCheckpoint", "WandBLogger"} <= set(
        finetuner.list_callbacks()
    )
    queries = [{"text": text, "label": label} for text, label in rows(16, seed=3)]
    run = finetuner.fit(
        train_data="train.csv",
        eval_data="eval.csv",
        callbacks=[
            callback.EvaluationCallback(query_data=queries, gather_examples=True, limit=5),
            callback.BestModelCheckpoint(monitor="average_precision"),
            callback.EarlyStopping(patience=1, baseline=0.0),
            callback.TrainingCheckpoint(last_k_epochs=2),
            callback.CSVLogger(),
            "WiSEFTCallback(alpha=0.5)",
        ],
        **SHORT,
    ).wait(progress=False)
    assert run.metrics()["k"] == 5
    assert os.path.isfile(os.path.join(run.artifact_id, "metrics.csv"))
    assert str(callback.WiSEFTCallback(alpha="auto")) == 'WiSEFTCallback({"alpha": "auto"})'
    assert str(callback.EarlyStopping()) == "EarlyStopping()"


def test_synthesis_makes_training_data():
    models = finetuner.SynthesisModels("mini", str(GOLDEN / "cross_encoders" / "bert"))
    queries, corpus = [text for text, _ in rows(4)], [text for text, _ in rows(24, seed=5)]
    run = finetuner.synthesize(queries, corpus, models, num_relations=3, run_name="made", device="cpu").wait(progress=False)
    with open(run.train_data) as file:
        made = [json.loads(line) for line in file]
    assert len(made) == 4 * 2 and {"positive", "negative"} <= set(made[0]), made[0]
    assert finetuner.get_run("made").train_data == run.train_data
    trained = finetuner.fit(train_data=run.train_data, loss="MarginMSELoss", **SHORT).wait(progress=False)
    with pytest.raises(ValueError, match="synthesize"):
        trained.train_data
    assert finetuner.synthesis_model_en.relation_miner == "sbert-base-en"
    with pytest.raises(exception.SpecError, match="num_relations"):
        finetuner.create_synthesis_run(queries, corpus, models, num_relations=1)
