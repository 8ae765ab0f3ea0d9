"""Golden values and gradients of what the other files of objectives leave open: options that none of them sets, the manhattan
distance, regularisers with options, losses over classes of pairs and over layers of a model.

Writes objectives_options.json and objectives_options.safetensors beside this file. Run it with the environment of
benchmarks/peers/requirements.txt:

    python objectives_options.py

Everything is float64, computed from inputs rounded to float32. objectives_options.json:

    losses     [{"name": unique, "loss", "loss_options", "input", "columns": [input columns, rows one after the other],
                 "labels": one a row, "scores": null or one an example, "guide": whether "guide.<name>" is the guide,
                 "parameters": how many tensors "parameter.<name>.<index>" the loss has, "value"}]
    sequences  [{"name", "loss", "loss_options", "rows": [rows of each step], "values"}], one memory from step to step
    layers     [{"name", "loss", "loss_options", "layers", "value"}] over encoders/bert and its batch, as in encoders.py;
               "gradient.<name>.<parameter of the model>"

and "input.<set>.<column>", "gradient.<name>.x" [rows, dimension], "gradient.<name>.parameter.<index>" in the tensors. A pair
of a loss around layers is text 0 with text 1, and text 2 with text 3.
"""

import json
import math
from pathlib import Path

import torch
from objectives import input_sets
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer import losses as st
from sentence_transformers.sentence_transformer.losses import softmax
from sentence_transformers.sentence_transformer.losses.global_orthogonal_regularization import (
    GlobalOrthogonalRegularizationLoss,
)
from sentence_transformers.util import dot_score, pairwise_dot_score, pairwise_euclidean_sim
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)
HERE = Path(__file__).parent
GENERATOR = torch.Generator().manual_seed(23)
SETS = {
    name: {column: members[column].float().double() for column in "xun"}
    | {"labels": members["labels"]["classes"], "scores": members["scores"]["graded"]}
    for name, members in input_sets().items()
}
records, tensors, sequences, layers = [], {}, [], []


def drawn(*shape):
    return torch.randn(*shape, generator=GENERATOR).float().double()


def record(loss, options, name, compute, columns="x", labels=None, scores=None, guide=None, parameters=(), mark=""):
    """`compute(columns, labels, parameters)`"""
    members = SETS[name]
    rows = [members[column] for column in columns]
    x = torch.cat(rows).requires_grad_()
    parts = x.split([len(part) for part in rows])
    if labels is None:
        # Negatives match nothing.
        of = {"x": 0, "u": 0, "n": len(rows[0])}
        labels = members["labels"] if columns == "x" else [of[c] + row for c in columns for row in range(len(rows[0]))]
    leaves = [parameter.clone().requires_grad_() for parameter in parameters]
    value = compute(parts, torch.tensor(labels), leaves)
    value.backward()
    case = f"{len(records)}/{loss}/{name}{mark}"
    assert torch.isfinite(value) and value != 0, case
    tensors[f"gradient.{case}.x"] = x.grad
    for index, (leaf, parameter) in enumerate(zip(leaves, parameters)):
        tensors[f"parameter.{case}.{index}"] = parameter
        tensors[f"gradient.{case}.parameter.{index}"] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
    if guide is not None:
        tensors[f"guide.{case}"] = guide
    records.append({
        "name": case, "loss": loss, "loss_options": options, "input": name, "columns": list(columns), "labels": labels,
        "scores": scores, "guide": guide is not None, "parameters": len(leaves), "value": value.item(),
    })  # fmt: skip


class Manhattan(torch.nn.Module):
    """Distances of all rows, for the batch losses of sentence-transformers."""

    def forward(self, x):
        return torch.cdist(x, x, p=1) + 0  # the losses write into it


def with_vectors(make):
    """A loss of pytorch-metric-learning whose vectors are given as rows."""

    def compute(parts, labels, parameters):
        peer = make()
        for key, columns in (("W", True), ("fc", True), ("proxies", False), ("weight", True)):
            if hasattr(peer, key):
                delattr(peer, key)
                setattr(peer, key, parameters[0].t() if columns else parameters[0])
                return peer(parts[0], labels)

    return compute


def plain(make):
    return lambda parts, labels, parameters: make()(parts[0], labels)


