"""Values and gradients of losses with parameters or memory, of wrappers and regularisers, in float64, written by
pytorch-metric-learning and sentence-transformers; the image-text losses by open_clip's formulas.

    python objectives_class.py      # torch, pytorch-metric-learning, sentence-transformers

Parameters are stored as rows, `[classes, dimension]`, whatever the peer's orientation. All inputs are rounded to float32
first, so that both sides see the same numbers.
"""

import json
import math
from pathlib import Path

import torch
from pytorch_metric_learning import losses, miners, reducers, regularizers
from pytorch_metric_learning.distances import CosineSimilarity, DotProductSimilarity, LpDistance
from sentence_transformers.sentence_transformer.losses.global_orthogonal_regularization import (
    GlobalOrthogonalRegularizationLoss,
)

torch.set_default_dtype(torch.float64)
FOLDER = Path(__file__).parent


def rounded(x):
    return x.float().double()


def table(rows, formula):
    return rounded(torch.tensor([[formula(i, j) for j in range(1, 5)] for i in range(1, rows + 1)]))


GENERATOR = torch.Generator().manual_seed(11)


def normal(rows, columns):
    return rounded(torch.randn(rows, columns, generator=GENERATOR))


def inputs():
    centres = normal(6, 8)
    classes = torch.tensor([0] * 6 + [1] * 5 + [2] * 4 + [3] * 4 + [4] * 3 + [5] * 2)
    classes = classes[torch.randperm(24, generator=GENERATOR)]
    x = rounded(normal(24, 8) + centres[classes])
    waves = lambda k: table(k, lambda c, j: math.cos(0.3 * c + 0.8 * j + 0.5 * c * j))
    return {
        "waves": {
            "x": table(8, lambda i, j: math.sin(0.9 * i + 1.7 * j + 0.3 * i * j)),
            "u": table(8, lambda i, j: math.cos(0.5 * i + 1.1 * j + 0.2 * i * j)),
            "w": waves(3),
            "w2": waves(6),
            "labels": [0, 0, 1, 1, 2, 2, 0, 1],
        },
        "random": {
            "x": x,
            "u": rounded(0.7 * x + normal(24, 8)),
            "w": rounded(centres + 0.3 * normal(6, 8)),
            "w2": normal(12, 8),
            "labels": classes.tolist(),
        },
    }


INPUTS = inputs()
MINER = {"name": "MultiSimilarityMiner", "options": {"epsilon": 0.1}}
TRIPLETS = {"name": "TripletMarginMiner", "options": {"margin": 0.2}}
cases, tensors = [], {}


def weight_of(loss):
    """The learned vectors and whether the peer keeps them as columns."""
    for name, columns in [("W", True), ("fc", True), ("proxies", False), ("weight", True)]:
        if hasattr(loss, name):
            return getattr(loss, name), columns
    return None, False


def record(name, which, loss_name, options, value, embeddings, parameters=(), columns=("x",), miner=None):
    value.backward()
    case = {
        "name": name, "input": which, "loss": loss_name, "loss_options": options, "value": value.item(),
        "columns": list(columns), "parameters": [key for key, _, _ in parameters],
        **({"miner": miner} if miner else {}),
    }  # fmt: skip
    for column, x in zip(columns, embeddings):
        tensors[f"{name}.gradient.{column}"] = x.grad
    for key, parameter, transposed in parameters:
        tensors[f"{name}.parameter.{key}"] = parameter.grad.t() if transposed else parameter.grad
    cases.append(case)


def mined(miner, x, labels):
    return None if miner is None else getattr(miners, miner["name"])(**miner["options"])(x.detach(), labels)


def class_loss(name, which, loss_name, peer, options=None, vectors="w", miner=None):
    x = INPUTS[which]["x"].clone().requires_grad_()
    labels = torch.tensor(INPUTS[which]["labels"])
    weight, transposed = weight_of(peer)
    rows = INPUTS[which][vectors]
    if loss_name == "P2SGradLoss":
        rows = rounded(torch.nn.functional.normalize(rows))
    weight.data = (rows.t() if transposed else rows).clone()
    value = peer(x, labels, mined(miner, x, labels))
    key = vectors if loss_name != "P2SGradLoss" else "unit." + vectors
    record(name, which, loss_name, options or {}, value, [x], [(key, weight, transposed)], miner=miner)


