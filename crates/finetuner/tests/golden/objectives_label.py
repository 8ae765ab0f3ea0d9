"""Golden values, gradients and mined tuples of the objectives that learn from labels and have no state, from
pytorch-metric-learning, sentence-transformers and, for losses of neither, from their formulas.

Writes objectives_label.json and objectives_label.safetensors beside this file, on the inputs of objectives.py:

    losses     [{"name": unique, "input", "labels": name in the set, "loss", "loss_options", "miner": null or {"name",
                 "options"}, "columns": ["x"] or ["x", "u"], "value"}]
               the gradients are <name>.<column> in objectives_label.safetensors, F64 like the input
    miners     [{"name", "input", "labels", "miner", "kind": "triplets" | "pairs", "triplets" or "positives" and
                 "negatives": sorted index lists}]

Options are written as a run's specification has them.
"""

import json
import math
from pathlib import Path

import torch
from objectives import input_sets
from pytorch_metric_learning import distances, losses, miners, reducers
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer import losses as sentence_losses

HERE = Path(__file__).parent


def flat(reducer):
    """Several losses hand over columns [n, 1], which reducers with weights or indices broadcast by mistake."""

    def unpack(loss_info, unpack=reducer.unpack_loss_info):
        flattened = dict(loss_info)
        if torch.is_tensor(loss_info["losses"]) and loss_info["losses"].ndim > 1:
            flattened["losses"] = loss_info["losses"].flatten()
        return unpack(flattened)

    reducer.unpack_loss_info = unpack
    return reducer


COSINE, L2, DOT, SNR = {"name": "cosine"}, {"name": "l2"}, {"name": "dot"}, {"name": "snr"}
SQUARED = {"name": "l2", "power": 2}
RAW = {"name": "l2", "normalize_embeddings": False}
CITY = {"name": "l2", "p": 1}
CUBIC = {"name": "l2", "p": 3, "power": 1.5}
LARGEST = {"name": "l2", "p": "inf"}
COSINE_CUBED = {"name": "cosine", "power": 3}
NOISE_SQUARED = {"name": "snr", "power": 2, "normalize_embeddings": False}

MEAN, SUM, NON_ZERO = {"name": "mean"}, {"name": "sum"}, {"name": "avg_non_zero"}
THRESHOLD = {"name": "threshold", "low": 0.1, "high": 1.5}
WEIGHTED = {"name": "class_weighted", "weights": [1.0, 0.5, 2.0, 0.25, 3.0, 1.5]}
PER_ANCHOR = {"name": "per_anchor"}
PER_ANCHOR_NON_ZERO = {"name": "per_anchor", "reducer": NON_ZERO}
MULTIPLE = {"name": "multiple", "reducers": {"pos_loss": SUM}, "default_reducer": NON_ZERO}


def distance_of(record):
    kinds = {"cosine": distances.CosineSimilarity, "l2": distances.LpDistance, "dot": distances.DotProductSimilarity,
             "snr": distances.SNRDistance}  # fmt: skip
    options = {key: value for key, value in record.items() if key != "name"}
    if record["name"] == "dot":
        options.setdefault("normalize_embeddings", False)
    if options.get("p") == "inf":
        options["p"] = math.inf
    return kinds[record["name"]](**options)


def reducer_of(record):
    options = {key: value for key, value in record.items() if key != "name"}
    kinds = {
        "mean": reducers.MeanReducer,
        "sum": reducers.SumReducer,
        "avg_non_zero": reducers.AvgNonZeroReducer,
        "threshold": reducers.ThresholdReducer,
        "class_weighted": reducers.ClassWeightedReducer,
        "divisor": reducers.DivisorReducer,
        "per_anchor": reducers.PerAnchorReducer,
        "multiple": reducers.MultipleReducers,
    }
    if "weights" in options:
        options["weights"] = torch.tensor(options["weights"], dtype=torch.float64)
    for key in ("reducer", "default_reducer"):
        if key in options:
            options[key] = reducer_of(options[key])
    if "reducers" in options:
        options["reducers"] = {part: reducer_of(record) for part, record in options["reducers"].items()}
    return flat(kinds[record["name"]](**options))


def objects(options):
    made = dict(options)
    if "distance" in made:
        made["distance"] = distance_of(made["distance"])
    if "reducer" in made:
        made["reducer"] = reducer_of(made["reducer"])
    return made


def miner_of(record):
    return getattr(miners, record["name"])(**objects(record["options"]))


def miner(name, **options):
    return {"name": name, "options": options}


