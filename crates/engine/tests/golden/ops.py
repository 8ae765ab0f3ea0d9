"""Golden numbers of the engine's operations, from PyTorch.

Writes ops.safetensors and ops.json beside this file. Run it with the environment of benchmarks/peers/requirements.txt:

    python ops.py

Inputs are random float32 values; every result is computed in float64 from exactly those and rounded to float32 once.

    ops.json         {"versions", "offsets": [0, 3, 20, 29],
                      "operations": [{"name", "operation", "options", "inputs": [names], "outputs": [names]}],
                      "optimisers": [{"name", "optimiser", "options", "steps"}],
                      "clipping": [{"name", "max_norm", "total_norm", "parameters": [names]}]}
    ops.safetensors  F32:
                     <name>.input.<input>, <name>.output.<output>
                     <name>.upstream.<output>   cotangent of that output
                     <name>.gradient.<input>    d sum(outputs * upstreams) / d input
                     <optimiser>.parameter.0 .. .5, <optimiser>.gradient.1 .. .5   before the first and after each step
                     <clipping>.before.<parameter>, <clipping>.after.<parameter>   gradients

Weights of linear layers are [outputs, inputs], as PyTorch and the model files have them. Rows of sequence s are
offsets[s] .. offsets[s + 1]. Attention: query, key and value are [tokens, heads * head_size], head h in columns
h * head_size .. (h + 1) * head_size; the bias of a sequence of length s is bias[h, :s, :s], added to the scores after
their scaling by 1 / sqrt(head_size).
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

torch.set_num_threads(1)
HERE = Path(__file__).parent
LENGTHS = [3, 17, 9]
OFFSETS = [0, 3, 20, 29]
TOKENS = OFFSETS[-1]
HEADS, HEAD_SIZE = 4, 8
GEM_POWER, GEM_FLOOR = 3.0, 1e-6

generator = torch.Generator().manual_seed(11)
tensors = {}
operations = []


def random(*shape, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(*shape, generator=generator)


def record(name, operation, function, inputs, **options):
    """Runs `function` on float64 copies of `inputs` (name -> tensor) and stores values and gradients."""
    leaves = {key: value.double().requires_grad_(value.is_floating_point()) for key, value in inputs.items()}
    results = function(**leaves)
    results = results if isinstance(results, dict) else {"y": results}
    total = 0
    for key, value in results.items():
        upstream = random(*value.shape)
        total = total + (value * upstream.double()).sum()
        tensors[f"{name}.output.{key}"] = value.detach().float()
        tensors[f"{name}.upstream.{key}"] = upstream
    total.backward()
    for key, leaf in leaves.items():
        tensors[f"{name}.input.{key}"] = inputs[key]
        tensors[f"{name}.gradient.{key}"] = leaf.grad.float()
    operations.append(
        {"name": name, "operation": operation, "options": options, "inputs": list(inputs), "outputs": list(results)}
    )


def per_sequence(function, *packed):
    pieces = [tensor.split(LENGTHS) for tensor in packed]
    return torch.cat([function(*piece) for piece in zip(*pieces, strict=True)])


def attention(query, key, value, bias=None, causal=False):
    def one(q, k, v):
        length = len(q)
        q, k, v = (tensor.view(length, HEADS, HEAD_SIZE).transpose(0, 1) for tensor in (q, k, v))
        scores = q @ k.transpose(1, 2) / HEAD_SIZE**0.5
        if bias is not None:
            scores = scores + bias[:, :length, :length]
        if causal:
            scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf)
        return (scores.softmax(-1) @ v).transpose(0, 1).reshape(length, HEADS * HEAD_SIZE)

    return per_sequence(one, query, key, value)


def linears():
    layer = {"weight": random(24, 32, scale=0.3), "bias": random(24)}
    x = random(TOKENS, 32)
    activations = {
        "none": lambda y: y,
        "gelu": functional.gelu,
        "gelu_tanh": lambda y: functional.gelu(y, approximate="tanh"),
        "relu": functional.relu,
        "tanh": torch.tanh,
    }
    for activation, apply in activations.items():
        record(
            f"linear_{activation}", "linear", lambda x, weight, bias: apply(functional.linear(x, weight, bias)),
            {"x": x, **layer}, activation=activation,
        )  # fmt: skip
    record(
        "linear_without_bias", "linear", lambda x, weight: functional.linear(x, weight),
        {"x": x, "weight": layer["weight"]}, activation="none",
    )  # fmt: skip
    # Values where the two GELUs differ most, and far out on both sides.
    points = torch.linspace(-6, 6, 97)
    for activation in ("gelu", "gelu_tanh"):
        record(activation, activation, lambda x: activations[activation](x), {"x": points})


def norms():
    x, residual = random(TOKENS, 32, scale=2.0, shift=0.5), random(TOKENS, 32)
    scale = {"weight": random(32, scale=0.3, shift=1.0), "bias": random(32)}
    for epsilon in (1e-12, 1e-5):
        record(
            f"layer_norm_{epsilon:.0e}", "layer_norm",
            lambda x, weight, bias: functional.layer_norm(x, (32,), weight, bias, epsilon),
            {"x": x, **scale}, epsilon=epsilon,
        )  # fmt: skip
        record(
            f"add_layer_norm_{epsilon:.0e}", "add_layer_norm",
            lambda x, residual, weight, bias: functional.layer_norm(x + residual, (32,), weight, bias, epsilon),
            {"x": x, "residual": residual, **scale}, epsilon=epsilon,
        )  # fmt: skip
    record(
        "rms_norm", "rms_norm", lambda x, weight: functional.rms_norm(x, (32,), weight, 1e-6),
        {"x": x, "weight": scale["weight"]}, epsilon=1e-6,
    )  # fmt: skip
    record("l2_normalise", "l2_normalise", lambda x: functional.normalize(x), {"x": random(7, 32)}, epsilon=1e-12)
    record("softmax", "softmax", lambda x: x.softmax(-1), {"x": random(7, 32, scale=3.0)})
    record("log_softmax", "log_softmax", lambda x: x.log_softmax(-1), {"x": random(7, 32, scale=3.0)})


def attentions():
    packed = {name: random(TOKENS, HEADS * HEAD_SIZE) for name in ("query", "key", "value")}
    bias = random(HEADS, max(LENGTHS), max(LENGTHS))
    sizes = {"heads": HEADS, "head_size": HEAD_SIZE}
    record("attention", "attention", attention, packed, **sizes, causal=False)
    record("attention_bias", "attention", attention, {**packed, "bias": bias}, **sizes, causal=False)
    record(
        "attention_causal", "attention",
        lambda query, key, value: attention(query, key, value, causal=True), packed, **sizes, causal=True,
    )  # fmt: skip


def poolings():
    x = random(TOKENS, 32)
    kinds = {
        "mean": lambda rows: rows.mean(0),
        "cls": lambda rows: rows[0],
        "max": lambda rows: rows.max(0).values,
        "last": lambda rows: rows[-1],
        "gem": lambda rows: (rows.clamp(min=GEM_FLOOR) ** GEM_POWER).mean(0) ** (1 / GEM_POWER),
    }
    for kind, pool in kinds.items():
        options = {"power": GEM_POWER, "floor": GEM_FLOOR} if kind == "gem" else {}
        record(
            f"pool_{kind}", "pool", lambda x: torch.stack([pool(rows) for rows in x.split(LENGTHS)]), {"x": x},
            kind=kind, **options,
        )  # fmt: skip
    ids = torch.randint(0, 13, (TOKENS,), generator=generator)
    tensors["embedding.ids"] = ids.int()
    record("embedding", "embedding", lambda table: functional.embedding(ids, table), {"table": random(13, 32)})


def optimisers():
    choices = {
        "adamw": (torch.optim.AdamW, {"lr": 1e-3}),
        "adamw_decayed": (torch.optim.AdamW, {"lr": 3e-2, "betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1}),
        "adam": (torch.optim.Adam, {"lr": 1e-3}),
        "adam_decayed": (torch.optim.Adam, {"lr": 1e-2, "weight_decay": 0.1}),
        "adam_amsgrad": (torch.optim.Adam, {"lr": 1e-2, "amsgrad": True}),
        "sgd": (torch.optim.SGD, {"lr": 1e-2}),
        "sgd_momentum": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9}),
        "sgd_dampened": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
        "sgd_nesterov": (torch.optim.SGD, {"lr": 1e-2, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    }
    described = []
    for name, (build, options) in choices.items():
        start = random(23)
        parameter = torch.nn.Parameter(start.double())
        optimiser = build([parameter], **options)
        tensors[f"{name}.parameter.0"] = start
        for step in range(1, 6):
            gradient = random(23, scale=0.5 * step)
            gradient[3] = 0.0
            parameter.grad = gradient.double()
            optimiser.step()
            tensors[f"{name}.gradient.{step}"] = gradient
            tensors[f"{name}.parameter.{step}"] = parameter.detach().float().clone()
        described.append({"name": name, "optimiser": build.__name__, "options": options, "steps": 5})
    return described


def clipping():
    described = []
    for name, limit in (("clip_above", 1.0), ("clip_below", 100.0)):
        parameters = {"a": random(23), "b": random(4, 5), "c": random(1)}
        leaves = {}
        for key, gradient in parameters.items():
            leaves[key] = torch.nn.Parameter(torch.zeros_like(gradient, dtype=torch.float64))
            leaves[key].grad = gradient.double()
            tensors[f"{name}.before.{key}"] = gradient
        total = torch.nn.utils.clip_grad_norm_(list(leaves.values()), limit)
        for key, leaf in leaves.items():
            tensors[f"{name}.after.{key}"] = leaf.grad.float()
        described.append(
            {"name": name, "max_norm": limit, "total_norm": total.item(), "parameters": list(parameters)}
        )
    return described


def main():
    linears()
    norms()
    attentions()
    poolings()
    description = {
        "versions": {"torch": version("torch")},
        "offsets": OFFSETS,
        "operations": operations,
        "optimisers": optimisers(),
        "clipping": clipping(),
    }
    save_file({name: value.clone().contiguous() for name, value in tensors.items()}, HERE / "ops.safetensors")
    (HERE / "ops.safetensors").chmod(0o644)
    lines = []
    for key, part in description.items():
        if isinstance(part, list) and isinstance(part[0], dict):
            body = ",\n".join("    " + json.dumps(entry) for entry in part)
            lines.append(f'  "{key}": [\n{body}\n  ]')
        else:
            lines.append(f'  "{key}": {json.dumps(part)}')
    (HERE / "ops.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