for which, C, D in [("waves", 3, 4), ("random", 6, 8)]:
    sizes = {"num_classes": C, "embedding_size": D}
    simple = {
        "ArcFaceLoss": [{}, {"margin": 10, "scale": 16}],
        "CosFaceLoss": [{}, {"margin": 0.1, "scale": 20}],
        "SphereFaceLoss": [{}, {"margin": 3, "scale": 2}],
        "LargeMarginSoftmaxLoss": [{}, {"margin": 2, "scale": 0.5}],
        "NormalizedSoftmaxLoss": [{}, {"temperature": 0.2}],
        "ProxyAnchorLoss": [{}, {"margin": 0.2, "alpha": 8}],
        "ProxyNCALoss": [{}, {"softmax_scale": 3}],
    }
    for loss_name, variants in simple.items():
        for index, options in enumerate(variants):
            class_loss(f"{loss_name}.{which}.{index}", which, loss_name, getattr(losses, loss_name)(**sizes, **options), options)
        for miner, label in [(MINER, "pairs"), (TRIPLETS, "triplets")]:
            class_loss(f"{loss_name}.{which}.{label}", which, loss_name, getattr(losses, loss_name)(**sizes), {}, miner=miner)
    for index, options in enumerate([{"sub_centers": 2}, {"sub_centers": 2, "margin": 15, "scale": 10}]):
        peer = losses.SubCenterArcFaceLoss(**sizes, **options)
        class_loss(f"SubCenterArcFaceLoss.{which}.{index}", which, "SubCenterArcFaceLoss", peer, options, "w2")
    for index, options in enumerate([{"centers_per_class": 2}, {"centers_per_class": 2, "la": 5, "gamma": 0.4, "margin": 0.1}]):
        class_loss(f"SoftTripleLoss.{which}.{index}", which, "SoftTripleLoss", losses.SoftTripleLoss(**sizes, **options), options, "w2")
    class_loss(f"SoftTripleLoss.{which}.pairs", which, "SoftTripleLoss", losses.SoftTripleLoss(**sizes, centers_per_class=2), {"centers_per_class": 2}, "w2", MINER)
    class_loss(f"P2SGradLoss.{which}", which, "P2SGradLoss", losses.P2SGradLoss(D, C))

    # Distances and reducers other than the defaults.
    class_loss(f"NormalizedSoftmaxLoss.{which}.dot", which, "NormalizedSoftmaxLoss",
               losses.NormalizedSoftmaxLoss(**sizes, distance=DotProductSimilarity(normalize_embeddings=False)),
               {"distance": "dot"})  # fmt: skip
    class_loss(f"ProxyNCALoss.{which}.cosine", which, "ProxyNCALoss", losses.ProxyNCALoss(**sizes, distance=CosineSimilarity()),
               {"distance": "cosine"})  # fmt: skip
    class_loss(f"ProxyAnchorLoss.{which}.l2", which, "ProxyAnchorLoss", losses.ProxyAnchorLoss(**sizes, distance=LpDistance()),
               {"distance": "l2"})  # fmt: skip
    class_loss(f"ProxyAnchorLoss.{which}.mean", which, "ProxyAnchorLoss",
               losses.ProxyAnchorLoss(**sizes, reducer=reducers.MeanReducer()), {"reducer": "mean"})  # fmt: skip
    class_loss(f"ArcFaceLoss.{which}.sum", which, "ArcFaceLoss", losses.ArcFaceLoss(**sizes, reducer=reducers.SumReducer()),
               {"reducer": "sum"})  # fmt: skip

    # Regularisers.
    plain = {
        "LpRegularizer": [{}, {"p": 1}, {"power": 2}, {"p": 1, "power": 2}],
        "ZeroMeanRegularizer": [{}],
        "CenterInvariantRegularizer": [{}],
        "RegularFaceRegularizer": [{}],
    }
    for kind, variants in plain.items():
        for index, own in enumerate(variants):
            make = lambda: getattr(regularizers, kind)(**own)
            spec = {"name": kind, **own}
            class_loss(f"weight.{kind}.{which}.{index}", which, "NormalizedSoftmaxLoss",
                       losses.NormalizedSoftmaxLoss(**sizes, weight_regularizer=make(), weight_reg_weight=0.7),
                       {"weight_regularizer": spec, "weight_reg_weight": 0.7})  # fmt: skip
            class_loss(f"embedding.{kind}.{which}.{index}", which, "ProxyAnchorLoss",
                       losses.ProxyAnchorLoss(**sizes, embedding_regularizer=make(), embedding_reg_weight=0.3),
                       {"embedding_regularizer": spec, "embedding_reg_weight": 0.3})  # fmt: skip
    sparse = {"num_classes": C, "centers_per_class": 2}
    class_loss(f"weight.SparseCentersRegularizer.{which}", which, "SoftTripleLoss",
               losses.SoftTripleLoss(**sizes, centers_per_class=2, weight_regularizer=regularizers.SparseCentersRegularizer(**sparse), weight_reg_weight=2),
               {"centers_per_class": 2, "weight_regularizer": {"name": "SparseCentersRegularizer", **sparse}, "weight_reg_weight": 2},
               "w2")  # fmt: skip

    # Image-text losses over pairs: open_clip's formulas.
    for index, (log_scale, bias) in enumerate([(None, None), (1.5, -3.0)]):
        x, u = (INPUTS[which][key].clone().requires_grad_() for key in "xu")
        l = rounded(torch.tensor([math.log(1 / 0.07) if log_scale is None else log_scale])).requires_grad_()
        a, b = torch.nn.functional.normalize(x), torch.nn.functional.normalize(u)
        z = l.exp() * a @ b.t()
        target = torch.arange(len(x))
        value = (torch.nn.functional.cross_entropy(z, target) + torch.nn.functional.cross_entropy(z.t(), target)) / 2
        tensors[f"ClipLoss.{which}.{index}.start.scale"] = l.detach().clone()
        record(f"ClipLoss.{which}.{index}", which, "ClipLoss", {}, value, [x, u], [("scale", l, False)], ("x", "u"))
        x, u = (INPUTS[which][key].clone().requires_grad_() for key in "xu")
        l = rounded(torch.tensor([math.log(10) if log_scale is None else log_scale])).requires_grad_()
        b0 = rounded(torch.tensor([-10.0 if bias is None else bias])).requires_grad_()
        a, b = torch.nn.functional.normalize(x), torch.nn.functional.normalize(u)
        z = l.exp() * a @ b.t() + b0
        signs = 2 * torch.eye(len(x)) - 1
        value = -torch.nn.functional.logsigmoid(signs * z).sum() / len(x)
        tensors[f"SigLipLoss.{which}.{index}.start.scale"] = l.detach().clone()
        tensors[f"SigLipLoss.{which}.{index}.start.bias"] = b0.detach().clone()
        record(f"SigLipLoss.{which}.{index}", which, "SigLipLoss", {}, value, [x, u],
               [("scale", l, False), ("bias", b0, False)], ("x", "u"))  # fmt: skip

    # Global orthogonal regularisation.
    for index, options in enumerate([{}, {"mean_weight": 2.0, "second_moment_weight": 0.5, "aggregation": "sum"}]):
        peer = GlobalOrthogonalRegularizationLoss(model=torch.nn.Identity(), **options)
        x, u = (INPUTS[which][key].clone().requires_grad_() for key in "xu")
        value = sum(peer.compute_loss_from_embeddings([x, u]).values())
        record(f"Gor.{which}.{index}", which, "GlobalOrthogonalRegularizationLoss", options, value, [x, u], columns=("x", "u"))

    # Several losses at once, one with a miner.
    x = INPUTS[which]["x"].clone().requires_grad_()
    labels = torch.tensor(INPUTS[which]["labels"])
    peer = losses.MultipleLosses(
        [losses.TripletMarginLoss(margin=0.3), losses.SupConLoss(temperature=0.5)],
        [miners.TripletMarginMiner(margin=0.2), None], [0.25, 2.0])  # fmt: skip
    options = {
        "losses": [{"loss": "TripletMarginLoss", "loss_options": {"margin": 0.3}},
                   {"loss": "SupConLoss", "loss_options": {"temperature": 0.5}}],
        "miners": [{"miner": "TripletMarginMiner", "miner_options": {"margin": 0.2}}, None], "weights": [0.25, 2.0],
    }  # fmt: skip
    # Without a miner of its own the second one sees every tuple.
    record(f"MultipleLosses.{which}", which, "MultipleLosses", options, peer(x, labels), [x])

    # Two views of one thing.
    others = "AngularLoss CircleLoss GeneralizedLiftedStructureLoss IntraPairVarianceLoss LiftedStructureLoss " \
        "MultiSimilarityLoss SignalToNoiseRatioContrastiveLoss NCALoss TupletMarginLoss"  # fmt: skip
    for inner, inner_options, make in [(inner, {}, getattr(losses, inner)) for inner in others.split()] + [
        ("NTXentLoss", {"temperature": 0.3}, lambda: losses.NTXentLoss(temperature=0.3)),
        ("TripletMarginLoss", {}, lambda: losses.TripletMarginLoss()),
        ("SupConLoss", {"temperature": 0.4}, lambda: losses.SupConLoss(temperature=0.4)),
        ("ContrastiveLoss", {"neg_margin": 0.8}, lambda: losses.ContrastiveLoss(neg_margin=0.8)),
    ]:
        for symmetric in (True, False):
            x, u = (INPUTS[which][key].clone().requires_grad_() for key in "xu")
            value = losses.SelfSupervisedLoss(make(), symmetric=symmetric)(x, u)
            options = {"loss": inner, "loss_options": inner_options, "symmetric": symmetric}
            record(f"SelfSupervised.{inner}.{symmetric}.{which}", which, "SelfSupervisedLoss", options, value, [x, u], columns=("x", "u"))



