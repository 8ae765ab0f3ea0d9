"""The same calls at a server: a real one, on loopback."""

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import urllib.parse
import urllib.request

import numpy
import pytest
from conftest import SHORT, binary, rows, wait_for

import finetuner
from finetuner import callback, exception


@pytest.fixture
def logged_in(server):
    finetuner.login(server.address, token=server.token)
    yield server
    finetuner.logout()


def test_the_sample(server, monkeypatch, capsys):
    monkeypatch.setenv("FINETUNER_TOKEN", server.token)
    finetuner.login(server.address)
    monkeypatch.delenv("FINETUNER_TOKEN")
    assert finetuner.get_token() == server.token
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
    assert run.status()["status"] in ("CREATED", "STARTED")
    lines = list(run.stream_logs())
    assert lines[-1].endswith("FINISHED") and any("STARTED" in line for line in lines), lines
    assert run.logs().splitlines() == lines
    assert run.status()["status"] == "FINISHED"
    metrics = run.metrics()
    assert metrics["k"] == 20 and 0 < metrics["after"]["mrr"] <= 1
    run.display_metrics()
    assert "pretrained" in capsys.readouterr().out
    run.display_examples()
    assert run.save_artifact("model/") == "model/"
    vectors = finetuner.encode(finetuner.get_model("model/"), ["hello"])
    assert vectors.shape == (1, 384) and vectors.dtype == numpy.float32
    for name in (run.artifact_id, run.name):
        assert numpy.array_equal(finetuner.encode(finetuner.get_model(name), ["hello"]), vectors)
    with pytest.raises(exception.OutputError, match="holds something"):
        run.save_artifact("model/")
    assert not os.path.exists("runs")
    with pytest.raises(exception.UnsupportedError, match="local=True"):
        finetuner.fit(train_data="train.csv", model_artifact=run.artifact_id, **SHORT)
    # The command line has the same login, and Python that of the command line.
    listed = subprocess.run([binary(), "runs"], capture_output=True, text=True, check=True).stdout
    assert run.name in listed
    subprocess.run([binary(), "logout"], check=True)
    with pytest.raises(finetuner.FinetunerServerError, match="logged in"):
        finetuner.get_token()


def test_runs_and_experiments(logged_in):
    experiment = finetuner.create_experiment("search")
    assert finetuner.create_experiment("search").name == "search"
    assert "search" in [one.name for one in finetuner.list_experiments()]
    data = [{"anchor": text, "positive": f"{label} {text}"} for text, label in rows(48)]
    run = experiment.create_training_run(
        train_data=data,
        run_name="first",
        description="a test",
        callbacks=[callback.EvaluationCallback(query_data=data)],
        **SHORT,
    )
    run.wait(progress=False)
    assert run.metrics()["k"] == 20, "the callback's data is the run's query_data"
    assert [one.name for one in finetuner.list_runs("search")] == ["first"]
    assert finetuner.get_run("first", "search").config["batch_size"] == 16
    assert experiment.get_run("first").artifact_id == run.artifact_id
    with pytest.raises(exception.NotFoundError, match="no run `second`"):
        finetuner.get_run("second")
    with pytest.raises(exception.NotFoundError):
        finetuner.get_experiment("none")
    experiment.delete_run("first")
    assert finetuner.delete_experiment("search").name == "search"
    assert "search" not in [one.name for one in finetuner.list_experiments()]


def test_a_cancelled_run(logged_in):
    run = finetuner.fit(train_data="train.csv", run_name="long", **{**SHORT, "epochs": 500})
    with pytest.raises(finetuner.RunInProgressError):
        run.metrics()
    wait_for(lambda: run.status()["status"] == "STARTED", "a worker")
    with pytest.raises(finetuner.FinetunerServerError, match="cancel it first") as caught:
        run.delete()
    assert (caught.value.code, caught.value.reason) == (409, "run_not_ended")
    run.cancel()
    assert list(run.stream_logs())[-1].endswith("CANCELLED")
    with pytest.raises(finetuner.RunFailedError, match="CANCELLED"):
        run.save_artifact("nothing")
    run.delete()
    finetuner.delete_runs("default")
    assert finetuner.list_runs() == []


