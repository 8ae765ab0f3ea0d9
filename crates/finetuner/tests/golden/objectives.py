"""Golden values, gradients and mined tuples of the objectives, from pytorch-metric-learning and sentence-transformers.

Writes objectives.json and objectives.safetensors beside this file. Run it with the environment of
benchmarks/peers/requirements.txt:

    python objectives.py

Everything is float64. objectives.json:

    versions   {package: version}
    inputs     {set: {"rows", "dimensions", "labels": {name: [class of each row]}, "scores": {name: [number]}}}
               its tensors are input.<set>.x, .u, .n in objectives.safetensors, F64 [rows, dimensions]
    losses     [{"name": unique, "library", "input", "labels" or "scores": name in the set, "loss", "loss_options",
                 "distance": {"name": cosine | l2 | dot, other options}, "reducer": {"name", other options},
                 "miner": null or {"name", "options", "distance"}, "columns": ["x", "u", "n"] (those used),
                 "value", "gradient_norm": {column: Frobenius norm}}]
               the gradients are gradient.<name>.<column> in objectives.safetensors, F64 like the input
    miners     [{"name", "input", "labels", "miner": {"name", "options", "distance"}, "kind": "triplets" | "pairs",
                 "triplets" or "positives" and "negatives": sorted index lists, "counts"}]
               lists longer than LISTED tuples are left out; the counts always stand

`reducer` and `distance` say what was used, whether it is the loss's default or not. A miner measures with its own
`distance`. Where a loss has no valid tuple, value and gradient are 0.
"""

import itertools
import json
import logging
import math
from importlib.metadata import version
from pathlib import Path

import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer import losses as sentence_losses
from sentence_transformers.util import dot_score, pairwise_cos_sim

logging.disable(logging.WARNING)
torch.set_num_threads(1)
HERE = Path(__file__).parent
LISTED = 200


def table(rows, dimensions, formula):
    return torch.tensor(
        [[formula(i, j) for j in range(1, dimensions + 1)] for i in range(1, rows + 1)], dtype=torch.float64
    )


def input_sets():
    generator = torch.Generator().manual_seed(7)

    def normal():
        return torch.randn(24, 8, generator=generator, dtype=torch.float64)

    # Class 5 has a single item; the sizes 7, 6, 4, 3, 3, 1 are unequal and the rows unsorted.
    classes = torch.tensor([0] * 7 + [1] * 6 + [2] * 4 + [3] * 3 + [4] * 3 + [5])
    classes = classes[torch.randperm(24, generator=generator)]
    centres = torch.randn(6, 8, generator=generator, dtype=torch.float64)
    x = normal() + centres[classes]
    return {
        "waves": {
            "x": table(8, 4, lambda i, j: math.sin(0.9 * i + 1.7 * j + 0.3 * i * j)),
            "u": table(8, 4, lambda i, j: math.cos(0.5 * i + 1.1 * j + 0.2 * i * j)),
            "n": table(8, 4, lambda i, j: math.sin(0.4 * i + 0.6 * j - 0.25 * i * j)),
            "labels": {
                "classes": [0, 0, 1, 1, 2, 2, 0, 1],
                "one": [3] * 8,
                "distinct": list(range(8)),
                "one_pair": [0, 1, 2, 3, 3, 4, 5, 6],
            },
            "scores": {"graded": [((3 * i) % 8) / 7 for i in range(8)], "binary": [float(i % 2) for i in range(8)]},
        },
        "random": {
            "x": x,
            "u": 0.7 * x + normal(),
            "n": normal(),
            "labels": {"classes": classes.tolist()},
            # Steps of 1/4: many ties, and exact in binary.
            "scores": {"graded": (torch.randint(0, 5, (24,), generator=generator) / 4).tolist()},
        },
    }


def distance_of(record):
    options = {key: value for key, value in record.items() if key != "name"}
    kinds = {"cosine": distances.CosineSimilarity, "l2": distances.LpDistance, "dot": distances.DotProductSimilarity}
    return kinds[record["name"]](**options)


def reducer_of(record):
    options = {key: value for key, value in record.items() if key != "name"}
    kinds = {
        "mean": reducers.MeanReducer,
        "sum": reducers.SumReducer,
        "avg_non_zero": reducers.AvgNonZeroReducer,
        "threshold": reducers.ThresholdReducer,
    }
    return kinds[record["name"]](**options)


def miner_of(record):
    return getattr(miners, record["name"])(distance=distance_of(record["distance"]), **record["options"])