# The rows' proxies are drawn by splitmix64 from the bits of the embeddings, as the library draws them.
def mix(x):
    x &= 2**64 - 1
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) % 2**64
    return x ^ (x >> 31)


def part(key, index):
    return mix(key ^ mix(index + 0x9E3779B97F4A7C15))


def pick(key, counter, count):
    bits = mix(key + counter * 0x9E3779B97F4A7C15)
    return int((bits >> 11) / 2**53 * count)


def draw(x, proxies):
    key = mix(0 ^ 0x5851F42D4C957F2D)
    for bits in x.detach().float().numpy().view("uint32").flatten().tolist():
        key = part(key, bits)
    drawn = list(range(proxies)) + [pick(part(key, 1), row, proxies) for row in range(proxies, len(x))]
    for last in range(len(drawn) - 1, 0, -1):
        other = pick(part(key, 2), last, last + 1)
        drawn[last], drawn[other] = drawn[other], drawn[last]
    return torch.tensor(drawn[: len(x)])


for which, K, D in [("waves", 3, 4), ("random", 6, 8)]:
    for index, options in enumerate([{}, {"lambdaC": 0.5, "alpha": 0.5, "margin": 0.01}]):
        x = INPUTS[which]["x"].clone().requires_grad_()
        peer = losses.ManifoldLoss(l=D, K=K, **options)
        peer.proxies.data = INPUTS[which]["w"].clone()
        # The peer inverts in float32; here in float64.
        drawn = draw(INPUTS[which]["x"], K)
        plain, torch.Tensor.float = torch.Tensor.float, lambda self: self
        value = peer(x, indices_tuple=drawn)
        torch.Tensor.float = plain
        record(f"ManifoldLoss.{which}.{index}", which, "ManifoldLoss", {"K": K, **options}, value.sum(), [x],
               [("w", peer.proxies, False)])  # fmt: skip

