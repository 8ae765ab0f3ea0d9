"""sentence-transformers on examples/packages: in-batch negatives, one epoch; retrieval before and after.

    python packages.py --model FOLDER --data examples/packages [--seed 1]

train.csv and test.csv have the columns id, anchor, positive; index.csv has id, text; a query's document is the one
with its id. Batch 64, rate 5e-5 falling linearly, no warm-up, at most 128 tokens.
"""

import csv
from pathlib import Path

import measure

OPTIONS = dict(
    model=dict(required=True),
    data=dict(required=True, type=Path),
    seed=dict(type=int, default=1),
    warmup=dict(type=float, default=0.0, help="share of the run below 1, else steps (default 0)"),
    max_length=dict(type=int, default=128),
    precision=dict(choices=("f32", "bf16"), default="f32"),
    documents=dict(type=int, default=0, help="encode only so many documents and skip the metrics; 0: all"),
    save=dict(help="keep the tuned model in this folder"),
    same_chance=measure.SAME_CHANCE,
    evaluate=measure.EVALUATE,
)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main():
    given = measure.arguments(__doc__.splitlines()[0], **OPTIONS)
    from sentence_transformers import SentenceTransformer

    from metrics import metrics, rank
    from training import in_batch_negatives

    train, test, index = (rows(given.data / name) for name in ("train.csv", "test.csv", "index.csv"))
    numbers = {row["id"]: number for number, row in enumerate(index)}
    relevant = [{numbers[row["id"]]: 1} for row in test]
    documents = [row["text"] for row in index][: given.documents or None]

    model = SentenceTransformer(given.model, device="cpu")
    model.max_seq_length = given.max_length

    def evaluate():
        model.eval()
        with measure.Clock() as clock:
            found = model.encode(documents, batch_size=32, normalize_embeddings=True)
        if given.documents:
            return clock.seconds, None
        asking = model.encode([row["anchor"] for row in test], batch_size=32, normalize_embeddings=True)
        return clock.seconds, metrics(rank(asking, found, 20), relevant)

    encode_seconds, before = evaluate() if given.evaluate == "both" else (None, None)
    trained = in_batch_negatives(
        model, [(row["anchor"], row["positive"]) for row in train], batch_size=64, learning_rate=5e-5,
        warmup=given.warmup, seed=given.seed, steps=given.steps, precision=given.precision, save=given.save,
        same_chance=given.same_chance,
    )  # fmt: skip
    _, after = (None, None) if given.evaluate == "never" else evaluate()
    measure.report(
        benchmark="packages", seed=given.seed, precision=given.precision, **trained, documents=len(documents),
        encode_seconds=encode_seconds, pretrained=before, finetuned=after,
    )  # fmt: skip


if __name__ == "__main__":
    main()
