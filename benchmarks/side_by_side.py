"""Finetuner and its peers on the same machine, in turn, and the ratios as a table.

    cargo build --release --workspace --bin finetuner --example step --example resnet50 --example decode
    python3 benchmarks/side_by_side.py --peers .venv/bin/python --model MINILM --scifact DIR --banking77 DIR

Each work is done by both sides, one after the other and each alone, `--runs` times; the median stands in the table. Both
use `--threads` threads. `--only` picks works. MINILM is the folder of all-MiniLM-L6-v2, DIR a BEIR folder or one with
train.csv and test.csv; `decode` wants a folder of photos (`--photos`). The environment of the peers is described in benchmarks/peers.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

SCIFACT = ["--loss", "MultipleNegativesRankingLoss", "--optimizer", "AdamW", "--optimizer-options", "weight_decay=0",
           "--learning-rate", "2e-5", "--batch-size", "32", "--epochs", "1", "--scheduler", "linear", "--warmup", "0.1",
           "--max-length", "256", "--keep", "last"]  # fmt: skip
BANKING77 = ["--loss", "TripletMarginLoss", "--miner", "TripletMarginMiner", "--miner-options",
             "margin=0.3,type_of_triplets=hard", "--optimizer", "Adam", "--learning-rate", "2e-5", "--batch-size", "128",
             "--epochs", "1", "--max-grad-norm", "0", "--max-length", "256", "--sampler", "m_per_class", "--keep", "last"]  # fmt: skip
PACKAGES = ["--loss", "MultipleNegativesRankingLoss", "--optimizer", "AdamW", "--optimizer-options", "weight_decay=0",
            "--learning-rate", "5e-5", "--batch-size", "64", "--epochs", "1", "--scheduler", "linear", "--max-length", "128",
            "--keep", "last"]  # fmt: skip
# One step each, on random weights.
STEPS = ("bert-base", "minilm-l6", "clip-base-32")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="the Python of the peers' environment")
    parser.add_argument("--target", default=f"{ROOT}/target/release")
    parser.add_argument("--model", required=True)
    parser.add_argument("--scifact")
    parser.add_argument("--banking77")
    parser.add_argument("--photos")
    parser.add_argument("--packages", default=f"{ROOT}/examples/packages")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", default="42")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="of both sides; bf16 at the peer's best")
    parser.add_argument("--only", default="bert-base,minilm-l6,clip-base-32,resnet50,decode,scifact,banking77,packages,encode")
    given = parser.parse_args()
    if given.precision == "bf16" and {"resnet50", "decode"} & set(given.only.split(",")):
        parser.error("resnet50 and decode have no bf16 on our side: leave them out by --only")

    rows = []
    for work in given.only.split(","):
        ours, peers = [], []
        for _ in range(given.runs):
            ours.append(our_side(work, given))
            peers.append(peer_side(work, given))
            print(json.dumps({"work": work, "ours": ours[-1], "peer": peers[-1]}), file=sys.stderr, flush=True)
        rows.append((work, median(ours), median(peers)))
    print("| work | peer | ours | ratio | peer memory | our memory | ratio | peer nDCG@10, mRR@20 | ours |")
    print("|---|---|---|---|---|---|---|---|---|")
    for work, ours, peer in rows:
        print(f"| {work} | {peer['seconds']:.4g} s | {ours['seconds']:.4g} s | {ours['seconds'] / peer['seconds']:.3f} | "
              f"{memory(peer)} | {memory(ours)} | {ratio(ours, peer)} | {quality(peer)} | {quality(ours)} |")  # fmt: skip


def our_side(work, given):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if work in STEPS:
        options = [work, f"threads={given.threads}", f"precision={given.precision}"]
        line, peak = measured([f"{given.target}/examples/step", *options], environment)
        return {"seconds": json.loads(line)["seconds_per_step"], "peak_bytes": peak}
    if work == "resnet50":
        threads = {**environment, "RAYON_NUM_THREADS": given.threads}
        line, peak = measured([f"{given.target}/examples/resnet50"], threads)
        return {"seconds": json.loads(line)["step_ms"] / 1e3, "peak_bytes": peak}
    if work == "decode":
        line, peak = measured([f"{given.target}/examples/decode", given.photos], environment)
        return {"seconds": json.loads(line)["total_ms"] / 1e3, "peak_bytes": peak}
    with tempfile.TemporaryDirectory() as folder:
        if work == "encode":
            command = [f"{given.target}/finetuner", "encode", "--model", given.model, "--device", "cpu", "--threads", given.threads,
                       "--precision", given.precision, "--input", f"{given.scifact}/corpus.jsonl", "--output", f"{folder}/vectors.npy"]  # fmt: skip
            start = time.perf_counter()
            output(command, environment)
            return {"seconds": time.perf_counter() - start}
        data, recipe = {
            "scifact": ([f"{given.scifact}:train", "--query-data", f"{given.scifact}:test"], SCIFACT),
            "banking77": ([f"{given.banking77}/train.csv", "--query-data", f"{given.banking77}/test.csv",
                           "--index-data", f"{given.banking77}/train.csv"], BANKING77),
            "packages": ([f"{given.packages}/train.csv", "--query-data", f"{given.packages}/test.csv",
                          "--index-data", f"{given.packages}/index.csv"], PACKAGES),
        }[work]  # fmt: skip
        run = f"{folder}/run"
        output([f"{given.target}/finetuner", "fit", "--model", given.model, "--device", "cpu", "--threads", given.threads,
                "--seed", given.seed, "--precision", given.precision, "--output", run, "--train-data", *data, *recipe], environment)  # fmt: skip
        with open(f"{run}/report.json", encoding="utf-8") as file:
            report = json.load(file)
        metrics = report["metrics"]["finetuned"]
        shutil.rmtree(run)
        return {"seconds": report["timing"]["train_seconds"], "peak_bytes": report["memory"]["peak_bytes"],
                "ndcg@10": metrics["ndcg_at_10"], "mrr@20": metrics["mrr"], "recall@20": metrics["recall"],
                "map@20": metrics["map"]}  # fmt: skip


def peer_side(work, given):
    python = [given.peers]
    common = ["--threads", given.threads]
    if work in STEPS:
        best = ["--precision", "bf16", "--fused"] if given.precision == "bf16" else []
        line, peak = measured([*python, f"{HERE}/peers/step.py", "--shape", work, *common, *best])
        return {"seconds": json.loads(line)["seconds_per_step"], "peak_bytes": peak}
    if work == "resnet50":
        line, peak = measured([*python, f"{HERE}/peers/resnet50.py", *common])
        return {"seconds": json.loads(line)["seconds_per_step"], "peak_bytes": peak}
    if work == "decode":
        line, peak = measured([*python, f"{HERE}/peers/decode.py", given.photos])
        return {"seconds": json.loads(line)["total_ms"] / 1e3, "peak_bytes": peak}
    program, data = {
        "scifact": ("scifact.py", given.scifact),
        "encode": ("scifact.py", given.scifact),
        "banking77": ("banking77.py", given.banking77),
        "packages": ("packages.py", given.packages),
    }[work]
    extra = ["--steps", "1"] if work == "encode" else ["--seed", given.seed]
    extra += ["--precision", given.precision]
    line = output([*python, f"{HERE}/peers/{program}", "--model", given.model, "--data", data, *common, *extra])
    result = json.loads(line)
    if work == "encode":
        return {"seconds": result["encode_seconds"]}
    tuned = result["finetuned"]
    return {"seconds": result["train_seconds"], "peak_bytes": result["train_peak_bytes"], **tuned}


def output(command, environment=None):
    return measured(command, environment)[0]


def measured(command, environment=None):
    """The last line that a program prints, and the most memory that it took."""
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaints:
        program = subprocess.Popen(command, env=environment, stdout=said, stderr=complaints, text=True)
        _, status, usage = os.wait4(program.pid, 0)
        program.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        complaints.seek(0)
        if program.returncode != 0:
            sys.exit(f"{' '.join(command)}\n{complaints.read()}")
        lines = said.read().strip().splitlines()
    return (lines[-1] if lines else ""), usage.ru_maxrss * 1024


def median(results):
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def memory(side):
    return f"{side['peak_bytes'] / 1e9:.2f} GB" if "peak_bytes" in side else ""


def ratio(ours, peer):
    return f"{ours['peak_bytes'] / peer['peak_bytes']:.3f}" if "peak_bytes" in ours and "peak_bytes" in peer else ""


def quality(side):
    return f"{side['ndcg@10']:.4f}, {side['mrr@20']:.4f}" if "mrr@20" in side else ""


if __name__ == "__main__":
    main()