COSINE = {"name": "cosine"}
L2 = {"name": "l2", "normalize_embeddings": True, "p": 2, "power": 1}
DOT = {"name": "dot", "normalize_embeddings": True}
SQUARED = {**L2, "power": 2}
RAW_L2 = {**L2, "normalize_embeddings": False}
RAW_DOT = {"name": "dot", "normalize_embeddings": False}
DISTANCES = {"cosine": COSINE, "l2": L2, "dot": DOT, "squared": SQUARED, "raw_l2": RAW_L2, "raw_dot": RAW_DOT}
REDUCERS = {
    "mean": {"name": "mean"},
    "sum": {"name": "sum"},
    "avg_non_zero": {"name": "avg_non_zero"},
    "threshold": {"name": "threshold", "low": 0.2, "high": 1.1},
    "threshold_low": {"name": "threshold", "low": 0.3},
}
DEFAULTS = {  # loss: (distance, reducer)
    "TripletMarginLoss": ("l2", "avg_non_zero"),
    "ContrastiveLoss": ("l2", "avg_non_zero"),
    "NTXentLoss": ("cosine", "mean"),
    "SupConLoss": ("cosine", "avg_non_zero"),
}
FAMILY = {
    "TripletMarginLoss": [{"margin": 0.05}, {"margin": 0.3}, {"swap": True}, {"smooth_loss": True},
                          {"margin": 0.2, "swap": True, "smooth_loss": True}],
    "ContrastiveLoss": [{}, {"pos_margin": 0.1, "neg_margin": 0.7}],
    "NTXentLoss": [{}, {"temperature": 0.5}],
    "SupConLoss": [{}, {"temperature": 0.5}],
}  # fmt: skip
# Contrastive margins are distances or similarities: these suit the inverted distances.
SIMILARITY_MARGINS = {"pos_margin": 0.9, "neg_margin": 0.2}

MINERS = [
    {"name": "TripletMarginMiner", "options": {"margin": 0.3, "type_of_triplets": kind}}
    for kind in ("all", "hard", "semihard", "easy")
]
MINERS.append({"name": "BatchHardMiner", "options": {}})
STRATEGIES = ("easy", "semihard", "hard", "all")
MINERS += [
    {"name": "BatchEasyHardMiner", "options": {"pos_strategy": positive, "neg_strategy": negative}}
    for positive, negative in itertools.product(STRATEGIES, STRATEGIES)
    if "semihard" not in (positive, negative) or (positive != negative and "all" not in (positive, negative))
]
RANGED = {
    "name": "BatchEasyHardMiner",
    "options": {
        "pos_strategy": "hard",
        "neg_strategy": "hard",
        "allowed_pos_range": [0.2, 1.1],
        "allowed_neg_range": [0.6, 1.3],
    },
}

# Values and Frobenius norms of the gradient in x found before with the same libraries: main() compares.
RANKING = "MultipleNegativesRankingLoss/scale=20"
PUBLISHED = {
    "TripletMarginLoss/margin=0.05/l2/avg_non_zero/waves/classes": (0.636512114, 0.387094773),
    "TripletMarginLoss/swap=True/l2/avg_non_zero/waves/classes": (0.805777194, 0.475305982),
    "TripletMarginLoss/smooth_loss=True/l2/avg_non_zero/waves/classes": (0.876467791, 0.237515072),
    "ContrastiveLoss/l2/avg_non_zero/waves/classes": (2.132902158, 0.888088974),
    "NTXentLoss/cosine/mean/waves/classes": (16.018194298, 8.726296309),
    "SupConLoss/cosine/avg_non_zero/waves/classes": (10.774102535, 6.882306103),
    f"{RANKING},directions=query_to_doc,partition_mode=joint/cosine/waves/xu": (18.505516169, 5.241792831),
    f"{RANKING},directions=query_to_doc,partition_mode=joint/cosine/waves/xun": (18.505539117, 5.241733829),
    f"{RANKING},directions=query_to_doc+doc_to_query,partition_mode=per_direction/cosine/waves/xu": (
        18.241318259, 5.255460702,
    ),
    f"{RANKING},directions=query_to_doc+query_to_query+doc_to_query+doc_to_doc,partition_mode=joint/cosine/waves/xun": (
        20.099698649, 4.888419982,
    ),
    f"{RANKING},hardness_mode=hard_negatives,hardness_strength=5/cosine/waves/xun": (18.505542736, 5.241731956),
    "CoSENTLoss/scale=20/waves/graded": (28.613121494, 18.016628936),
    "CosineSimilarityLoss/waves/graded": (0.600760566, 0.363471482),
}  # fmt: skip


def joined(options):
    words = (f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in options.items())
    return ",".join(words)


def miner_name(record):
    options = record["options"]
    words = options.get("type_of_triplets") or "-".join(
        options[key] for key in ("pos_strategy", "neg_strategy") if key in options
    )
    return record["name"] + (f"({words})" if words else "") + ("ranged" if "allowed_pos_range" in options else "")


