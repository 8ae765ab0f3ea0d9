"""The lines that a newcomer types, as they stand, in a process of their own: here, and at a server."""

import os
import subprocess
import sys

import pytest
from conftest import download

import finetuner

LOGIN = 'finetuner.login("http://localhost:7700")'

SAMPLE = f"""
import finetuner
{LOGIN}
run = finetuner.fit(model="bert-base-cased", train_data="train.csv", eval_data="eval.csv", loss="TripletMarginLoss",
                    miner="TripletMarginMiner", miner_options={{"margin": 0.3, "type_of_triplets": "hard"}},
                    learning_rate=1e-4, batch_size=16, epochs=5, device="cpu")
for line in run.stream_logs(): print(line)
print(run.metrics()); run.display_metrics(); run.save_artifact("model/")
vectors = finetuner.encode(finetuner.get_model("model/"), ["hello"])
print(type(vectors), vectors.dtype, vectors.shape)
"""


def run(lines, **environment):
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, env={**os.environ, **environment})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("where", ["here", "at a server"])
def test_the_sample_as_it_stands(where, workplace, request):
    if where == "here":
        download(workplace / "home")
        said = run(SAMPLE.replace(LOGIN, ""))
        assert os.path.isdir("runs")
    else:
        server = request.getfixturevalue("server")
        # Who has a key in the environment is asked for none; the approval in a browser has a test of its own.
        said = run(SAMPLE.replace("http://localhost:7700", server.address), FINETUNER_TOKEN=server.token)
        assert not os.path.exists("runs"), "nothing was computed here"
        finetuner.logout()
    assert "'before'" in said and "'after'" in said, "metrics"
    assert "pretrained" in said and "mRR@20" in said, "the table"
    assert said.splitlines()[-1] == "<class 'numpy.ndarray'> float32 (1, 32)"
    assert os.path.isfile("model/model.safetensors")
