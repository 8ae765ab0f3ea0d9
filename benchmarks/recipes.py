"""Recipes of Finetuner and of its peers at equal settings, seed after seed, and the means as a table.

    cargo build --release
    python3 benchmarks/recipes.py --peers .venv/bin/python --model MINILM --data DATA --results recipes.jsonl

DATA holds retrieval/scifact, text-classes/banking77, pairs/stsb and unlabelled/wiki_sentences.txt; the pairs of `packages`
are the example's. Every finished run is a line of the results; runs that are there already are not repeated, so that the program
may be stopped and go on. `--only` picks recipes, `--table` only prints; `scifact-margins` is run where `--cross-encoder` names
one, as `peers/cross_encoder.py` makes it of the pairs of `scifact-mined`. Both sides learn from the same batches in the same order.
Times are of training alone and compare where nothing else runs.

Both sides draw dropout and class vectors by chance: `--same-chance` lets the peer draw what Finetuner draws, `--without-dropout`
trains without it (give either results of its own). Beside one of them, `--steps 6` takes the first six steps alone and compares the
means of their losses.
"""

import argparse
import collections
import csv
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, f"{HERE}/peers")
from scifact import qrels, texts  # noqa: E402

LINEAR = ["--optimizer", "AdamW", "--optimizer-options", "weight_decay=0", "--learning-rate", "2e-5", "--epochs", "1",
          "--scheduler", "linear", "--warmup", "0.1", "--keep", "last"]  # fmt: skip
SCIFACT = [*LINEAR, "--batch-size", "32", "--max-length", "256"]
STSB = [*LINEAR, "--max-length", "128"]
PACKAGES = ["--optimizer", "AdamW", "--optimizer-options", "weight_decay=0", "--learning-rate", "5e-5", "--epochs", "1",
            "--scheduler", "linear", "--keep", "last", "--batch-size", "64", "--max-length", "128"]  # fmt: skip
BANKING77 = ["--optimizer", "Adam", "--learning-rate", "2e-5", "--batch-size", "128", "--epochs", "1", "--max-grad-norm",
             "0", "--max-length", "256", "--keep", "last"]  # fmt: skip
CLASSES = ["--sampler", "m_per_class"]
HARD_TRIPLETS = ["--loss-options", "margin=0.05", "--miner", "TripletMarginMiner", "--miner-options",
                 "margin=0.3,type_of_triplets=hard"]  # fmt: skip
CENTRES = ["--sampler", "random", "--loss-optimizer", "Adam", "--loss-optimizer-options", "learning_rate=0.01"]
MATRYOSHKA = "loss=MultipleNegativesRankingLoss,matryoshka_dims=384+256+128+64"