def metric_cases(sets):
    """(input, labels, loss, loss options, distance, reducer, miner or None)"""
    for loss, variants in FAMILY.items():
        distance, reducer = DEFAULTS[loss]
        for name in sets:
            for options in variants:
                yield name, "classes", loss, options, distance, reducer, None
            for other in DISTANCES:
                if other != distance:
                    inverted = loss == "ContrastiveLoss" and other in ("cosine", "dot", "raw_dot")
                    yield name, "classes", loss, SIMILARITY_MARGINS if inverted else {}, other, reducer, None
        for other in REDUCERS:
            if other != reducer:
                yield "random", "classes", loss, {}, distance, other, None
        for labels in ("one", "distinct", "one_pair"):
            yield "waves", labels, loss, {}, distance, reducer, None
        for miner in MINERS:
            for miner_distance in ("l2", "cosine"):
                if miner_distance == "cosine" and loss not in ("TripletMarginLoss", "NTXentLoss"):
                    continue
                record = {**miner, "distance": DISTANCES[miner_distance]}
                yield "random", "classes", loss, {}, distance, reducer, record
    # The Banking77 recipe, and a miner that leaves nothing.
    hard = {"name": "TripletMarginMiner", "options": {"margin": 0.3, "type_of_triplets": "hard"}}
    for name in sets:
        yield name, "classes", "TripletMarginLoss", {"margin": 0.05}, "cosine", "avg_non_zero", {
            **hard, "distance": COSINE,
        }  # fmt: skip
    yield "waves", "distinct", "TripletMarginLoss", {}, "l2", "avg_non_zero", {**hard, "distance": L2}


