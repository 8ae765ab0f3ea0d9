"""PyTorch + pytorch-metric-learning: one of the recipes of benchmarks/pictures.py, which makes FOLDER.

    python pictures.py --task omniglot --folder FOLDER --seed 1 --output VECTORS

Reads FOLDER/train.csv and FOLDER/settings.json, trains on the batches that Finetuner draws with that seed, and writes the
embeddings of every FOLDER/embed-*.csv as VECTORS/*.npy. Prints one line of JSON. `--initial FOLDER/initial` only writes a
network with random weights, which both sides start from.
"""

import argparse
import csv
import json
import os

import numpy
import torch
from PIL import Image
from safetensors.torch import load_file

import batches
from chance import Dropout
from measure import SAME_CHANCE, Clock, peak_bytes


class Graph(torch.nn.Module):
    """A network that `config.json` lists as operations (converted TensorFlow Lite, batch norm folded), without its classifier."""

    def __init__(self, folder):
        super().__init__()
        with open(f"{folder}/config.json", encoding="utf-8") as file:
            self.ops = json.load(file)["ops"]
        tensors = load_file(f"{folder}/model.safetensors")
        self.weights = torch.nn.ParameterDict()
        for op in self.ops:
            if op["op"] == "AVERAGE_POOL_2D":
                break
            if "param" in op:
                for kind in ("weight", "bias"):
                    name = op["param"].replace(".", "_") + f"_{kind}"
                    self.weights[name] = torch.nn.Parameter(tensors[f"{op['param']}.{kind}"].float())
        self.width = 1280

    def forward(self, x):
        maps = {0: x}
        for op in self.ops:
            own = maps[op["in"][0]]
            if op["op"] == "AVERAGE_POOL_2D":
                return own.mean((2, 3))
            if op["op"] == "ADD":
                y = own + maps[op["in"][1]]
            else:
                name = op["param"].replace(".", "_")
                weight, bias = self.weights[f"{name}_weight"], self.weights[f"{name}_bias"]
                groups = own.shape[1] if op["op"] == "DEPTHWISE_CONV_2D" else 1
                if op["padding"] == "SAME":  # TensorFlow's: what is odd goes to the right and below
                    pads = [max((-(-size // op["stride"]) - 1) * op["stride"] + weight.shape[2] - size, 0) for size in own.shape[2:]]
                    own = torch.nn.functional.pad(own, (pads[1] // 2, -(-pads[1] // 2), pads[0] // 2, -(-pads[0] // 2)))
                y = torch.nn.functional.conv2d(own, weight, bias, stride=op["stride"], groups=groups)
            maps[op["out"][0]] = {0: lambda v: v, 1: torch.relu, 3: torch.nn.functional.relu6}[op["act"]](y)
        raise ValueError("the graph has no features")


class ResNet(torch.nn.Module):
    def __init__(self, folder):
        super().__init__()
        from transformers import ResNetModel

        self.model = ResNetModel.from_pretrained(folder)
        self.width = self.model.config.hidden_sizes[-1]

    def forward(self, x):
        return self.model(x).last_hidden_state.mean((2, 3))


class Pair(torch.nn.Module):
    """A text encoder (mean pooling) and pictures with a projection into its space, new in every seed."""

    def __init__(self, folder, pictures, seed):
        super().__init__()
        from transformers import AutoModel, AutoTokenizer

        self.pictures = pictures
        self.texts = AutoModel.from_pretrained(f"{folder}/text")
        self.tokenizer = AutoTokenizer.from_pretrained(f"{folder}/text")
        self.projection = torch.nn.Linear(pictures.width, self.texts.config.hidden_size)
        new = load_file(f"{folder}/initial-{seed}/2_Dense/model.safetensors")
        self.projection.load_state_dict({name: new[f"linear.{name}"] for name in ("weight", "bias")})

    def text(self, texts):
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(2)
        return (self.texts(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)

    def image(self, pixels):
        return self.projection(self.pictures(pixels))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=["omniglot", "grocery", "emoji"], required=True)
    parser.add_argument("--folder", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output")
    parser.add_argument("--initial")
    parser.add_argument("--same-chance", **SAME_CHANCE)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    if given.initial:
        return initial(given.initial)

    with open(f"{given.folder}/settings.json", encoding="utf-8") as file:
        settings = json.load(file)
    rows = read(f"{given.folder}/train.csv")
    backbone = ResNet(f"{given.folder}/initial") if given.task == "omniglot" else Graph(f"{given.folder}/initial")
    model = Pair(given.folder, backbone, given.seed) if given.task == "emoji" else backbone
    pictures = Pictures(given.folder)
    train = by_pairs if given.task == "emoji" else by_class
    if given.same_chance and given.task == "emoji":
        Dropout(model.texts, given.seed, columns=1)
    model.train()
    with Clock() as clock:
        losses = train(model, rows, pictures, settings, given.seed)
    model.eval()
    os.makedirs(given.output, exist_ok=True)
    with torch.no_grad():
        for name in sorted(os.listdir(given.folder)):
            if name.startswith("embed-"):
                write(model, read(f"{given.folder}/{name}"), pictures, f"{given.output}/{name[6:-4]}.npy")
    last = numpy.mean(losses[-(len(losses) // settings["epochs"]) :])
    print(json.dumps({"train_seconds": clock.seconds, "steps": len(losses), "train_loss": last, "peak_bytes": peak_bytes()}))


def by_class(model, rows, pictures, settings, seed):
    from pytorch_metric_learning.losses import MultiSimilarityLoss

    names = sorted({row["label"] for row in rows})
    labels = [names.index(row["label"]) for row in rows]
    loss = MultiSimilarityLoss()
    size = settings["batch_size"]
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["learning_rate"])
    losses = []
    for epoch in range(settings["epochs"]):
        for batch in batches.m_per_class(labels, size, 4, seed, epoch):
            value = loss(model(pictures([rows[at]["image"] for at in batch])), torch.tensor([labels[at] for at in batch]))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            losses.append(value.item())
    return losses


def by_pairs(model, rows, pictures, settings, seed):
    size = settings["batch_size"]
    groups = [
        {"params": model.texts.parameters(), "lr": settings["learning_rate_text"]},
        {"params": [*model.pictures.parameters(), *model.projection.parameters()], "lr": settings["learning_rate"]},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    losses = []
    for epoch in range(settings["epochs"]):
        for places in batches.shuffled(len(rows), size, seed, epoch):
            batch = [rows[at] for at in places]
            texts = torch.nn.functional.normalize(model.text([row["text"] for row in batch]))
            images = torch.nn.functional.normalize(model.image(pictures([row["image"] for row in batch])))
            logits = 20 * texts @ images.T
            # Another name of the same picture is no negative.
            same = torch.tensor([[one["image"] == other["image"] for other in batch] for one in batch])
            logits = logits.masked_fill(same & ~torch.eye(len(batch), dtype=torch.bool), -1e9)
            value = torch.nn.functional.cross_entropy(logits, torch.arange(len(batch)))
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            losses.append(value.item())
    return losses


class Pictures:
    """Decodes, resizes and normalises as `initial/preprocessor_config.json` says; what was seen is kept."""

    def __init__(self, folder):
        self.folder, self.kept = folder, {}
        with open(f"{folder}/initial/preprocessor_config.json", encoding="utf-8") as file:
            self.side = json.load(file)["size"]["height"]

    def __call__(self, names):
        return torch.stack([self.one(name) for name in names]).float().div(255).sub(0.5).div(0.5)

    def one(self, name):
        if name not in self.kept:
            picture = Image.open(f"{self.folder}/{name}")
            if picture.mode in ("RGBA", "P", "LA"):  # on white
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("RGB").resize((self.side, self.side), Image.Resampling.BILINEAR)
            self.kept[name] = torch.from_numpy(numpy.array(picture)).permute(2, 0, 1)
        return self.kept[name]


def write(model, rows, pictures, path):
    parts = []
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        if "text" in part[0]:
            parts.append(model.text([row["text"] for row in part]))
        else:
            pixels = pictures([row["image"] for row in part])
            parts.append(model.image(pixels) if isinstance(model, Pair) else model(pixels))
    numpy.save(path, torch.cat(parts).numpy())


def initial(folder):
    from transformers import ResNetConfig, ResNetModel

    shape = {"layer_type": "basic", "embedding_size": 32, "hidden_sizes": [32, 64, 128, 256], "depths": [1, 1, 1, 1]}
    ResNetModel(ResNetConfig(**shape)).save_pretrained(folder)


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