MINERS = [
    miner("MultiSimilarityMiner"),
    miner("TripletMarginMiner", margin=0.3, type_of_triplets="hard"),
    miner("BatchHardMiner"),
    miner("PairMarginMiner"),
]
ANGULAR = miner("AngularMiner", angle=25.0)
MINED = [
    *(miner("MultiSimilarityMiner", distance=distance) for distance in (COSINE, L2)),
    *(miner("PairMarginMiner", distance=L2, pos_margin=0.9, neg_margin=1.1),
      miner("PairMarginMiner", distance=COSINE, pos_margin=0.6, neg_margin=0.3)),
    *(miner("HDCMiner", filter_percentage=share, distance=distance) for share in (0.5, 0.25) for distance in (COSINE, L2)),
    miner("AngularMiner"), ANGULAR, miner("AngularMiner", angle=45.0),
    miner("EmbeddingsAlreadyPackagedAsTriplets"),
]  # fmt: skip

# loss: its default distance and reducer (None: it takes none), other distances, other options, other reducers
ELEMENT_REDUCERS = [SUM, NON_ZERO, THRESHOLD, WEIGHTED, PER_ANCHOR_NON_ZERO]
PAIR_REDUCERS = [*ELEMENT_REDUCERS, PER_ANCHOR]
EVERY_DISTANCE = [COSINE, L2, DOT, SQUARED, RAW, CITY, CUBIC, LARGEST, COSINE_CUBED, SNR, NOISE_SQUARED]
LIBRARY = {
    "MultiSimilarityLoss": (EVERY_DISTANCE, [{"alpha": 1.0, "beta": 10.0, "base": 0.3}], ELEMENT_REDUCERS, MINERS),
    "CircleLoss": ([], [{"m": 0.25, "gamma": 20.0}], [MEAN, *ELEMENT_REDUCERS], MINERS),
    "GeneralizedLiftedStructureLoss": (EVERY_DISTANCE, [{"neg_margin": 0.8, "pos_margin": 0.2}], ELEMENT_REDUCERS, MINERS),
    "NCALoss": ([COSINE, L2, RAW, CUBIC], [{"softmax_scale": 8.0}], ELEMENT_REDUCERS, MINERS),
    "TupletMarginLoss": ([], [{"margin": 10.0, "scale": 16.0}], PAIR_REDUCERS, MINERS),
    "FastAPLoss": ([L2], [{"num_bins": 25}], ELEMENT_REDUCERS, MINERS),
    "RankedListLoss": ([L2, SQUARED, CITY], [{"margin": 0.4, "Tn": 10.0}, {"margin": 0.6, "Tn": 3.0, "Tp": 2.0,
        "imbalance": 0.3, "alpha": 1.4}], ELEMENT_REDUCERS, []),
    "PNPLoss": (None, [{"variant": "Ds"}, {"variant": "Dq", "alpha": 2.0}, {"variant": "Iu"}, {"variant": "Ib", "b": 3.0},
        {"anneal": 0.1}], [], []),
    "InstanceLoss": ([COSINE], [{"gamma": 4.0}], ELEMENT_REDUCERS, []),
    "NPairsLoss": ([L2, DOT, COSINE_CUBED], [], ELEMENT_REDUCERS, []),
    "ThresholdConsistentMarginLoss": (None, [{"lambda_plus": 0.5, "lambda_minus": 2.0, "margin_plus": 0.6,
        "margin_minus": 0.2}], [], MINERS),
    "AngularLoss": (None, [{"alpha": 20.0}], PAIR_REDUCERS, MINERS),
    "LiftedStructureLoss": (EVERY_DISTANCE, [{"neg_margin": 0.8, "pos_margin": 0.2}], PAIR_REDUCERS, MINERS),
    "IntraPairVarianceLoss": ([L2, DOT], [{"pos_eps": 0.1, "neg_eps": 0.2}], [*PAIR_REDUCERS, MULTIPLE], MINERS),
    "HistogramLoss": (None, [{"n_bins": 20}, {"delta": 0.05}], [], MINERS),
    "MarginLoss": ([COSINE, SQUARED, CITY], [{"margin": 0.1, "beta": 0.9}], [MEAN, SUM, WEIGHTED], MINERS),
    "SignalToNoiseRatioContrastiveLoss": ([NOISE_SQUARED], [{"pos_margin": 0.1, "neg_margin": 2.0}], [WEIGHTED, PER_ANCHOR],
        MINERS),
    "ContrastiveLoss": ([CITY, CUBIC, LARGEST, SNR], [], [*PAIR_REDUCERS, MULTIPLE], MINERS),
    "NTXentLoss": ([CUBIC], [], [WEIGHTED, PER_ANCHOR], MINERS),
    "SupConLoss": ([CUBIC], [], [WEIGHTED, PER_ANCHOR], MINERS),
    "TripletMarginLoss": ([CITY, SNR], [], [WEIGHTED], [*MINERS[:1], MINERS[3], miner("HDCMiner"), ANGULAR]),
}  # fmt: skip
NEEDED = {"RankedListLoss": {"margin": 0.4, "Tn": 10.0}}
LABELS = ("one", "distinct", "one_pair")