for name, C, D in (("waves", 3, 4), ("random", 6, 8)):
    sizes = {"num_classes": C, "embedding_size": D}
    binary = [float(i % 2) for i in range(len(SETS[name]["x"]))]
    graded = SETS[name]["scores"]

    # The manhattan distance.
    manhattan = {"distance": "manhattan"}
    for margin in (5.0, 2.0):
        record("TripletLoss", {"distance_metric": "manhattan", "triplet_margin": margin}, name,
               lambda e, y, p: st.TripletLoss(None, lambda a, b: (a - b).abs().sum(-1), margin).compute_loss_from_embeddings(list(e), None), "xun")  # fmt: skip
    for loss in ("ContrastiveLoss", "OnlineContrastiveLoss"):
        named = "sentence_transformers.ContrastiveLoss" if loss == "ContrastiveLoss" else loss
        record(named, {"distance_metric": "manhattan", "margin": 3.0}, name,
               lambda e, y, p: getattr(st, loss)(None, lambda a, b: (a - b).abs().sum(-1), 3.0).compute_loss_from_embeddings(list(e), torch.tensor(binary)), "xu", scores=binary)  # fmt: skip
    for loss, options in (("BatchAllTripletLoss", {"margin": 1.0}), ("BatchHardTripletLoss", {}),
                          ("BatchHardSoftMarginTripletLoss", {}), ("BatchSemiHardTripletLoss", {})):  # fmt: skip
        method = {"BatchAllTripletLoss": "batch_all_triplet_loss", "BatchHardTripletLoss": "batch_hard_triplet_loss",
                  "BatchHardSoftMarginTripletLoss": "batch_hard_triplet_soft_margin_loss",
                  "BatchSemiHardTripletLoss": "batch_semi_hard_triplet_loss"}[loss]  # fmt: skip
        keys = {} if loss == "BatchHardSoftMarginTripletLoss" else {"margin": options.get("margin", 5.0)}
        record(loss, {"distance_metric": "manhattan", **options}, name,
               lambda e, y, p: getattr(getattr(st, loss)(None, distance_metric=Manhattan(), **keys), method)(y, e[0]))  # fmt: skip
    raw_l1 = lambda: distances.LpDistance(normalize_embeddings=False, p=1)
    record("TripletMarginLoss", {**manhattan, "margin": 0.5}, name, plain(lambda: losses.TripletMarginLoss(0.5, distance=raw_l1())))
    record("ContrastiveLoss", {**manhattan, "neg_margin": 5}, name, plain(lambda: losses.ContrastiveLoss(0, 5, distance=raw_l1())))

    # Classes of pairs.
    classes = [i % C for i in range(len(SETS[name]["x"]))]
    for options in ({}, {"concatenation_sent_multiplication": True}, {"concatenation_sent_rep": False},
                    {"concatenation_sent_difference": False, "concatenation_sent_multiplication": True},
                    {"num_labels": C + 1, "embedding_dimension": D}):  # fmt: skip
        own = {key: value for key, value in options.items() if key.startswith("concatenation")}
        labels_count = options.get("num_labels", C)

        def classified(e, y, p):
            model = torch.nn.Identity()
            model.device = "cpu"
            peer = st.SoftmaxLoss(model, D, labels_count, **own)
            del peer.classifier.weight, peer.classifier.bias
            peer.classifier.weight, peer.classifier.bias = p
            softmax.embed_columns = lambda model, features: list(features)
            return peer(e, torch.tensor(classes))

        inputs = D * (2 * own.get("concatenation_sent_rep", True) + own.get("concatenation_sent_difference", True)
                      + own.get("concatenation_sent_multiplication", False))  # fmt: skip
        record("SoftmaxLoss", options, name, classified, "xu", scores=[float(c) for c in classes],
               parameters=[0.5 * drawn(labels_count, inputs), drawn(labels_count)])  # fmt: skip

    # Two copies of a model: the columns are what each says of the same texts.
    def tension(e, y, p):
        z = e[0] @ e[1].t()
        return torch.nn.BCEWithLogitsLoss(reduction="sum")(z.flatten(), torch.eye(len(z)).flatten())

    record("ContrastiveTensionLoss", {"pos_neg_ratio": 1000}, name, tension, "xu")
    for options, similarity in (({}, None), ({"similarity_fct": "dot", "scale": 1.5}, dot_score)):

        def in_batch(e, y, p):
            similar = (lambda a, b: F.normalize(a) @ F.normalize(b).t()) if similarity is None else similarity
            z = similar(e[0], e[1]) * p[0].exp()
            own = torch.arange(len(z))
            return (F.cross_entropy(z, own) + F.cross_entropy(z.t(), own)) / 2

        start = torch.tensor([math.log(options.get("scale", 20.0))]).float().double()
        record("ContrastiveTensionLossInBatchNegatives", options, name, in_batch, "xu", parameters=[start])

    # Regularisers.
    vectors = drawn(C, D)
    peers = {
        "LpRegularizer": [({"p": 3}, {}), ({"p": 1.5, "power": 1.5}, {}), ({"p": "inf"}, {"p": float("inf")}), ({"p": 3, "power": 2, "reducer": "sum"}, {"reducer": reducers.SumReducer()})],
        "ZeroMeanRegularizer": [({"reducer": "sum"}, {"reducer": reducers.SumReducer()})],
        "CenterInvariantRegularizer": [({"distance": {"name": "l2", "p": 3, "normalize_embeddings": False}}, {"distance": distances.LpDistance(p=3, power=1, normalize_embeddings=False)})],
        "RegularFaceRegularizer": [({"distance": "dot"}, {"distance": distances.DotProductSimilarity(normalize_embeddings=False)}), ({"reducer": "avg_non_zero"}, {"reducer": reducers.AvgNonZeroReducer()})],
    }  # fmt: skip
    for kind, variants in peers.items():
        for own, changed in variants:
            keys = {key: value for key, value in own.items() if key in ("p", "power")} | changed
            for side in ("weight", "embedding"):
                record("NormalizedSoftmaxLoss", {f"{side}_regularizer": {"name": kind, **own}, f"{side}_reg_weight": 0.4}, name,
                       with_vectors(lambda: losses.NormalizedSoftmaxLoss(**sizes, **{f"{side}_regularizer": getattr(regularizers, kind)(**keys), f"{side}_reg_weight": 0.4})),
                       parameters=[vectors], mark=f"/{side}/{kind}")  # fmt: skip
    sparse = {"num_classes": C, "centers_per_class": 2}
    record("SoftTripleLoss", {"centers_per_class": 2, "weight_regularizer": {"name": "SparseCentersRegularizer", **sparse, "reducer": "mean"}}, name,
           with_vectors(lambda: losses.SoftTripleLoss(**sizes, centers_per_class=2, weight_regularizer=regularizers.SparseCentersRegularizer(**sparse, reducer=reducers.MeanReducer()))),
           parameters=[drawn(2 * C, D)])  # fmt: skip

    # Options that no other file sets.
    of_sizes = {"num_classes": C, "embedding_size": D}
    for loss in ("ArcFaceLoss", "CosFaceLoss", "SphereFaceLoss", "LargeMarginSoftmaxLoss", "NormalizedSoftmaxLoss", "ProxyAnchorLoss", "ProxyNCALoss"):
        record(loss, {**of_sizes, "reducer": "sum"}, name, with_vectors(lambda: getattr(losses, loss)(**sizes, reducer=reducers.SumReducer())), parameters=[vectors])
    record("SoftTripleLoss", {**of_sizes, "centers_per_class": 2, "distance": "dot", "reducer": "sum", "la": 5.0}, name,
           with_vectors(lambda: losses.SoftTripleLoss(**sizes, centers_per_class=2, la=5.0, distance=distances.DotProductSimilarity(normalize_embeddings=False), reducer=reducers.SumReducer())),
           parameters=[drawn(2 * C, D)])  # fmt: skip
    for options, beta in (({"nu": 0.3, "learn_beta": True}, [1.1]), ({"nu": 0.3, "learn_beta": True, "num_classes": C}, [1.0 + 0.1 * c for c in range(C)])):

        def margin(e, y, p):
            peer = losses.MarginLoss(**options)
            del peer.beta
            peer.beta = p[0]
            return peer(e[0], y)

        record("MarginLoss", options, name, margin, parameters=[torch.tensor(beta).float().double()])
    groups = [i // 2 for i in range(len(SETS[name]["x"]))]
    record("CentroidTripletLoss", {"distance": {"name": "l2", "power": 2}, "reducer": "mean", "margin": 0.3}, name,
           plain(lambda: losses.CentroidTripletLoss(margin=0.3, distance=distances.LpDistance(power=2), reducer=reducers.MeanReducer())), labels=groups) if hasattr(losses, "CentroidTripletLoss") else None  # fmt: skip
    record("MultipleNegativesRankingLoss", {"similarity_fct": "dot", "scale": 1.0}, name,
           lambda e, y, p: st.MultipleNegativesRankingLoss(None, 1.0, dot_score).compute_loss_from_embeddings(list(e), None), "xun")  # fmt: skip
    record("CoSENTLoss", {"similarity_fct": "dot", "scale": 2.0}, name,
           lambda e, y, p: st.CoSENTLoss(None, 2.0, pairwise_dot_score).compute_loss_from_embeddings(list(e), torch.tensor(graded)), "xu", scores=graded)  # fmt: skip
    for options, function, transformation in (({"loss_fct": "mae"}, torch.nn.L1Loss(), torch.nn.Identity()), ({"cos_score_transformation": "relu"}, torch.nn.MSELoss(), torch.nn.ReLU())):
        record("CosineSimilarityLoss", options, name,
               lambda e, y, p: st.CosineSimilarityLoss(None, function, transformation).compute_loss_from_embeddings(list(e), torch.tensor(graded)), "xu", scores=graded)  # fmt: skip
    teacher = (torch.arange(2 * len(graded)).reshape(-1, 2).sin()).float().double()
    record("DistillKLDivLoss", {"similarity_fct": "cosine"}, name,
           lambda e, y, p: st.DistillKLDivLoss(None, similarity_fct=lambda a, b: F.cosine_similarity(a, b)).compute_loss_from_embeddings(list(e), teacher), "xun", scores=teacher.flatten().tolist())  # fmt: skip
    wide = drawn(2 * len(graded), 5)
    for loss, options in (("EmbedDistillLoss", {"projection_dim": 5}), ("EmbedDistillLoss", {"projection_dim": 5, "broadcast": True, "distance_metric": "l2"}), ("MSELoss", {"projection_dim": 5})):

        def distilled(e, y, p):
            seen = [F.linear(part, p[0], p[1]) for part in e]
            taught = list(wide.split(len(graded)))
            if options.get("broadcast"):
                taught = [taught[0]] * 2
            metric = {"distance_metric": options.get("distance_metric", "cosine")} if loss == "EmbedDistillLoss" else {}
            return getattr(st, loss)(None, **metric).compute_loss_from_embeddings(seen, taught)

        record(loss, options, name, distilled, "xu", guide=wide, parameters=[drawn(5, D), drawn(5)])
    record("GlobalOrthogonalRegularizationLoss", {"similarity_fct": "dot", "mean_weight": 0.5}, name,
           lambda e, y, p: sum(GlobalOrthogonalRegularizationLoss(torch.nn.Identity(), similarity_fct=dot_score, mean_weight=0.5).compute_loss_from_embeddings(list(e)).values()), "xu")  # fmt: skip
    record("HistogramLoss", {"n_bins": 20}, name, plain(lambda: losses.HistogramLoss(n_bins=20)))
    record("MatryoshkaLoss", {"loss": "CoSENTLoss", "loss_options": {"scale": 5.0}, "matryoshka_dims": [D, D // 2], "matryoshka_weights": [1.0, 0.3]}, name,
           lambda e, y, p: sum(w * st.CoSENTLoss(None, 5.0).compute_loss_from_embeddings([F.normalize(part[:, :d]) for part in e], torch.tensor(graded)) for d, w in ((D, 1.0), (D // 2, 0.3))),
           "xu", scores=graded)  # fmt: skip

    # A cascade of miners: the pairs that a loss sees.
    def cascade(e, y, p):
        first = miners.MultiSimilarityMiner(0.2)(e[0].detach(), y)
        second = miners.HDCMiner(0.5)
        second.set_idx_externally(first, y)
        return losses.ContrastiveLoss()(e[0], y, second(e[0].detach(), y))

    record("ContrastiveLoss", {"__miner": {"miner": "MultiSimilarityMiner", "miner_options": {"epsilon": 0.2}}}, name, cascade, mark="/cascade")


class Detached(losses.DynamicSoftMarginLoss):
    """Without the gradient through the histogram, which fails on the second step."""

    def update_histogram(self, data):
        super().update_histogram(data.detach())

    def get_default_distance(self):
        class Copied(distances.LpDistance):
            """The loss writes into it, which its gradient does not allow."""

            def forward(self, *arguments):
                return super().forward(*arguments) + 0

        return Copied()


for index, options in enumerate([{}, {"num_bins": 20, "momentum": 0.3, "min_val": -3.0}]):
    peer, values = Detached(**options), []
    name = f"DynamicSoftMarginLoss.{index}"
    for step, rows in enumerate([range(0, 8), range(8, 16), range(16, 24)]):
        x, u = (SETS["random"][column][list(rows)].clone().requires_grad_() for column in "xu")
        value = peer(x, ref_emb=u)
        value.backward()
        values.append(value.item())
        tensors[f"gradient.{name}.{step}"] = torch.cat([x.grad, u.grad])
    sequences.append({"name": name, "loss": "DynamicSoftMarginLoss", "loss_options": {**options, "aligned": True},
                      "rows": [[0, 8], [8, 16], [16, 24]], "values": values})  # fmt: skip


def over_layers():
    """sentence-transformers' own loss around a model that hands it the layers of encoders/bert."""
    from safetensors.torch import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    folder = HERE / "encoders" / "bert"
    golden = load_file(folder / "golden.safetensors")
    offsets = golden["offsets"].tolist()
    from transformers import AutoModel

    for layer_options, widths in (
        ({"n_layers_per_step": -1}, None),
        ({"n_layers_per_step": -1, "last_layer_weight": 0.7, "prior_layers_weight": 2.0, "kl_div_weight": 0.5,
          "kl_temperature": 1.5, "layer_weighting": "log"}, None),
        ({"n_layers_per_step": -1, "kl_temperature": 0, "layer_weighting": "linear"}, None),
        ({"n_layers_per_step": -1}, [32, 8]),
    ):  # fmt: skip
        bert = AutoModel.from_pretrained(folder, attn_implementation="eager").double().eval()

        class Layers(Transformer):
            def __init__(self):
                torch.nn.Module.__init__(self)
                self.auto_model = bert

            def forward(self, features, **kwargs):
                out = bert(**{key: features[key] for key in ("input_ids", "attention_mask", "token_type_ids")}, output_hidden_states=True)
                features.update({"token_embeddings": out.last_hidden_state, "all_layer_embeddings": out.hidden_states})
                return features

        model = SentenceTransformer(modules=[Layers(), Pooling(32, "mean")])
        model.eval()

        def column(texts):
            longest = max(offsets[t + 1] - offsets[t] for t in texts)
            ids, mask, types = (torch.zeros(len(texts), longest, dtype=torch.long) for _ in range(3))
            for row, t in enumerate(texts):
                length = offsets[t + 1] - offsets[t]
                ids[row, :length] = golden["ids"][offsets[t] : offsets[t + 1]]
                types[row, :length] = golden["type_ids"][offsets[t] : offsets[t + 1]]
                mask[row, :length] = 1
            return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}

        inner = st.MultipleNegativesRankingLoss(model, scale=5.0)
        if widths is None:
            loss = st.AdaptiveLayerLoss(model, inner, **layer_options)
        else:
            loss = st.Matryoshka2dLoss(model, inner, widths, n_dims_per_step=-1, **layer_options)
        value = loss([column([0, 2]), column([1, 3])], None)
        value.backward()
        name = f"layers.{len(layers)}"
        options = {"loss": "MultipleNegativesRankingLoss", "loss_options": {"scale": 5.0}, **layer_options}
        if widths is not None:
            options |= {"matryoshka_dims": widths, "n_dims_per_step": -1}
        layers.append({"name": name, "loss": "AdaptiveLayerLoss" if widths is None else "Matryoshka2dLoss",
                       "loss_options": options, "value": value.item()})  # fmt: skip
        for key, parameter in bert.named_parameters():
            if parameter.grad is not None and ("layer.0" in key or "word_embeddings" in key):
                tensors[f"gradient.{name}.{key}"] = parameter.grad


if __name__ == "__main__":
    over_layers()
    for name, members in SETS.items():
        for column in "xun":
            tensors[f"input.{name}.{column}"] = members[column]
    save_file({key: value.detach().contiguous().clone() for key, value in tensors.items()}, HERE / "objectives_options.safetensors")
    lines = lambda items: "[\n" + ",\n".join("    " + json.dumps(item) for item in items) + "\n  ]"
    document = f'{{\n  "losses": {lines(records)},\n  "sequences": {lines(sequences)},\n  "layers": {lines(layers)}\n}}\n'
    (HERE / "objectives_options.json").write_text(document)
    print(len(records), "losses,", len(sequences), "sequences,", len(layers), "over layers")
