"""pytorch-metric-learning on Banking77, one epoch; retrieval before and after.

    python banking77.py --model FOLDER --data FOLDER_WITH_TRAIN_AND_TEST_CSV [--loss ArcFaceLoss] [--seed 1]

By default TripletMarginLoss (margin 0.05) on TripletMarginMiner (margin 0.3, hard); other losses have their default
options and no miner. Batches of 32 classes x 4 texts (losses with class vectors: shuffled texts), Adam at 2e-5 (class
vectors: Adam at 1e-2), the batches that Finetuner draws with that seed. Queries are the test texts, the index is the
training texts.
"""

import csv
from pathlib import Path

import batches as drawn
import measure

OPTIONS = dict(
    model=dict(required=True),
    data=dict(required=True, type=Path),
    seed=dict(type=int, default=1),
    loss=dict(default="TripletMarginLoss", choices=("TripletMarginLoss", "SupConLoss", "MultiSimilarityLoss", "ArcFaceLoss", "ProxyAnchorLoss")),
    max_length=dict(type=int, default=256),
    precision=dict(choices=("f32", "bf16"), default="f32", help="bf16: autocast"),
    texts=dict(type=int, default=0, help="encode only so many texts of each part and skip the metrics; 0: all"),
    save=dict(help="keep the tuned model in this folder"),
    same_chance=measure.SAME_CHANCE,
    evaluate=measure.EVALUATE,
)
BATCH, PER_CLASS = 128, 4


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def main():
    given = measure.arguments(__doc__.splitlines()[0], **OPTIONS)
    import numpy
    import torch
    from pytorch_metric_learning import losses
    from pytorch_metric_learning.miners import TripletMarginMiner
    from sentence_transformers import SentenceTransformer

    from chance import Dropout, class_vectors
    from metrics import metrics, rank

    torch.manual_seed(given.seed)
    train, test = rows(given.data / "train.csv"), rows(given.data / "test.csv")
    names = {name: number for number, name in enumerate(dict.fromkeys(name for _, name in train))}
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

    encode_seconds, before = evaluate() if given.evaluate == "both" else (None, None)

    triplets, classes = given.loss == "TripletMarginLoss", given.loss in ("ArcFaceLoss", "ProxyAnchorLoss")
    options = dict(margin=0.05) if triplets else {}
    if classes:
        options = dict(num_classes=len(names), embedding_size=model.get_embedding_dimension())
        if given.same_chance:
            vectors = torch.from_numpy(class_vectors(
                given.seed, len(names), options["embedding_size"],
                deviation=(2 / len(names)) ** 0.5 if given.loss == "ProxyAnchorLoss" else 1.0,
            ))  # fmt: skip
            options["weight_init_func"] = lambda weight: weight.data.copy_(vectors if weight.shape == vectors.shape else vectors.T)
    loss_function = getattr(losses, given.loss)(**options)
    miner = TripletMarginMiner(margin=0.3, type_of_triplets="hard") if triplets else lambda embeddings, target: None
    optimisers = [torch.optim.Adam(model.parameters(), lr=2e-5)]
    if classes:
        optimisers.append(torch.optim.Adam(loss_function.parameters(), lr=1e-2))
        batches = drawn.shuffled(len(train), BATCH, given.seed)
    else:
        batches = drawn.m_per_class(labels.tolist(), BATCH, PER_CLASS, given.seed)
    if given.steps:
        batches = batches[: given.steps]
    if given.same_chance:
        Dropout(model[0].auto_model, given.seed, columns=1)
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
            for optimiser in optimisers:
                optimiser.zero_grad()
            loss.backward()
            for optimiser in optimisers:
                optimiser.step()
            total += loss.item()
    train_peak = measure.peak_bytes()
    if given.save:
        model.save_pretrained(given.save)
    _, after = (None, None) if given.evaluate == "never" else evaluate()
    measure.report(
        benchmark="banking77", loss=given.loss, seed=given.seed, precision=given.precision, train_seconds=clock.seconds,
        train_steps=len(batches), train_loss=total / len(batches), train_peak_bytes=train_peak,
        encode_seconds=encode_seconds, pretrained=before, finetuned=after,
    )  # fmt: skip


if __name__ == "__main__":
    main()