def library_cases():
    """(loss, options, input, labels, miner)"""
    for loss, (other_distances, variants, other_reducers, mined) in LIBRARY.items():
        needed = NEEDED.get(loss, {})
        for name in ("waves", "random"):
            yield loss, needed, name, "classes", None
            for options in variants:
                yield loss, {**needed, **options}, name, "classes", None
        for distance in other_distances or []:
            yield loss, {**needed, "distance": distance}, "random", "classes", None
        for reducer in other_reducers:
            yield loss, {**needed, "reducer": reducer}, "random", "classes", None
        for labels in LABELS:
            if loss == "InstanceLoss" and labels == "one_pair":
                continue
            yield loss, needed, "waves", labels, None
        for record in mined:
            yield loss, needed, "random", "classes", record


def easy_positive(x, labels, sigma, semihard):
    unit = torch.nn.functional.normalize(x)
    similarities = unit @ unit.T
    same = labels[:, None] == labels[None]
    values = []
    for i in range(len(x)):
        positives = [j for j in range(len(x)) if same[i, j] and j != i]
        negatives = [j for j in range(len(x)) if not same[i, j]]
        if positives:
            best = max(similarities[i, j] for j in positives)
            allowed = [similarities[i, j] for j in negatives if not semihard or similarities[i, j] <= best]
            if allowed:
                values.append(torch.nn.functional.softplus((max(allowed) - best) / sigma))
    return torch.stack(values).mean() if values else x.sum() * 0


def centroid_triplets(x, labels, margin=0.05, swap=False, smooth_loss=False):
    def distance(a, b):
        return (torch.nn.functional.normalize(a, dim=0) - torch.nn.functional.normalize(b, dim=0)).norm()

    values = []
    for i, own in enumerate(labels):
        same = [j for j in range(len(x)) if labels[j] == own and j != i]
        for other in labels.unique():
            if other != own and same:
                centre, away = x[same].mean(0), x[labels == other].mean(0)
                negative = distance(x[i], away)
                if swap:
                    negative = torch.minimum(negative, distance(centre, away))
                violation = distance(x[i], centre) - negative + margin
                values.append(torch.nn.functional.softplus(violation) if smooth_loss else violation.relu())
    values = torch.stack(values)
    return values[values > 0].mean()


def early(x, labels, loss, distance, margin):
    """The losses of Finetuner 0.4.1 over all pairs and all triplets."""
    if distance == "cosine":
        unit = torch.nn.functional.normalize(x)
        d = 1 - unit @ unit.T
    else:
        square = (x[:, None] - x[None]).square().sum(-1)
        d = square if distance == "sqeuclidean" else (square + torch.eye(len(x), dtype=x.dtype)).sqrt()
    same, count = labels[:, None] == labels[None], len(x)
    if loss == "SiameseLoss":
        pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
        return torch.stack([d[pair] if same[pair] else (margin - d[pair]).relu() for pair in pairs]).mean()
    triplets = [(d[a, p] - d[a, n] + margin).relu() for a in range(count) for p in range(count) for n in range(count)
                if a != p and same[a, p] and not same[a, n]]  # fmt: skip
    return torch.stack(triplets).mean()


