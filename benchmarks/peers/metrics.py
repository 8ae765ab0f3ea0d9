"""Retrieval metrics in the standard definition, averaged over the queries that have a relevant document.

    mrr@k     1 / rank of the first relevant document in the top k, else 0
    recall@k  relevant in the top k / relevant
    map@k     mean over the relevant in the top k of the precision at their rank, divided by min(k, relevant)
    ndcg@k    gain = grade, discount log2(rank + 1), divided by the best possible

`python metrics.py` compares them with pytrec_eval and ranx on random rankings.
"""

import numpy


def rank(queries, index, k, block=256):
    """[queries, k] indices of the nearest rows by dot product, best first; ties by position."""
    best = numpy.empty((len(queries), min(k, len(index))), dtype=numpy.int64)
    for start in range(0, len(queries), block):
        scores = queries[start : start + block] @ index.T
        nearest = numpy.argsort(-scores, axis=1, kind="stable")[:, :k]
        best[start : start + block] = nearest
    return best


def metrics(ranking, relevant, k=20, k_ndcg=10):
    """ranking [queries, >= k] of document numbers; relevant: for each query {document number: grade > 0}."""
    rows = []
    for found, wanted in zip(ranking, relevant, strict=True):
        if not wanted:
            continue
        grades = numpy.array([wanted.get(int(document), 0) for document in found], dtype=float)
        hits = grades[:k] > 0
        ranks = numpy.arange(1, len(hits) + 1)
        ideal = numpy.sort(numpy.array(list(wanted.values()), dtype=float))[::-1][:k_ndcg]
        discounted = (grades[:k_ndcg] / numpy.log2(numpy.arange(2, len(grades[:k_ndcg]) + 2))).sum()
        best = (ideal / numpy.log2(numpy.arange(2, len(ideal) + 2))).sum()
        rows.append(
            (
                1 / (hits.argmax() + 1) if hits.any() else 0.0,
                hits.sum() / len(wanted),
                (hits.cumsum() / ranks * hits).sum() / min(k, len(wanted)),
                discounted / best,
                float(hits[0]),
            )
        )
    names = (f"mrr@{k}", f"recall@{k}", f"map@{k}", f"ndcg@{k_ndcg}", "accuracy@1")
    return dict(zip(names, numpy.mean(rows, axis=0).tolist(), strict=True))


def check():
    import pytrec_eval
    import ranx

    random = numpy.random.default_rng(5)
    queries, documents = 40, 90
    scores = random.standard_normal((queries, documents))
    ranking = numpy.argsort(-scores, axis=1)
    relevant = [
        {int(d): int(random.integers(1, 4)) for d in random.choice(documents, random.integers(1, 15), replace=False)}
        for _ in range(queries)
    ]
    ours = metrics(ranking, relevant)
    qrels = {f"q{q}": {f"d{d}": grade for d, grade in wanted.items()} for q, wanted in enumerate(relevant)}
    run = {f"q{q}": {f"d{d}": float(row[d]) for d in range(documents)} for q, row in enumerate(scores)}
    trec = pytrec_eval.RelevanceEvaluator(qrels, {"map_cut.20", "recall.20", "ndcg_cut.10"}).evaluate(run)
    theirs = {
        name: numpy.mean([row[key] for row in trec.values()])
        for name, key in (("map@20", "map_cut_20"), ("recall@20", "recall_20"), ("ndcg@10", "ndcg_cut_10"))
    }
    theirs["mrr@20"] = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), "mrr@20")
    for name, value in theirs.items():
        print(name, ours[name], value)
        assert abs(ours[name] - value) < 1e-12, name


if __name__ == "__main__":
    check()