def test_what_the_server_refuses(logged_in):
    with pytest.raises(exception.SpecError, match="model") as caught:
        finetuner.fit(train_data="train.csv", **{**SHORT, "model": "../secret"})
    assert caught.value.problems[0][0] == "model"
    os.mkdir("pictures")
    with pytest.raises(exception.DataError, match="pictures.*found none"):
        finetuner.fit(train_data="pictures", **SHORT)
    with pytest.raises(exception.UnsupportedError, match="local=True"):
        finetuner.synthesize(["a"], ["b"], finetuner.synthesis_model_en)
    with pytest.raises(exception.FileError, match="missing.csv"):
        finetuner.fit(train_data="missing.csv", **SHORT)
    run = finetuner.fit(train_data="train.csv", local=True, run_name="here", **SHORT)
    assert run.wait(progress=False).artifact_id == os.path.abspath("runs/here")


def test_a_split_of_a_beir_folder_goes_there_as_one_file(logged_in):
    os.mkdir("things")
    rows = range(16)
    for name, rows_of in {
        "queries.jsonl": [json.dumps({"_id": f"q{row}", "text": f"where is thing {row}"}) for row in rows],
        "corpus.jsonl": [json.dumps({"_id": f"d{row}", "text": f"thing {row} lies there"}) for row in rows],
        "qrels_train.tsv": [f"q{row}\td{row}\t1" for row in rows],
    }.items():
        pathlib.Path("things", name).write_text("\n".join(rows_of))
    run = finetuner.fit(train_data="things:train", **{**SHORT, "loss": "MultipleNegativesRankingLoss"})
    run.wait(progress=False)
    assert run.status()["status"] == "FINISHED"
    assert re.fullmatch(r"file-\w{26}:train", run.config["train_data"])


def test_a_login_that_somebody_approves(server, capfd):
    def approve():
        shown = wait_for(lambda: re.search(r"open (\S+) and approve the code (\S+)", shown_by_now()), "the code")
        form = urllib.parse.urlencode({"user_code": shown[2], "key": server.token, "decision": "approve"})
        urllib.request.urlopen(f"{server.address}/activate", form.encode()).read()

    told = []

    def shown_by_now():
        told.append(capfd.readouterr().err)
        return "".join(told)

    friend = threading.Thread(target=approve)
    friend.start()
    finetuner.login(server.address, force=True)
    friend.join()
    assert finetuner.get_token() != server.token
    finetuner.login()  # the stored one still counts
    assert finetuner.logout() and not finetuner.logout()


def test_a_server_that_is_not_there():
    with pytest.raises(exception.ServiceError, match="no server's address"):
        finetuner.login("localhost:7700", token="ft_x")
    from finetuner import _native

    _native.save_login("http://127.0.0.1:9", "ft_x")
    with pytest.raises(exception.ServiceError, match="cannot reach `http://127.0.0.1:9`"):
        finetuner.fit(train_data="train.csv", **SHORT)
    finetuner.logout()


def test_a_key_that_is_none(server):
    with pytest.raises(exception.ServiceError) as caught:
        finetuner.login(server.address, token="ft_0_nothing")
    assert caught.value.code == 401
    assert not finetuner.logout(), "a login that does not work is not kept"


def test_ctrl_c_leaves_a_run_of_a_server(logged_in):
    script = (
        "import finetuner, signal, _thread, threading\n"
        # Ignored where the tests run in the background of a shell.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"run = finetuner.fit(train_data='train.csv', run_name='left', **{ {**SHORT, 'epochs': 500}!r})\n"
        "threading.Timer(1, _thread.interrupt_main).start()\n"
        "for line in run.stream_logs(): pass\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "KeyboardInterrupt" in ended.stderr, ended
    run = finetuner.get_run("left")
    assert run.status()["status"] in ("CREATED", "STARTED")
    run.cancel()
    list(run.stream_logs())
    run.delete()