# recipe: (task, our loss and what belongs to it, the peer's flags)
RECIPES = {
    "stsb-cosent": ("stsb", ["--loss", "CoSENTLoss", "--batch-size", "32"], ["--loss", "CoSENTLoss"]),
    "stsb-angle": ("stsb", ["--loss", "AnglELoss", "--batch-size", "32"], ["--loss", "AnglELoss"]),
    "simcse": ("simcse", ["--loss", "MultipleNegativesRankingLoss", "--batch-size", "64"], []),
    "packages": ("packages", ["--loss", "MultipleNegativesRankingLoss"], []),
    "banking77-triplets": ("banking77", ["--loss", "TripletMarginLoss", *HARD_TRIPLETS, *CLASSES], []),
    "banking77-supcon": ("banking77", ["--loss", "SupConLoss", *CLASSES], ["--loss", "SupConLoss"]),
    "banking77-multi-similarity": ("banking77", ["--loss", "MultiSimilarityLoss", *CLASSES], ["--loss", "MultiSimilarityLoss"]),
    "banking77-arcface": ("banking77", ["--loss", "ArcFaceLoss", *CENTRES], ["--loss", "ArcFaceLoss"]),
    "banking77-proxy-anchor": ("banking77", ["--loss", "ProxyAnchorLoss", *CENTRES], ["--loss", "ProxyAnchorLoss"]),
    "scifact": ("scifact", ["--loss", "MultipleNegativesRankingLoss"], []),
    "scifact-known": ("scifact-known", ["--loss", "MultipleNegativesRankingLoss"], []),
    "scifact-mined": ("scifact-mined", ["--loss", "MultipleNegativesRankingLoss"], []),
    "scifact-margins": ("scifact-margins", ["--loss", "MarginMSELoss"], ["--margins"]),
    "scifact-gist": ("scifact", ["--loss", "GISTEmbedLoss", "--guide", "MODEL"], ["--guide", "MODEL"]),
    "scifact-matryoshka": ("scifact", ["--loss", "MatryoshkaLoss", "--loss-options", MATRYOSHKA], ["--matryoshka"]),
}
# Class vectors begin at random on either side.
BY_CHANCE = ("banking77-arcface", "banking77-proxy-anchor")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="the Python of the peers' environment")
    parser.add_argument("--binary", default=f"{ROOT}/target/release/finetuner")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--cross-encoder")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only")
    parser.add_argument("--sides", default="ours,peer")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--steps", type=int, default=0, help="compare the losses of so many steps")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="of both sides; give each results of its own")
    chance = parser.add_mutually_exclusive_group()
    chance.add_argument("--without-dropout", action="store_true")
    chance.add_argument("--same-chance", action="store_true")
    given = parser.parse_args()
    if given.steps and not (given.without_dropout or given.same_chance):
        parser.error("--steps compares nothing where both sides draw their own dropout; give --same-chance or --without-dropout")
    recipes = [recipe for recipe in RECIPES if given.cross_encoder or recipe != "scifact-margins"]
    given.only = given.only.split(",") if given.only else recipes

    with tempfile.TemporaryDirectory() as folder:
        if given.without_dropout:
            given.model = without_dropout(given.model, folder)
        compare(given)


def compare(given):
    done = read(given.results)
    if given.steps:
        for recipe in [recipe for recipe in given.only if given.same_chance or recipe not in BY_CHANCE]:
            for seed in given.seeds.split(","):
                first_losses(recipe, seed, given)
        return
    if not given.table:
        for seed in given.seeds.split(","):
            for recipe in given.only:
                for side in given.sides.split(","):
                    if not any((run["recipe"], run["side"], run["seed"]) == (recipe, side, seed) for run in done):
                        result = {"ours": ours, "peer": peer}[side](recipe, seed, given)
                        run = {"recipe": recipe, "side": side, "seed": seed, **result}
                        done.append(run)
                        with open(given.results, "a", encoding="utf-8") as file:
                            file.write(json.dumps(run) + "\n")
    table(done)


