"""Finetuner and sentence-transformers on one GPU, in turn: training on the same texts, and the ratios as a table.

    python3 benchmarks/gpu/race.py --finetuner target/release/finetuner --tokenizer MODEL --pairs NAME=PAIRS.csv

Both sides train a BERT of random weights in bf16 with in-batch negatives, AdamW and dropout on the pairs of a CSV file
(columns anchor, positive), sentence-transformers with PyTorch's scaled-dot-product attention and fused AdamW. MODEL is a
folder with a WordPiece tokenizer, such as all-MiniLM-L6-v2. What counts are the examples (pairs) a second after the
first ten steps, how busy the driver saw the GPU meanwhile (NVML, twice a second), and the most memory that tensors
took. `--no-peer` times Finetuner alone. Python needs torch, sentence-transformers, datasets and nvidia-ml-py.
"""

import argparse
import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime

SHAPES = {
    "bert-base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072),
    "minilm-l6": dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
}
WARM_UP = 10


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--finetuner", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--pairs", action="append", required=True, help="NAME=FILE.csv")
    parser.add_argument("--runs", nargs="+", default=["bert-base:512:256", "minilm-l6:1024:256"],
                        help="SHAPE:BATCH:MAX_LENGTH, for each of the files")  # fmt: skip
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--peer-side", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peer_side:
        return peer_side(json.loads(given.peer_side))

    rows = []
    for pairs in given.pairs:
        name, path = pairs.split("=", 1)
        for run in given.runs:
            shape, batch, length = run.split(":")
            work = dict(batch=int(batch), length=int(length), steps=given.steps)
            with tempfile.TemporaryDirectory() as folder:
                work["pairs"] = f"{folder}/pairs.csv"
                one_epoch(path, work["batch"] * work["steps"], work["pairs"])
                work["model"] = random_model(shape, given.tokenizer, f"{folder}/model")
                work["output"] = f"{folder}/run"
                sides = {"ours": watched(lambda: our_side(given.finetuner, work))}
                if not given.no_peer:
                    sides["peer"] = watched(lambda: run_peer(work))
            rows.append((f"{shape}, batch {batch}, {length} tokens at most, {name}", sides))
            print(json.dumps({"work": rows[-1][0], **sides}), file=sys.stderr, flush=True)
    print("| work | peer, examples/s | ours | ratio | busy, peer | ours | memory, peer | ours | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, sides in rows:
        ours, peer = sides["ours"], sides.get("peer")
        speed, memory = ours["examples_per_second"], ours["peak_bytes"]
        if not peer or "error" in peer:
            print(f"| {name} | {peer['error'] if peer else ''} | {speed:.0f} | | | {ours['busy']:.0%} | | {memory / 1e9:.2f} GB | |")
            continue
        print(f"| {name} | {peer['examples_per_second']:.0f} | {speed:.0f} | {speed / peer['examples_per_second']:.2f} | "
              f"{peer['busy']:.0%} | {ours['busy']:.0%} | {peer['peak_bytes'] / 1e9:.2f} GB | {memory / 1e9:.2f} GB | "
              f"{memory / peer['peak_bytes']:.2f} |")  # fmt: skip


def random_model(shape, tokenizer, folder):
    """A sentence-transformers folder of a BERT whose weights are random."""
    import torch
    from transformers import BertConfig, BertModel

    os.makedirs(f"{folder}/1_Pooling")
    torch.manual_seed(0)
    model = BertModel(BertConfig(**SHAPES[shape], max_position_embeddings=512), add_pooling_layer=False)
    model.save_pretrained(folder)
    for name in os.listdir(tokenizer):
        if name.startswith(("tokenizer", "special_tokens", "vocab")):
            shutil.copy(f"{tokenizer}/{name}", folder)
    write(f"{folder}/modules.json", [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
    ])  # fmt: skip
    write(f"{folder}/1_Pooling/config.json",
          {"word_embedding_dimension": SHAPES[shape]["hidden_size"], "pooling_mode_mean_tokens": True})  # fmt: skip
    return folder


def write(path, content):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(content, file)


def watched(side):
    """Runs a side; adds the share of the time after its warm-up in which the GPU had something to do."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(0)
    samples, over = [], threading.Event()

    def watch():
        while not over.wait(0.5):
            samples.append((time.time(), pynvml.nvmlDeviceGetUtilizationRates(handle).gpu))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        result = side()
    finally:
        over.set()
        thread.join()
    if "error" not in result:
        within = [busy for at, busy in samples if result["from"] <= at <= result["to"]]
        result["busy"] = sum(within) / max(len(within), 1) / 100
    return result


def our_side(finetuner, work):
    command = [finetuner, "fit", "--model", work["model"], "--train-data", work["pairs"], "--output", work["output"],
               "--device", "cuda", "--precision", "bf16", "--loss", "MultipleNegativesRankingLoss", "--optimizer", "AdamW",
               "--learning-rate", "2e-5", "--batch-size", str(work["batch"]), "--epochs", "1",
               "--max-length", str(work["length"]), "--keep", "last", "--canary=false",
               "--max-grad-norm", "1"]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}")
    ends = {}
    with open(f"{work['output']}/events.jsonl", encoding="utf-8") as file:
        for line in file:
            event = json.loads(line)
            if event["event"] == "metric" and event["name"] == "train_loss":
                ends[event["step"]] = datetime.fromisoformat(event["time"]).timestamp()
    with open(f"{work['output']}/report.json", encoding="utf-8") as file:
        report = json.load(file)
    return measured(ends, work, report["memory"].get("device_peak_bytes") or report["memory"]["peak_bytes"])


def measured(ends, work, peak_bytes):
    first, last = WARM_UP, max(ends)
    seconds = ends[last] - ends[first]
    return {"examples_per_second": (last - first) * work["batch"] / seconds, "seconds_per_step": seconds / (last - first),
            "peak_bytes": peak_bytes, "from": ends[first], "to": ends[last]}  # fmt: skip


def one_epoch(pairs, count, path):
    """Copies so many pairs, each as often as needed: between epochs a run writes a checkpoint, which is not to be timed."""
    with open(pairs, encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *itertools.islice(itertools.cycle(rows), count)])


def run_peer(work):
    command = [sys.executable, os.path.abspath(__file__), "--peer-side", json.dumps(work), "--finetuner", "", "--tokenizer",
               "", "--pairs", ""]  # fmt: skip
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        print(done.stderr[-2000:], file=sys.stderr)
        return {"error": "out of memory" if "OutOfMemory" in done.stderr else "failed"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def peer_side(work):
    from contextlib import redirect_stdout

    import torch
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import TrainerCallback

    with open(work["pairs"], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    data = Dataset.from_dict({name: [row[name] for row in rows] for name in ("anchor", "positive")})
    model = SentenceTransformer(work["model"], device="cuda", model_kwargs={"attn_implementation": "sdpa"})
    model.max_seq_length = work["length"]
    ends = {}

    class Times(TrainerCallback):
        def on_step_end(self, arguments, state, control, **_):
            if state.global_step in (WARM_UP, work["steps"]):
                torch.cuda.synchronize()
                ends[state.global_step] = time.time()

    arguments = SentenceTransformerTrainingArguments(
        output_dir=work["output"] + "-peer", max_steps=work["steps"], per_device_train_batch_size=work["batch"],
        learning_rate=2e-5, bf16=True, optim="adamw_torch_fused", save_strategy="no", report_to="none",
        disable_tqdm=True, logging_strategy="no", dataloader_num_workers=8, dataloader_drop_last=True,
    )  # fmt: skip
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=data,
                                         loss=MultipleNegativesRankingLoss(model, scale=20.0), callbacks=[Times()])  # fmt: skip
    with redirect_stdout(sys.stderr):
        trainer.train()
    print(json.dumps(measured(ends, work, torch.cuda.max_memory_allocated())))


if __name__ == "__main__":
    main()
