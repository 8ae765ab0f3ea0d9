"""Golden values and gradients of the losses over tuples, scores and teachers, from sentence-transformers.

Writes objectives_teachers.json and objectives_teachers.safetensors beside this file. Run it with the environment of
benchmarks/peers/requirements.txt:

    python objectives_teachers.py

Everything is float64. objectives_teachers.json:

    versions   {package: version}
    losses     [{"name": unique, "loss", "loss_options", "input": set of objectives.json, "columns": ["x", "u", "n"],
                 "scores": null or a list, row by row, "guide": null or one of the guides below for each column, "value",
                 "gradient_norm": {column: Frobenius norm}}]
               inputs are input.<set>.<column> of objectives.safetensors, gradients gradient.<name>.<column> of
               objectives_teachers.safetensors, both F64 [rows, dimensions]

Guides are sums of input columns: "n", "x+n", "u".
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from objectives import input_sets
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.losses import gist_embed
from sentence_transformers.util import pairwise_cos_sim, pairwise_euclidean_sim

HERE = Path(__file__).parent
GUIDES = {"x": "n", "u": "x+n", "n": "u"}

# Values and Frobenius norms of the gradient in x found before with the same library: main() compares.
PUBLISHED = {
    "AnglELoss/waves/xu/graded": (18.267374175, 18.363258274),
    "sentence_transformers.ContrastiveLoss/waves/xu/binary": (0.299825271, 0.273954224),
    "OnlineContrastiveLoss/waves/xu/binary": (4.763925452, 4.374703591),
    "TripletLoss/waves/xun": (4.905805600, 0.386511850),
    "MarginMSELoss/waves/xun/graded": (1.787600007, 1.591577068),
    "MegaBatchMarginLoss/waves/xu": (1.416299453, 0.243454977),
    "DistillKLDivLoss/waves/xun/complement": (0.181668440, 0.183084552),
    "GISTEmbedLoss/waves/xu": (97.448982654, 26.516818332),
}


def scores_of(sets, name, kind, columns):
    """[rows] or [rows, candidates]"""
    graded = torch.tensor(sets[name]["scores"]["graded"], dtype=torch.float64)
    rows = len(graded)
    if kind == "graded":
        return graded
    if kind == "binary":
        return torch.tensor([float(i % 2) for i in range(rows)], dtype=torch.float64)
    if kind in ("ones", "zeros"):
        return torch.full((rows,), 1.0 if kind == "ones" else 0.0, dtype=torch.float64)
    if kind == "lone":  # a single positive, and it is hard
        return torch.tensor([1.0] + [0.0] * (rows - 1), dtype=torch.float64)
    if kind == "complement":
        return torch.stack([graded, 1 - graded], dim=1)
    candidates = len(columns) - (2 if kind == "margins" else 1)
    generator = torch.Generator().manual_seed(3)
    spread = 10 * torch.randn(rows, candidates, generator=generator, dtype=torch.float64)
    # As float32 reads them: the program under test keeps scores in float32.
    return spread.float().double()


def guided(options):
    """GISTEmbedLoss without tokenizers: its embeddings are handed to it."""
    loss = gist_embed.GISTEmbedLoss.__new__(gist_embed.GISTEmbedLoss)
    torch.nn.Module.__init__(loss)
    defaults = {"temperature": 0.01, "margin_strategy": "absolute", "margin": 0.0, "contrast_anchors": True,
                "contrast_positives": True, "gather_across_devices": False, "must_retokenize": False}  # fmt: skip
    for key, value in {**defaults, **options}.items():
        setattr(loss, key, value)
    loss.model, loss.guide = "student", "guide"
    loss.similarity_fct = torch.nn.CosineSimilarity(dim=-1)
    loss.cross_entropy_loss = torch.nn.CrossEntropyLoss()

    def compute(embeddings, guides):
        gist_embed.embed_columns = lambda model, features: list(embeddings if model == "student" else guides)
        return loss([{} for _ in embeddings], None)

    return compute




def cases(sets):
    """(loss, options, input, columns, kind of scores or None, function(embeddings, scores, guides))"""
    cosine = losses.TripletDistanceMetric.COSINE
    for name in ("waves", "random"):
        for options in ({}, {"triplet_margin": 1.0}):
            yield "TripletLoss", options, name, "xun", None, lambda e, s, g, o=options: losses.TripletLoss(
                None, **o
            ).compute_loss_from_embeddings(e, None)
        options = {"distance_metric": "cosine", "triplet_margin": 0.1}
        yield "TripletLoss", options, name, "xun", None, lambda e, s, g: losses.TripletLoss(
            None, cosine, 0.1
        ).compute_loss_from_embeddings(e, None)

        for kind in ("binary", "lone", "ones", "zeros"):
            for loss, options in (
                ("ContrastiveLoss", {}),
                ("ContrastiveLoss", {"margin": 1.1, "size_average": False}),
                ("OnlineContrastiveLoss", {}),
                ("OnlineContrastiveLoss", {"margin": 1.1}),
            ):
                named = "sentence_transformers.ContrastiveLoss" if loss == "ContrastiveLoss" else loss
                yield named, options, name, "xu", kind, lambda e, s, g, loss=loss, o=options: getattr(losses, loss)(
                    None, **o
                ).compute_loss_from_embeddings(e, s)
            # torch's pairwise distance adds 1e-6 to every difference, which is left out here.
            for loss in ("ContrastiveLoss", "OnlineContrastiveLoss"):
                named = "sentence_transformers.ContrastiveLoss" if loss == "ContrastiveLoss" else loss
                options = {"distance_metric": "euclidean", "margin": 2.0}

                def euclidean(e, s, g, loss=loss):
                    metric = lambda x, y: -pairwise_euclidean_sim(x, y)  # noqa: E731
                    return getattr(losses, loss)(None, metric, 2.0).compute_loss_from_embeddings(e, s)

                yield named, options, name, "xu", kind, euclidean

        for options in ({}, {"scale": 3.0}):
            for columns, kind in (("xu", "graded"), ("xu", "binary"), ("xun", None)):
                yield "AnglELoss", options, name, columns, kind, lambda e, s, g, o=options: losses.AnglELoss(
                    None, **o
                ).compute_loss_from_embeddings(e, s)

        for options in ({}, {"positive_margin": 0.5, "negative_margin": 0.1}):
            yield "MegaBatchMarginLoss", options, name, "xu", None, lambda e, s, g, o=options: losses.MegaBatchMarginLoss(
                None, use_mini_batched_version=False, **o
            ).calculate_loss([[column] for column in e])

        for columns, kind in (("xun", "graded"), ("xun", "raw"), ("xunu", "raw"), ("xunu", "margins")):
            yield "MarginMSELoss", {}, name, columns, kind, lambda e, s, g: losses.MarginMSELoss(
                None
            ).compute_loss_from_embeddings(e, s)
        yield "MarginMSELoss", {"similarity_fct": "cosine"}, name, "xun", "raw", lambda e, s, g: losses.MarginMSELoss(
            None, pairwise_cos_sim
        ).compute_loss_from_embeddings(e, s)

        for columns, kind in (("xun", "complement"), ("xun", "raw"), ("xunu", "raw")):
            for options in ({}, {"temperature": 2.0}, {"student_temperature": 0.5, "teacher_temperature": 4.0}):
                yield "DistillKLDivLoss", options, name, columns, kind, lambda e, s, g, o=options: (
                    losses.DistillKLDivLoss(None, **o).compute_loss_from_embeddings(e, s)
                )

        for columns in ("x", "xu", "xun"):
            for metric in ("cosine", "mse", "l2"):
                options = {"distance_metric": metric}
                yield "EmbedDistillLoss", options, name, columns, None, lambda e, s, g, o=options: (
                    losses.EmbedDistillLoss(None, **o).compute_loss_from_embeddings(e, g)
                )
        yield "MSELoss", {}, name, "xu", None, lambda e, s, g: losses.MSELoss(None).compute_loss_from_embeddings(e, g)
        yield "MSELoss", {"broadcast": True}, name, "xu", None, lambda e, s, g: losses.MSELoss(
            None
        ).compute_loss_from_embeddings(e, [g[0], g[0]])

        for columns in ("xu", "xun"):
            for options in (
                {},
                {"temperature": 0.1, "margin": 0.1},
                {"temperature": 0.1, "margin": 0.1, "margin_strategy": "relative"},
                {"temperature": 0.1, "contrast_anchors": False},
                {"temperature": 0.1, "contrast_positives": False},
            ):
                yield "GISTEmbedLoss", options, name, columns, None, lambda e, s, g, o=options: guided(o)(e, g)

        for options in ({}, {"scale": 5.0}):
            yield "MultipleNegativesSymmetricRankingLoss", options, name, "xu", None, lambda e, s, g, o=options: (
                losses.MultipleNegativesSymmetricRankingLoss(None, **o).compute_loss_from_embeddings(e, None)
            )


def main():
    sets = input_sets()
    tensors, records = {}, []
    for loss, options, name, columns, kind, compute in cases(sets):
        members = sets[name]
        leaves = {column: members[column].clone().requires_grad_() for column in sorted(set(columns))}
        guides = [sum(members[part] for part in GUIDES[column].split("+")) for column in columns]
        scores = None if kind is None else scores_of(sets, name, kind, columns)
        value = compute([leaves[column] for column in columns], scores, guides)
        value.backward()
        assert torch.isfinite(value)
        words = [loss, ",".join(f"{key}={option}" for key, option in options.items()), name, columns, kind]
        case = "/".join(word for word in words if word)
        assert case not in (record["name"] for record in records), case
        norms = {}
        for column, leaf in leaves.items():
            gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
            assert torch.isfinite(gradient).all(), case
            tensors[f"gradient.{case}.{column}"] = gradient
            norms[column] = gradient.norm().item()
        needs_guide = loss in ("GISTEmbedLoss", "EmbedDistillLoss", "MSELoss")
        records.append({
            "name": case, "loss": loss, "loss_options": options, "input": name, "columns": list(columns),
            "scores": None if scores is None else scores.flatten().tolist(),
            "guide": [GUIDES[column] for column in columns] if needs_guide else None,
            "value": value.item(), "gradient_norm": norms,
        })  # fmt: skip

    found = {record["name"]: record for record in records}
    for name, (value, gradient) in PUBLISHED.items():
        assert abs(found[name]["value"] - value) < 1e-9, (name, found[name]["value"], value)
        assert abs(found[name]["gradient_norm"]["x"] - gradient) < 1e-9, (name, found[name]["gradient_norm"])

    save_file(tensors, HERE / "objectives_teachers.safetensors")
    versions = {package: version(package) for package in ("torch", "sentence-transformers")}
    body = ",\n".join("    " + json.dumps(record) for record in records)
    text = f'{{\n  "versions": {json.dumps(versions)},\n  "losses": [\n{body}\n  ]\n}}\n'
    (HERE / "objectives_teachers.json").write_text(text)
    print(len(records), "losses")


if __name__ == "__main__":
    main()
