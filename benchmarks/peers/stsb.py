"""sentence-transformers on STS-b: scored pairs, or texts alone (SimCSE), one epoch; Spearman's correlation on the test part.

    python stsb.py --model FOLDER --data FOLDER_OF_STSB [--loss AnglELoss] [--texts FILE --limit 10000] [--seed 1]

Batch 32 (SimCSE: 64), rate 2e-5, 10 % warm-up, at most 128 tokens.
"""

import csv
from pathlib import Path

import measure

OPTIONS = dict(
    model=dict(required=True),
    data=dict(required=True, type=Path),
    seed=dict(type=int, default=1),
    precision=dict(choices=("f32", "bf16"), default="f32"),
    loss=dict(default="CoSENTLoss", choices=("CoSENTLoss", "AnglELoss", "CosineSimilarityLoss")),
    texts=dict(type=Path, help="learn from these texts alone, two dropout views each"),
    limit=dict(type=int, default=10000, help="so many of the texts"),
    save=dict(help="keep the tuned model in this folder"),
    same_chance=measure.SAME_CHANCE,
    evaluate=measure.EVALUATE,
)


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(first, second, float(score)) for first, second, score in csv.reader(file)]


def main():
    given = measure.arguments(__doc__.splitlines()[0], **OPTIONS)
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer import losses
    from training import train

    model = SentenceTransformer(given.model, device="cpu")
    model.max_seq_length = 128
    train_rows, test = rows(given.data / "stsb-en-train.csv"), rows(given.data / "stsb-en-test.csv")

    def evaluate():
        model.eval()
        first, second = (
            model.encode([row[column] for row in test], batch_size=32, normalize_embeddings=True) for column in (0, 1)
        )
        return {"spearman": float(spearmanr((first * second).sum(axis=1), [row[2] for row in test]).statistic)}

    before = evaluate()
    if given.texts:
        with open(given.texts, encoding="utf-8") as file:
            texts = [line.strip() for line in file][: given.limit]
        columns, batch_size = {"anchor": texts, "positive": texts}, 64
        loss = losses.MultipleNegativesRankingLoss(model, scale=20.0)
    else:
        first, second, scores = zip(*train_rows)
        columns, batch_size = {"first": first, "second": second, "score": [score / 5 for score in scores]}, 32
        loss = getattr(losses, given.loss)(model)
    trained = train(
        model, columns, loss, batch_size=batch_size, learning_rate=2e-5, warmup=0.1, seed=given.seed, steps=given.steps,
        precision=given.precision, save=given.save, same_chance=given.same_chance,
    )  # fmt: skip
    measure.report(
        benchmark="stsb", loss="SimCSE" if given.texts else given.loss, seed=given.seed, precision=given.precision, **trained, pretrained=before,
        finetuned=None if given.evaluate == "never" else evaluate(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