def other_cases():
    """(loss, options, input, labels, function of the columns and the labels)"""
    for name in ("waves", "random"):
        for sigma in (0.1, 1.0):
            for loss, semihard in (("EPHN", False), ("EPSHN", True)):
                yield loss, {"sigma": sigma}, name, "classes", (
                    lambda columns, labels, sigma=sigma, semihard=semihard: easy_positive(
                        columns[0], labels, sigma, semihard
                    )
                )
        for options in ({}, {"margin": 0.3, "swap": True}, {"smooth_loss": True}):
            yield "CentroidTripletLoss", options, name, "classes", (
                lambda columns, labels, options=options: centroid_triplets(columns[0], labels, **options)
            )
        for loss in ("SiameseLoss", "finetuner.TripletLoss"):
            for distance, margin in (("cosine", 1.0), ("euclidean", 3.0), ("sqeuclidean", 3.0)):
                yield loss, {"distance": distance, "margin": margin}, name, "classes", (
                    lambda columns, labels, loss=loss, distance=distance, margin=margin: early(
                        columns[0], labels, loss, distance, margin
                    )
                )
        metric = sentence_losses.BatchHardTripletLossDistanceFunction
        for loss in ("BatchAllTripletLoss", "BatchHardTripletLoss", "BatchHardSoftMarginTripletLoss", "BatchSemiHardTripletLoss"):
            for word, function in (("euclidean", metric.euclidean_distance), ("cosine", metric.cosine_distance)):
                for margin in (None,) if "Soft" in loss else (5.0, 0.3):
                    options = {} if margin is None else {"margin": margin}
                    theirs = getattr(sentence_losses, loss)(None, distance_metric=function, **options)
                    yield loss, {"distance_metric": word, **options}, name, "classes", (
                        lambda columns, labels, theirs=theirs: theirs.compute_loss_from_embeddings(columns, labels)
                    )


def main():
    torch.set_default_dtype(torch.float64)  # HistogramLoss makes numbers of its own
    sets = input_sets()
    for members in sets.values():  # what is tested sees 32 bits of them
        members.update({column: members[column].float().double() for column in ("x", "u", "n")})
    cases, tensors = [], {}

    def record(loss, options, name, labels, miner, function, columns=("x",)):
        leaves = [sets[name][column].clone().requires_grad_() for column in columns]
        value = function(leaves, torch.tensor(sets[name]["labels"][labels]))
        value = value if torch.is_tensor(value) else torch.tensor(float(value), dtype=torch.float64)
        gradients = [torch.zeros_like(leaf) for leaf in leaves]
        if value.requires_grad:
            gradients = torch.autograd.grad(value, leaves, allow_unused=True)
            gradients = [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, gradients, strict=True)]
        if not torch.isfinite(value) and labels != "classes":
            return  # the mean of nothing
        case = f"{len(cases)}/{loss}/{name}/{labels}"
        assert torch.isfinite(value), (case, options, miner)
        assert all(torch.isfinite(gradient).all() for gradient in gradients), (case, options, miner)
        for column, gradient in zip(columns, gradients, strict=True):
            tensors[f"{case}.{column}"] = gradient.contiguous()
        cases.append({"name": case, "input": name, "labels": labels, "loss": loss, "loss_options": options,
                      "miner": miner, "columns": columns, "value": value.item()})  # fmt: skip

    for loss, options, name, labels, mined in library_cases():

        def compute(columns, classes):
            (x,) = columns
            chosen = miner_of(mined)(x, classes) if mined else None
            return getattr(losses, loss)(**objects(options))(x, classes, chosen)

        record(loss, options, name, labels, mined, compute)
    for loss, options, name, labels, function in other_cases():
        record(loss, options, name, labels, None, function)

    for name in sets:
        for options in ({}, {"variance_mu": 10.0, "covariance_v": 3.0, "invariance_lambda": 5.0, "eps": 0.01},
                        {"reducer": SUM}):  # fmt: skip
            function = losses.VICRegLoss(**objects(options))
            record("VICRegLoss", options, name, "classes", None,
                   lambda columns, labels: function(columns[0], ref_emb=columns[1]), ("x", "u"))  # fmt: skip

    found = []
    for name in sets:
        for mined in MINED:
            if "Packaged" in mined["name"] and len(sets[name]["x"]) % 3 != 0:
                continue
            labels = torch.tensor(sets[name]["labels"]["classes"])
            if mined["name"] == "HDCMiner" and name == "waves":
                continue  # cuts between a pair and its mirror image
            chosen = [indices.tolist() for indices in miner_of(mined)(sets[name]["x"], labels)]
            if len(chosen) == 3:
                sides = {"triplets": sorted(zip(*chosen, strict=True))}
            else:
                sides = {"positives": sorted(zip(*chosen[:2], strict=True)),
                         "negatives": sorted(zip(*chosen[2:], strict=True))}  # fmt: skip
            found.append({"name": f"{len(found)}/{mined['name']}/{name}", "input": name, "labels": "classes",
                          "miner": mined, "kind": "triplets" if len(chosen) == 3 else "pairs"} | sides)  # fmt: skip
    save_file(tensors, HERE / "objectives_label.safetensors")
    parts = {"losses": cases, "miners": found}
    lines = (f'  "{key}": [\n' + ",\n".join("    " + json.dumps(case) for case in part) + "\n  ]" for key, part in parts.items())
    (HERE / "objectives_label.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(cases), "losses,", len(found), "miners")


if __name__ == "__main__":
    main()