# Sequences: the state after each batch matters to the next.
SEQUENCES = []


def sequence(name, loss_name, options, peer, batches):
    values = []
    for step, (rows, columns) in enumerate(batches):
        x = INPUTS["random"]["x"][rows].clone().requires_grad_()
        value = peer(x, torch.tensor(INPUTS["random"]["labels"])[rows])
        value.backward()
        tensors[f"{name}.gradient.{step}"] = x.grad
        values.append(value.item())
    SEQUENCES.append({
        "name": name, "loss": loss_name, "loss_options": options, "values": values,
        "rows": [rows.tolist() for rows, _ in batches],
    })  # fmt: skip


parts = [(torch.arange(start, start + 6) % 24, None) for start in (0, 6, 12, 18, 3, 9)]
# Not these: beside a memory the peer's NCALoss compares each row with itself, too, and its LiftedStructureLoss takes
# places in the memory for rows of the batch.
remembering = [inner for inner in (others + " MarginLoss").split() if inner not in ("NCALoss", "LiftedStructureLoss")]
for inner, inner_options, make in [(inner, {}, getattr(losses, inner)) for inner in remembering] + [
    ("ContrastiveLoss", {}, lambda: losses.ContrastiveLoss()),
    ("NTXentLoss", {}, lambda: losses.NTXentLoss()),
    ("TripletMarginLoss", {"margin": 0.2}, lambda: losses.TripletMarginLoss(margin=0.2)),
    ("SupConLoss", {}, lambda: losses.SupConLoss()),
]:
    for miner in (None, TRIPLETS):
        options = {"loss": inner, "loss_options": inner_options, "memory_size": 16}
        peer_miner = None
        if miner:
            options |= {"miner": miner["name"], "miner_options": miner["options"]}
            peer_miner = getattr(miners, miner["name"])(**miner["options"])
        peer = losses.CrossBatchMemory(make(), embedding_size=8, memory_size=16, miner=peer_miner)
        sequence(f"CrossBatchMemory.{inner}.{bool(miner)}", "CrossBatchMemory", options, peer, parts)