def ranking_cases(sets):
    """(input, columns, loss options, similarity)"""
    four = ["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
    directions = [["query_to_doc"], ["query_to_doc", "doc_to_query"], ["query_to_doc", "query_to_query"],
                  ["query_to_doc", "doc_to_doc"], four]  # fmt: skip
    for name in sets:
        for columns in (["x", "u"], ["x", "u", "n"]):
            for chosen in directions:
                yield name, columns, {"scale": 20.0, "directions": chosen, "partition_mode": "joint"}, "cosine"
            for chosen in directions[:2]:
                yield name, columns, {"scale": 20.0, "directions": chosen, "partition_mode": "per_direction"}, "cosine"
            for mode, strength in (("in_batch_negatives", 9.0), ("hard_negatives", 5.0), ("all_negatives", 5.0)):
                yield name, columns, {"scale": 20.0, "hardness_mode": mode, "hardness_strength": strength}, "cosine"
            yield name, columns, {"scale": 1.0}, "dot"
            yield name, columns, {"scale": 2.5}, "cosine"
        yield name, ["x", "u", "n", "u"], {"scale": 5.0}, "cosine"


class Record:
    """Collects cases: their description for the JSON file, their gradients for the safetensors file."""

    def __init__(self, sets):
        self.sets, self.cases, self.tensors = sets, [], {}

    def loss(self, name, compute, input, columns, **description):
        leaves = {column: self.sets[input][column].clone().requires_grad_() for column in sorted(set(columns))}
        value = compute([leaves[column] for column in columns])
        value.backward()
        assert torch.isfinite(value), name
        assert name not in (case["name"] for case in self.cases), name
        norms = {}
        for column, leaf in leaves.items():
            self.tensors[f"gradient.{name}.{column}"] = leaf.grad
            norms[column] = leaf.grad.norm().item()
        self.cases.append(
            {"name": name, **description, "input": input, "columns": columns,
             "value": value.item(), "gradient_norm": norms}
        )  # fmt: skip


def collect(sets):
    record = Record(sets)
    for name, labels, loss, options, distance, reducer, miner in metric_cases(sets):
        label = torch.tensor(sets[name]["labels"][labels])

        def compute(columns):
            (x,) = columns
            function = getattr(losses, loss)(
                distance=distance_of(DISTANCES[distance]), reducer=reducer_of(REDUCERS[reducer]), **options
            )
            return function(x, label, miner_of(miner)(x, label) if miner else None)

        words = [loss, joined(options), distance, reducer, name, labels]
        if miner:
            words += [miner_name(miner), miner["distance"]["name"]]
        record.loss(
            "/".join(word for word in words if word), compute, name, ["x"], library="pytorch-metric-learning",
            labels=labels, loss=loss, loss_options=options, distance=DISTANCES[distance], reducer=REDUCERS[reducer],
            miner=miner,
        )  # fmt: skip

    for name, columns, options, similarity in ranking_cases(sets):
        extra = {"similarity_fct": dot_score} if similarity == "dot" else {}
        given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
        function = sentence_losses.MultipleNegativesRankingLoss(None, **given, **extra)
        short = {key: "+".join(value) if isinstance(value, list) else value for key, value in options.items()}
        record.loss(
            "/".join(["MultipleNegativesRankingLoss", joined(short), similarity, name, "".join(columns)]),
            lambda embeddings: function.compute_loss_from_embeddings(embeddings, None), name, columns,
            library="sentence-transformers", labels=None, loss="MultipleNegativesRankingLoss", loss_options=options,
            distance=RAW_DOT if similarity == "dot" else COSINE, reducer=REDUCERS["mean"], miner=None,
        )  # fmt: skip

    for loss, variants in (("CosineSimilarityLoss", [{}]), ("CoSENTLoss", [{"scale": 20.0}, {"scale": 2.0}])):
        for name, scores in (("waves", "graded"), ("waves", "binary"), ("random", "graded")):
            for options in variants:
                # sentence-transformers rounds CosineSimilarityLoss's scores to float32; here they stay float64.
                target = torch.tensor(sets[name]["scores"][scores], dtype=torch.float64)

                def compute(embeddings):
                    if loss == "CosineSimilarityLoss":
                        return torch.nn.functional.mse_loss(pairwise_cos_sim(*embeddings), target)
                    function = sentence_losses.CoSENTLoss(None, **options)
                    return function.compute_loss_from_embeddings(embeddings, target)

                if loss == "CosineSimilarityLoss":
                    function = sentence_losses.CosineSimilarityLoss(None)
                    pair = [sets[name]["x"], sets[name]["u"]]
                    theirs = function.compute_loss_from_embeddings(pair, target)
                    assert abs(theirs - compute(pair)) < 1e-7, (theirs, compute(pair))
                words = [loss, joined(options), name, scores]
                record.loss(
                    "/".join(word for word in words if word), compute, name, ["x", "u"],
                    library="sentence-transformers", scores=scores, loss=loss, loss_options=options, distance=COSINE,
                    reducer=REDUCERS["mean"], miner=None,
                )  # fmt: skip
    return record


def mine(sets):
    cases = []
    for name, miner, distance in itertools.product(sets, [*MINERS, RANGED], ("l2", "cosine", "dot")):
        if miner is RANGED and distance != "l2":
            continue
        record = {**miner, "distance": DISTANCES[distance]}
        label = torch.tensor(sets[name]["labels"]["classes"])
        mined = [indices.tolist() for indices in miner_of(record)(sets[name]["x"], label)]
        case = {"name": "/".join([miner_name(miner), distance, name]), "input": name, "labels": "classes",
                "miner": record}  # fmt: skip
        if len(mined) == 3:
            found = {"triplets": sorted(zip(*mined, strict=True))}
        else:
            found = {
                "positives": sorted(zip(*mined[:2], strict=True)),
                "negatives": sorted(zip(*mined[2:], strict=True)),
            }
        case["kind"] = "triplets" if len(mined) == 3 else "pairs"
        case["counts"] = {side: len(tuples) for side, tuples in found.items()}
        case |= {side: tuples for side, tuples in found.items() if len(tuples) <= LISTED}
        cases.append(case)
    return cases


def main():
    sets = input_sets()
    record = collect(sets)
    cases = {case["name"]: case for case in record.cases}
    for name, (value, gradient) in PUBLISHED.items():
        assert abs(cases[name]["value"] - value) < 1e-9, (name, cases[name])
        assert abs(cases[name]["gradient_norm"]["x"] - gradient) < 1e-9, (name, cases[name])

    tensors = dict(record.tensors)
    described = {}
    for name, members in sets.items():
        for column in ("x", "u", "n"):
            tensors[f"input.{name}.{column}"] = members[column]
        rows, dimensions = members["x"].shape
        described[name] = {"rows": rows, "dimensions": dimensions, "labels": members["labels"],
                           "scores": members["scores"]}  # fmt: skip
    save_file(tensors, HERE / "objectives.safetensors")

    packages = ("torch", "pytorch-metric-learning", "sentence-transformers")
    parts = {
        "versions": {package: version(package) for package in packages},
        "inputs": described,
        "losses": record.cases,
        "miners": mine(sets),
    }
    lines = []
    for key, part in parts.items():
        if isinstance(part, list):
            body = ",\n".join("    " + json.dumps(case) for case in part)
            lines.append(f'  "{key}": [\n{body}\n  ]')
        else:
            body = ",\n".join(f"    {json.dumps(name)}: {json.dumps(value)}" for name, value in part.items())
            lines.append(f'  "{key}": {{\n{body}\n  }}')
    (HERE / "objectives.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(record.cases), "losses,", len(parts["miners"]), "miners")


if __name__ == "__main__":
    main()
