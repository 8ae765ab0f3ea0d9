"""sentence-transformers on SciFact: 919 training pairs, in-batch negatives, one epoch; retrieval before and after.

    python scifact.py --model FOLDER --data BEIR_FOLDER [--seed 1]

The folder holds corpus.jsonl, queries.jsonl, qrels_train.tsv and qrels_test.tsv (or qrels/train.tsv, qrels/test.tsv).
A document's text is its title, a space and its abstract. Batch 32, rate 2e-5, 10 % warm-up, at most 256 tokens.
"""

import csv
import json
from pathlib import Path

import measure

OPTIONS = dict(
    model=dict(required=True),
    data=dict(required=True, type=Path),
    seed=dict(type=int, default=1),
    precision=dict(choices=("f32", "bf16"), default="f32"),
    documents=dict(type=int, default=0, help="encode only so many documents and skip the metrics; 0: all"),
    save=dict(help="keep the tuned model in this folder"),
    same_chance=measure.SAME_CHANCE,
    evaluate=measure.EVALUATE,
    negatives=dict(type=Path, help="train on this CSV of anchor, positive and negatives instead"),
    margins=dict(action="store_true", help="MarginMSELoss, of the column `margin` in that CSV"),
    guide=dict(help="GISTEmbedLoss with this model as the guide"),
    matryoshka=dict(action="store_true", help="MatryoshkaLoss over 384, 256, 128 and 64 dimensions"),
)


def lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def qrels(folder, split):
    path = folder / f"qrels_{split}.tsv"
    with open(path if path.exists() else folder / "qrels" / f"{split}.tsv", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t"))[1:]
    return [(query, document, int(score)) for query, document, score in rows if int(score) > 0]


def texts(folder):
    """The text of each document and of each query."""
    corpus = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in lines(folder / "corpus.jsonl")}
    return corpus, {row["_id"]: row["text"] for row in lines(folder / "queries.jsonl")}


def main():
    given = measure.arguments(__doc__.splitlines()[0], **OPTIONS)
    import numpy
    from sentence_transformers import SentenceTransformer

    from metrics import metrics, rank
    from sentence_transformers.sentence_transformer import losses
    from training import train as train_on

    corpus, queries = texts(given.data)
    train, test = qrels(given.data, "train"), qrels(given.data, "test")
    numbers = {name: number for number, name in enumerate(corpus)}
    asked = list(dict.fromkeys(query for query, _, _ in test))
    relevant = {query: {} for query in asked}
    for query, document, score in test:
        relevant[query][numbers[document]] = score

    judged = [relevant[query] for query in asked]

    model = SentenceTransformer(given.model, device="cpu")
    model.max_seq_length = 256
    documents = list(corpus.values())[: given.documents or None]

    def evaluate():
        model.eval()
        with measure.Clock() as clock:
            index = model.encode(documents, batch_size=32)
        if given.documents:
            return clock.seconds, None
        asking = model.encode([queries[query] for query in asked], batch_size=32)
        widths = (64, 128, 256) if given.matryoshka else ()
        found = {width: metrics(rank(cut(asking, width), cut(index, width), 20), judged) for width in (*widths, 384)}
        return clock.seconds, {**found[384], **{f"ndcg@10 of {width}": found[width]["ndcg@10"] for width in widths}}

    def cut(embeddings, width):
        part = embeddings[:, :width]
        return part / numpy.linalg.norm(part, axis=1, keepdims=True)

    encode_seconds, before = evaluate() if given.evaluate == "both" else (None, None)
    encode_peak = measure.peak_bytes()
    columns = {"anchor": [queries[query] for query, _, _ in train], "positive": [corpus[name] for _, name, _ in train]}
    if given.negatives:
        with open(given.negatives, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [row[name] for row in rows] for name in rows[0] if name != "margin"}
    loss = losses.MultipleNegativesRankingLoss(model, scale=20.0)
    if given.margins:
        columns["label"] = [float(row["margin"]) for row in rows]
        loss = losses.MarginMSELoss(model)
    if given.guide:
        loss = losses.GISTEmbedLoss(model, SentenceTransformer(given.guide, device="cpu"))
    if given.matryoshka:
        loss = losses.MatryoshkaLoss(model, loss, [384, 256, 128, 64])
    trained = train_on(
        model, columns, loss, batch_size=32, learning_rate=2e-5, warmup=0.1, seed=given.seed, steps=given.steps,
        precision=given.precision, save=given.save, same_chance=given.same_chance,
    )  # fmt: skip
    _, after = (None, None) if given.evaluate == "never" else evaluate()
    measure.report(
        benchmark="scifact", seed=given.seed, precision=given.precision, **trained, documents=len(documents),
        encode_seconds=encode_seconds, encode_peak_bytes=encode_peak, pretrained=before, finetuned=after,
    )  # fmt: skip


if __name__ == "__main__":
    main()