class Detached(losses.DynamicSoftMarginLoss):
    """Without the gradient through the histogram, which fails on the second step."""

    def update_histogram(self, data):
        super().update_histogram(data.detach())


for index, options in enumerate([{}, {"num_bins": 20, "momentum": 0.3}]):
    sequence(f"DynamicSoftMargin.{index}", "DynamicSoftMarginLoss", options, Detached(**options), parts[:4])

peer = losses.SubCenterArcFaceLoss(num_classes=6, embedding_size=8, sub_centers=2)
peer.W.data = INPUTS["random"]["w2"].t().clone()
outliers, dominant = peer.get_outliers(INPUTS["random"]["x"], torch.tensor(INPUTS["random"]["labels"]), threshold=60)
tensors["outliers.dominant"] = dominant.t()

if __name__ == "__main__":
    from safetensors.torch import save_file

    for which, record_ in INPUTS.items():
        for key in ("x", "u", "w", "w2"):
            tensors[f"input.{which}.{key}"] = record_[key]
        tensors[f"input.{which}.unit.w"] = rounded(torch.nn.functional.normalize(record_["w"]))
    save_file({key: value.detach().contiguous() for key, value in tensors.items()}, FOLDER / "objectives_class.safetensors")
    document = {
        "inputs": {which: {"rows": len(record_["x"]), "labels": record_["labels"]} for which, record_ in INPUTS.items()},
        "cases": cases, "sequences": SEQUENCES, "outliers": outliers.tolist(),
    }  # fmt: skip
    (FOLDER / "objectives_class.json").write_text(json.dumps(document, indent=1) + "\n")
    print(len(cases), "cases,", len(SEQUENCES), "sequences")
