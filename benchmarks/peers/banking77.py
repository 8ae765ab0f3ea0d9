"""pytorch-metric-learning on Banking77: triplets mined in class-balanced batches, one epoch; retrieval before, after.

    python banking77.py --model FOLDER --data FOLDER_WITH_TRAIN_AND_TEST_CSV [--seed 1]

TripletMarginLoss (margin 0.05) on TripletMarginMiner (margin 0.3, hard), both with their default distance; batches of
32 classes x 4 texts, Adam at 2e-5, 78 batches. Queries are the test texts, the index is the training texts.
"""

import csv
from pathlib import Path

import measure

OPTIONS = dict(
    model=dict(required=True),
    data=dict(required=True, type=Path),
    seed=dict(type=int, default=1),
    max_length=dict(type=int, default=256),
    precision=dict(choices=("f32", "bf16"), default="f32", help="bf16: autocast"),
    texts=dict(type=int, default=0, help="encode only so many texts of each part and skip the metrics; 0: all"),
    save=dict(help="keep the tuned model in this folder"),
)
BATCH, PER_CLASS = 128, 4


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def main():
    given = measure.arguments(__doc__.splitlines()[0], **OPTIONS)
    import numpy
    import torch
    from pytorch_metric_learning.losses import TripletMarginLoss
    from pytorch_metric_learning.miners import TripletMarginMiner
    from pytorch_metric_learning.samplers import MPerClassSampler
    from sentence_transformers import SentenceTransformer

    from metrics import metrics, rank

    torch.manual_seed(given.seed)
    numpy.random.seed(given.seed)
    train, test = rows(given.data / "train.csv"), rows(given.data / "test.csv")
    names = {name: number for number, name in enumerate(sorted({name for _, name in train}))}
    labels = numpy.array([names[name] for _, name in train])
    members = [{int(row): 1 for row in numpy.flatnonzero(labels == number)} for number in range(len(names))]
    relevant = [members[names[name]] for _, name in test]

    model = SentenceTransformer(given.model, device="cpu")
    model.max_seq_length = given.max_length

    def evaluate():
        model.eval()
        with measure.Clock() as clock:
            index, asking = (
                model.encode([text for text, _ in part][: given.texts or None], batch_size=32, normalize_embeddings=True)
                for part in (train, test)
            )
        return clock.seconds, None if given.texts else metrics(rank(asking, index, 20), relevant)

    encode_seconds, before = evaluate()

    loss_function = TripletMarginLoss(margin=0.05)
    miner = TripletMarginMiner(margin=0.3, type_of_triplets="hard")
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-5)
    sampler = MPerClassSampler(labels, m=PER_CLASS, batch_size=BATCH, length_before_new_iter=len(train))
    order = list(sampler)
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    if given.steps:
        batches = batches[: given.steps]
    model.train()
    with measure.Clock() as clock:
        total = 0.0
        for batch in batches:
            features = model.preprocess([train[row][0] for row in batch])
            with torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bf16"):
                embeddings = model(features)["sentence_embedding"]
            target = torch.tensor(labels[batch])
            embeddings = embeddings.float()
            loss = loss_function(embeddings, target, miner(embeddings, target))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.item()
    train_peak = measure.peak_bytes()
    if given.save:
        model.save_pretrained(given.save)
    _, after = evaluate()
    measure.report(
        benchmark="banking77", seed=given.seed, precision=given.precision, train_seconds=clock.seconds,
        train_steps=len(batches), train_loss=total / len(batches), train_peak_bytes=train_peak,
        encode_seconds=encode_seconds, pretrained=before, finetuned=after,
    )  # fmt: skip


if __name__ == "__main__":
    main()
