"""Writes metrics.json: random rankings with the metrics that trusted tools give them.

    pip install pytrec-eval-terrier==0.5.11 ranx==0.3.21 sentence-transformers==6.2.0 scipy==1.17.1
    python metrics.py

Every query's ranking is without ties and may be shorter than k; grades run from 0 (judged, not relevant) to 3; some
queries have more than k relevant documents, some find none of them. sentence-transformers knows no grades: for it a
document is relevant or not, so its ndcg stands only where all grades are 1.
"""

import json
import random
from pathlib import Path

import pytrec_eval
import ranx
from scipy import stats
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

K = 20
DOCUMENTS = 120


def random_query(number, generator):
    documents = list(range(DOCUMENTS))
    generator.shuffle(documents)
    judged = generator.choice([1, 2, 3, 5, 10, 19, 20, 21, 35, 60])
    top_grade = 1 if number % 3 == 0 else 3
    relevant = {document: generator.randint(1, top_grade) for document in documents[:judged]}
    for document in documents[judged : judged + 5]:
        relevant[document] = 0 if number % 2 else relevant.get(document, 1)
    # Relevant documents tend to the front, by an amount that differs between queries.
    pull = generator.random()
    ranking = sorted(range(DOCUMENTS), key=lambda d: generator.random() - pull * (relevant.get(d, 0) > 0))
    if number % 10 == 7:  # nothing relevant retrieved
        ranking = [document for document in ranking if relevant.get(document, 0) == 0]
    return ranking[: generator.choice([1, 5, 12, 20, 40, 70])], relevant


def scores(ranking):
    """Falling scores without ties."""
    return {str(document): 1000.0 - rank for rank, document in enumerate(ranking)}


def by_pytrec_eval(ranking, relevant):
    qrels = {"q": {str(document): grade for document, grade in relevant.items()}}
    measures = {"recall.20", "P.1,20", "success.20", "ndcg_cut.10,20", "map_cut.20", "Rprec"}
    found = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate({"q": scores(ranking)})["q"]
    first = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}).evaluate({"q": scores(ranking[:K])})["q"]
    return {
        "mrr": first["recip_rank"],
        "recall": found["recall_20"],
        "map_by_relevant": found["map_cut_20"],
        "ndcg": found["ndcg_cut_20"],
        "ndcg_at_10": found["ndcg_cut_10"],
        "precision": found["P_20"],
        "hit_rate": found["success_20"],
        "r_precision": found["Rprec"],
        "accuracy_at_1": found["P_1"],
    }


def by_ranx(ranking, relevant):
    names = {
        "mrr@20": "mrr",
        "recall@20": "recall",
        "map@20": "map_by_relevant",
        "ndcg@20": "ndcg",
        "ndcg@10": "ndcg_at_10",
        "precision@20": "precision",
        "hit_rate@20": "hit_rate",
        "f1@20": "f1",
        "r-precision": "r_precision",
        "hit_rate@1": "accuracy_at_1",
    }
    qrels = ranx.Qrels({"q": {str(document): grade for document, grade in relevant.items()}})
    found = ranx.evaluate(qrels, ranx.Run({"q": scores(ranking)}), list(names))
    return {names[name]: float(value) for name, value in found.items()}


def by_sentence_transformers(ranking, relevant):
    matching = {str(document) for document, grade in relevant.items() if grade > 0}
    evaluator = InformationRetrievalEvaluator(
        {"q": "query"},
        {str(document): "document" for document in range(DOCUMENTS)},
        {"q": matching},
        mrr_at_k=[K],
        ndcg_at_k=[10, K],
        accuracy_at_k=[1, K],
        precision_recall_at_k=[K],
        map_at_k=[K],
    )
    hits = [{"corpus_id": document, "score": score} for document, score in scores(ranking).items()]
    found = evaluator.compute_metrics([hits])
    metrics = {
        "mrr": found["mrr@k"][K],
        "recall": found["recall@k"][K],
        "map": found["map@k"][K],
        "precision": found["precision@k"][K],
        "hit_rate": found["accuracy@k"][K],
        "accuracy_at_1": found["accuracy@k"][1],
    }
    if max(relevant.values()) == 1:
        metrics |= {"ndcg": found["ndcg@k"][K], "ndcg_at_10": found["ndcg@k"][10]}
    return {name: float(value) for name, value in metrics.items()}


def correlation(generator):
    x = [round(generator.uniform(-1, 1), 2) for _ in range(60)]
    y = [min(5, max(0, round(2.5 + 2 * value + generator.gauss(0, 1)))) for value in x]  # many ties
    return {
        "pairs": list(zip(x, y)),
        "pearson": float(stats.pearsonr(x, y).statistic),
        "spearman": float(stats.spearmanr(x, y).statistic),
    }


def main():
    generator = random.Random(7)
    queries = []
    for number in range(40):
        ranking, relevant = random_query(number, generator)
        queries.append(
            {
                "ranking": ranking,
                "relevant": sorted(relevant.items()),
                "pytrec_eval": by_pytrec_eval(ranking, relevant),
                "ranx": by_ranx(ranking, relevant),
                "sentence_transformers": by_sentence_transformers(ranking, relevant),
            }
        )
    golden = {"k": K, "queries": queries, "correlation": [correlation(generator) for _ in range(3)]}
    lines = ",\n".join(json.dumps(query) for query in queries)
    head = json.dumps({"k": K, "correlation": golden["correlation"]})[:-1]
    Path(__file__).with_name("metrics.json").write_text(f'{head},\n"queries": [\n{lines}\n]}}\n')


main()
