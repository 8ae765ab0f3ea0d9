"""Recipes on pictures, Finetuner beside PyTorch + pytorch-metric-learning at equal settings, seed after seed.

    cargo build --release
    python3 benchmarks/pictures.py --peers .venv/bin/python --data DATA --minilm MINILM --work WORK --results pictures.jsonl

- omniglot: characters of four alphabets by a small ResNet from random weights (the same on both sides), MultiSimilarityLoss;
  20-way one-shot accuracy on the fifth alphabet, 20 drawings a trial, 100 trials, the same ones for all
- grocery: 30 of the 41 classes, MobileNetV2 pretrained on ImageNet; mAP@20 and Recall@1 among the photos of
  the 11 classes that nothing was trained on
- emoji: names in English and German to pictures, all-MiniLM-L6-v2 joined with MobileNetV2 by a projection (new in every seed,
  the same on both sides); R@1, R@5, mRR@20 of a tenth of the emoji that nothing was trained on

Both sides learn from the same batches in the same order: what is left of chance between them is rounding and, for texts,
dropout, which `--same-chance` makes the same, too.

DATA holds images/omniglot, images/grocery, image-text/emoji and weights. Every finished run is a line of the results; runs that
are there already are not repeated, so that the program may be stopped and go on. `--only` and `--seeds` pick runs, `--table`
only prints. Both sides write embeddings, and the same lines here measure them. Times compare only where nothing else runs.
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import sys

import numpy
from recipes import read, run
from safetensors.numpy import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)

TASKS = {
    "omniglot": {"side": 48, "batch_size": 64, "learning_rate": 1e-3, "epochs": 15},
    "grocery": {"side": 128, "batch_size": 32, "learning_rate": 1e-5, "epochs": 2},
    "emoji": {"side": 96, "batch_size": 64, "learning_rate": 1e-4, "learning_rate_text": 2e-5, "epochs": 3},
}
METRICS = {"omniglot": ["one_shot"], "grocery": ["map@20", "recall@1"],
           "emoji": ["en r@1", "en r@5", "en mrr@20", "de r@1", "de r@5", "de mrr@20"]}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="the Python of the peers' environment")
    parser.add_argument("--binary", default=f"{ROOT}/target/release/finetuner")
    parser.add_argument("--data", required=True)
    parser.add_argument("--minilm", help="the folder of all-MiniLM-L6-v2, for emoji")
    parser.add_argument("--work", required=True, help="a folder for what is prepared once, and for runs")
    parser.add_argument("--results", required=True)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--only", default=",".join(TASKS))
    parser.add_argument("--sides", default="ours,peer")
    parser.add_argument("--same-chance", action="store_true", help="the peer drops what Finetuner drops; results of its own")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()

    done = read(given.results)
    if not given.table:
        for seed in given.seeds.split(","):
            for task in given.only.split(","):
                for side in given.sides.split(","):
                    if any((run["task"], run["side"], run["seed"]) == (task, side, seed) for run in done):
                        continue
                    folder = prepared(task, given)
                    vectors = f"{given.work}/{task}-{side}-{seed}"
                    shutil.rmtree(vectors, ignore_errors=True)
                    cost = {"ours": ours, "peer": peer}[side](task, folder, vectors, seed, given)
                    done.append({"task": task, "side": side, "seed": seed, **cost, **measured(task, folder, vectors)})
                    with open(given.results, "a", encoding="utf-8") as file:
                        file.write(json.dumps(done[-1]) + "\n")
    table(done)


def ours(task, folder, vectors, seed, given):
    settings = TASKS[task]
    common = ["--threads", given.threads, "--device", "cpu", "--model"]
    command = [given.binary, "fit", *common, f"{folder}/text" if task == "emoji" else f"{folder}/initial",
               "--train-data", f"{folder}/train.csv", "--seed", seed, "--keep", "last", "--augment", "none",
               "--canary=false", "--batch-size", str(settings["batch_size"]), "--epochs", str(settings["epochs"]),
               "--learning-rate", str(settings["learning_rate"]), "--output", f"{vectors}/run"]  # fmt: skip
    if task == "emoji":
        text = settings["learning_rate_text"]
        command += ["--image-model", projected(folder, seed), "--loss", "MultipleNegativesRankingLoss", "--max-length", "64",
                    "--optimizer", "AdamW", "--optimizer-options", f"weight_decay=0.01,learning_rate_text={text}"]  # fmt: skip
    else:
        command += ["--loss", "MultiSimilarityLoss", "--sampler", "m_per_class", "--num-items-per-class", "4",
                    "--optimizer", "Adam", "--max-grad-norm", "0"]  # fmt: skip
    run(command)
    for name in embedded(folder):
        run([given.binary, "encode", *common, f"{vectors}/run", "--input", f"{folder}/embed-{name}.csv",
             "--output", f"{vectors}/{name}.npy"])  # fmt: skip
    with open(f"{vectors}/run/report.json", encoding="utf-8") as file:
        report = json.load(file)
    return {"seconds": report["timing"]["train_seconds"], "peak_bytes": report["memory"]["peak_bytes"],
            "train_loss": report["training"]["train_loss"]}  # fmt: skip


def peer(task, folder, vectors, seed, given):
    if task == "emoji":
        projected(folder, seed)
    line = run([given.peers, f"{HERE}/peers/pictures.py", "--task", task, "--folder", folder, "--seed", seed,
                "--threads", given.threads, "--output", vectors, *["--same-chance"] * given.same_chance]).splitlines()[-1]  # fmt: skip
    found = json.loads(line)
    return {"seconds": found["train_seconds"], "peak_bytes": found["peak_bytes"], "train_loss": found["train_loss"]}


def embedded(folder):
    return sorted(name[6:-4] for name in os.listdir(folder) if name.startswith("embed-"))


def measured(task, folder, vectors):
    """The metrics of a run, from its embeddings alone."""
    load = {name: unit(numpy.load(f"{vectors}/{name}.npy")) for name in embedded(folder)}
    rows = {name: rows_of(f"{folder}/embed-{name}.csv") for name in load}
    if task == "omniglot":
        with open(f"{folder}/trials.json", encoding="utf-8") as file:
            trials = json.load(file)
        found = [numpy.argmax(load["test"][asked] @ load["test"][shown].T, 1) == numpy.arange(len(asked))
                 for shown, asked in trials]  # fmt: skip
        return {"one_shot": float(numpy.mean(found))}
    if task == "grocery":
        labels = numpy.array([row["label"] for row in rows["test"]])
        scores = load["test"] @ load["test"].T
        numpy.fill_diagonal(scores, -2)
        order = numpy.argsort(-scores, 1, kind="stable")[:, :20]
        hits = labels[order] == labels[:, None]
        relevant = (labels[:, None] == labels[None, :]).sum(1) - 1
        places = numpy.arange(1, 21)
        precision = (hits * numpy.cumsum(hits, 1) / places).sum(1) / numpy.minimum(relevant, 20)
        return {"map@20": float(precision.mean()), "recall@1": float(hits[:, 0].mean())}
    found = {}
    for language in ("en", "de"):
        scores = load[language] @ load["pictures"].T
        places = {row["image"]: at for at, row in enumerate(rows["pictures"])}
        right = numpy.array([places[row["of"]] for row in rows[language]])
        rank = (scores > scores[numpy.arange(len(right)), right][:, None]).sum(1) + 1
        for name, value in (("r@1", rank <= 1), ("r@5", rank <= 5), ("mrr@20", numpy.where(rank <= 20, 1 / rank, 0))):
            found[f"{language} {name}"] = float(value.mean())
    return found


def unit(vectors):
    return vectors / numpy.maximum(numpy.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def prepared(task, given):
    """The data and the first weights of a task, made once and the same for both sides and all seeds."""
    folder = f"{given.work}/{task}"
    if os.path.exists(f"{folder}/settings.json"):
        return folder
    os.makedirs(f"{folder}/initial", exist_ok=True)
    {"omniglot": omniglot, "grocery": grocery, "emoji": emoji}[task](folder, given)
    settings = TASKS[task]
    with open(f"{folder}/initial/preprocessor_config.json", "w", encoding="utf-8") as file:
        side = settings["side"]
        json.dump({"do_resize": True, "size": {"height": side, "width": side}, "resample": 2, "do_rescale": True,
                   "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, file)  # fmt: skip
    with open(f"{folder}/settings.json", "w", encoding="utf-8") as file:
        json.dump(settings, file)
    return folder


def omniglot(folder, given):
    link(f"{given.data}/images/omniglot/images_background_small1", f"{folder}/images_background_small1")
    rows = rows_of(f"{given.data}/images/omniglot/manifest.csv")
    held_out = sorted({row["alphabet"] for row in rows})[-1]
    labelled = [{"image": row["file"], "label": row["character"]} for row in rows if row["alphabet"] != held_out]
    write(f"{folder}/train.csv", labelled)
    test = [row for row in rows if row["alphabet"] == held_out]
    write(f"{folder}/embed-test.csv", [{"image": row["file"]} for row in test])
    places = {(row["character"], row["drawer"]): at for at, row in enumerate(test)}
    characters, drawers = (sorted({row[key] for row in test}) for key in ("character", "drawer"))
    random = numpy.random.default_rng(0)
    trials = []
    for _ in range(100):
        own = random.choice(characters, 20, replace=False)
        shown, asked = random.choice(drawers, 2, replace=False)
        trials.append([[places[character, drawer] for character in own] for drawer in (shown, asked)])
    with open(f"{folder}/trials.json", "w", encoding="utf-8") as file:
        json.dump(trials, file)
    run([given.peers, f"{HERE}/peers/pictures.py", "--task", "omniglot", "--folder", folder, "--initial", f"{folder}/initial"])


def grocery(folder, given):
    link(f"{given.data}/images/grocery/images", f"{folder}/images")
    rows = rows_of(f"{given.data}/images/grocery/manifest.csv")
    classes = sorted({row["class"] for row in rows})
    held_out = set(numpy.random.default_rng(0).permutation(classes)[: len(classes) - 30])
    label = lambda row: {"image": row["file"], "label": row["class"]}  # noqa: E731
    write(f"{folder}/train.csv", [label(row) for row in rows if row["class"] not in held_out and row["split"] == "train"])
    write(f"{folder}/embed-test.csv", [label(row) for row in rows if row["class"] in held_out])
    mobilenet(folder, given)


def emoji(folder, given):
    link(f"{given.data}/image-text/emoji/png", f"{folder}/png")
    link(given.minilm, f"{folder}/text")
    rows = rows_of(f"{given.data}/image-text/emoji/emoji.csv")
    order = numpy.random.default_rng(0).permutation(len(rows))
    held_out = [rows[at] for at in sorted(order[: len(rows) // 10])]
    learnt = [rows[at] for at in sorted(order[len(rows) // 10 :])]
    pairs = [{"text": row[language], "image": row["file"]} for row in learnt for language in ("en", "de") if row[language]]
    write(f"{folder}/train.csv", pairs)
    write(f"{folder}/embed-pictures.csv", [{"image": row["file"]} for row in held_out])
    for language in ("en", "de"):
        named = [{"text": row[language], "of": row["file"]} for row in held_out if row[language]]
        write(f"{folder}/embed-{language}.csv", named)
    mobilenet(folder, given)


def mobilenet(folder, given):
    name = f"{given.data}/weights/mobilenet_v2_1.0_224_quant"
    with open(f"{name}.graph.json", encoding="utf-8") as file:
        config = {"architecture": "graph", **json.load(file)}
    with open(f"{folder}/initial/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    shutil.copyfile(f"{name}.dequant.safetensors", f"{folder}/initial/model.safetensors")


def projected(folder, seed):
    """The image model of a seed: the first weights, and a projection to the width of the texts, which both sides begin with."""
    target = f"{folder}/initial-{seed}"
    if not os.path.exists(f"{target}/2_Dense/model.safetensors"):
        os.makedirs(f"{target}/1_Pooling", exist_ok=True)
        os.makedirs(f"{target}/2_Dense", exist_ok=True)
        for name in os.listdir(f"{folder}/initial"):
            shutil.copyfile(f"{folder}/initial/{name}", f"{target}/{name}")
        wide, narrow = 1280, 384
        kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")]
        modules = [{"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
                   for at, (path, kind) in enumerate(kinds)]  # fmt: skip
        dense = {"in_features": wide, "out_features": narrow, "bias": True, "activation_function": "torch.nn.modules.linear.Identity"}
        pooling = {"word_embedding_dimension": wide, "pooling_mode_mean_tokens": True}
        for name, content in [("modules.json", modules), ("1_Pooling/config.json", pooling), ("2_Dense/config.json", dense)]:
            with open(f"{target}/{name}", "w", encoding="utf-8") as file:
                json.dump(content, file)
        weight = numpy.random.default_rng(int(seed)).normal(scale=(3 * wide) ** -0.5, size=(narrow, wide)).astype(numpy.float32)
        save_file({"linear.weight": weight, "linear.bias": numpy.zeros(narrow, numpy.float32)}, f"{target}/2_Dense/model.safetensors")
    return target


def link(source, target):
    if not os.path.exists(source):
        sys.exit(f"{source} is missing")
    if not os.path.lexists(target):
        os.symlink(os.path.abspath(source), target)


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def table(runs):
    print("| task | metric | peer, each seed | mean | ours, each seed | mean |\n|---|---|---|---|---|---|")
    for task, metrics in METRICS.items():
        for metric in metrics:
            sides = [[run[metric] for run in runs if (run["task"], run["side"]) == (task, side)] for side in ("peer", "ours")]
            if all(sides):
                cells = [f"{', '.join(f'{value:.4f}' for value in own)} | {statistics.mean(own):.4f}" for own in sides]
                print(f"| {task} | {metric} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