def without_dropout(model, folder):
    copy = f"{folder}/model"
    shutil.copytree(model, copy)
    with open(f"{copy}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    with open(f"{copy}/config.json", "w", encoding="utf-8") as file:
        json.dump({**config, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, file)
    return copy


def first_losses(recipe, seed, given):
    """Prints the mean loss of the first steps of both sides."""
    with tempfile.TemporaryDirectory() as folder:
        command, _ = fit(recipe, seed, given, folder)
        losses = []
        with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
            for event in map(json.loads, running.stdout):
                if event.get("name") == "train_loss":
                    losses.append(event["value"])
                if len(losses) == given.steps:
                    break
            running.kill()
        if len(losses) < given.steps:
            sys.exit(f"{' '.join(command)}\nended after {len(losses)} steps")
    there = run([*peer_command(recipe, seed, given), "--steps", str(given.steps), "--evaluate", "never"])
    ours_mean, peer_mean = statistics.mean(losses), json.loads(there.splitlines()[-1])["train_loss"]
    print(f"{recipe}, seed {seed}: {ours_mean:.9f}, peer {peer_mean:.9f}, apart {abs(ours_mean / peer_mean - 1):.1e}", flush=True)


def ours(recipe, seed, given):
    with tempfile.TemporaryDirectory() as folder:
        command, target = fit(recipe, seed, given, folder)
        run(command)
        with open(f"{folder}/run/report.json", encoding="utf-8") as file:
            report = json.load(file)
        measured = [given.binary, "evaluate", "--threads", given.threads, "--model", f"{folder}/run", "--data", *target, "--json"]
        measured = json.loads(run(measured))
    found = measured.get("metrics", measured)
    keys = {"mrr": "mrr@20", "map": "map@20", "recall": "recall@20", "ndcg_at_10": "ndcg@10", "spearman": "spearman"}
    return {"seconds": report["timing"]["train_seconds"], "peak_bytes": report["memory"]["peak_bytes"],
            "train_loss": report["training"]["train_loss"],
            **{name: found[key] for key, name in keys.items() if found.get(key) is not None}}  # fmt: skip


def fit(recipe, seed, given, folder):
    """Our command, which trains into `folder`, and what the tuned model is measured on."""
    task, loss, _ = RECIPES[recipe]
    scifact, stsb = f"{given.data}/retrieval/scifact", f"{given.data}/pairs/stsb"
    banking77, packages = f"{given.data}/text-classes/banking77", f"{ROOT}/examples/packages"
    stsb_test = [f"{stsb}/stsb-en-test.csv"]
    # Training data that has to be made first is made for its own task only.
    train_data, settings, target = {
        "scifact": (lambda: f"{scifact}:train", SCIFACT, [f"{scifact}:test"]),
        "scifact-known": (lambda: known_as_negatives(pathlib.Path(scifact), folder), SCIFACT, [f"{scifact}:test"]),
        "scifact-mined": (lambda: mined(given), SCIFACT, [f"{scifact}:test"]),
        "scifact-margins": (lambda: margins(given), SCIFACT, [f"{scifact}:test"]),
        "stsb": (lambda: f"{stsb}/stsb-en-train.csv", STSB, stsb_test),
        "simcse": (lambda: first_lines(given, folder), STSB, stsb_test),
        "banking77": (lambda: f"{banking77}/train.csv", BANKING77,
                      [f"{banking77}/test.csv", "--index-data", f"{banking77}/train.csv"]),
        "packages": (lambda: f"{packages}/train.csv", PACKAGES,
                     [f"{packages}/test.csv", "--index-data", f"{packages}/index.csv"]),
    }[task]  # fmt: skip
    loss = [given.model if word == "MODEL" else word for word in loss]
    command = [given.binary, "fit", "--threads", given.threads, "--model", given.model, "--seed", seed, "--output", f"{folder}/run",
               "--precision", given.precision, "--train-data", train_data(), *settings, *loss]  # fmt: skip
    return command, target


def peer(recipe, seed, given):
    found = json.loads(run([*peer_command(recipe, seed, given), "--evaluate", "after"]).splitlines()[-1])
    return {"seconds": found["train_seconds"], "peak_bytes": found["train_peak_bytes"], "train_loss": found["train_loss"],
            **found["finetuned"]}  # fmt: skip


def peer_command(recipe, seed, given):
    task, _, flags = RECIPES[recipe]
    program, data = {
        "scifact": ("scifact.py", "retrieval/scifact"),
        "stsb": ("stsb.py", "pairs/stsb"),
        "simcse": ("stsb.py", "pairs/stsb"),
        "banking77": ("banking77.py", "text-classes/banking77"),
        "packages": ("packages.py", f"{ROOT}/examples/packages"),
    }[task.split("-")[0]]
    flags = [given.model if word == "MODEL" else word for word in flags]
    flags += ["--precision", given.precision]
    if given.same_chance:
        flags += ["--same-chance"]
    if task == "scifact-mined":
        flags += ["--negatives", mined(given)]
    if task == "scifact-margins":
        flags += ["--negatives", margins(given)]
    if task == "simcse":
        flags += ["--texts", f"{given.data}/unlabelled/wiki_sentences.txt"]
    return [given.peers, f"{HERE}/peers/{program}", "--model", given.model, "--data", os.path.join(given.data, data), "--threads",
            given.threads, "--seed", seed, *flags]  # fmt: skip


def known_as_negatives(scifact, folder):
    """SciFact's training pairs with known matches among the negatives, as sentence-transformers takes them: each time a text
    comes again it is another text to us, by zero-width spaces that tokenizers leave out."""
    corpus, queries = texts(scifact)
    times = collections.Counter()
    with open(f"{folder}/pairs.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["anchor", "positive"])
        for query, document, _ in qrels(scifact, "train"):
            pair = [queries[query], corpus[document]]
            times.update(pair)
            writer.writerow([text + "\u200b" * (times[text] - 1) for text in pair])
    return f"{folder}/pairs.csv"


def mined(given):
    """SciFact's training pairs with one mined negative each, the same file for both sides."""
    path = f"{os.path.splitext(given.results)[0]}.mined.csv"
    if not os.path.exists(path):
        scifact = f"{given.data}/retrieval/scifact"
        run([given.binary, "mine", "--model", given.model, "--data", f"{scifact}:train", "--corpus", scifact, "--output",
             f"{path}.tmp.csv", "--num-negatives", "1", "--range-min", "10", "--range-max", "50"])  # fmt: skip
        os.replace(f"{path}.tmp.csv", path)
        with open(path, newline="", encoding="utf-8") as file:
            print("mined:", next(csv.reader(file)), file=sys.stderr)
    return path


def margins(given):
    """A related and a less related document for each of SciFact's training queries, and a cross-encoder's margin between
    them, the same file for both sides."""
    path = f"{os.path.splitext(given.results)[0]}.margins.csv"
    if not os.path.exists(path):
        scifact = pathlib.Path(given.data) / "retrieval" / "scifact"
        _, queries = texts(scifact)
        asked = dict.fromkeys(query for query, _, _ in qrels(scifact, "train"))
        if not given.cross_encoder:
            sys.exit("scifact-margins wants `--cross-encoder`")
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
            file.writelines(json.dumps({"text": queries[query]}) + "\n" for query in asked)
            file.flush()
            run([given.binary, "synthesize", "--model", given.model, "--cross-encoder", given.cross_encoder, "--num-relations",
                 "2", "--query-data", file.name, "--corpus-data", str(scifact), "--output", f"{path}.tmp.csv"])  # fmt: skip
        os.replace(f"{path}.tmp.csv", path)
    return path


def first_lines(given, folder, count=10000):
    """The texts that both sides learn from without labels."""
    with open(f"{given.data}/unlabelled/wiki_sentences.txt", encoding="utf-8") as file:
        first = [line for _, line in zip(range(count), file)]
    with open(f"{folder}/texts.txt", "w", encoding="utf-8") as file:
        file.writelines(first)
    return f"{folder}/texts.txt"


def run(command):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-3000:]}")
    return done.stdout.strip()


def read(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def table(runs):
    print("| recipe | metric | peer, each seed | mean | ours, each seed | mean | time | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for recipe in RECIPES:
        sides = {side: [run for run in runs if (run["recipe"], run["side"]) == (recipe, side)] for side in ("peer", "ours")}
        if not all(sides.values()):
            continue
        for metric in ("spearman", "ndcg@10", "mrr@20", "map@20"):
            values = {side: [run[metric] for run in found if metric in run] for side, found in sides.items()}
            if not all(values.values()) or (metric == "ndcg@10" and "scifact" not in recipe):
                continue
            cells = [f"{', '.join(f'{value:.4f}' for value in values[side])} | {statistics.mean(values[side]):.4f}"
                     for side in ("peer", "ours")]  # fmt: skip
            ratios = [statistics.median(run[key] for run in sides["ours"]) / statistics.median(run[key] for run in sides["peer"])
                      for key in ("seconds", "peak_bytes")]  # fmt: skip
            print(f"| {recipe} | {metric} | {' | '.join(cells)} | {ratios[0]:.2f} | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
