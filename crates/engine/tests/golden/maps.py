"""Golden numbers of the engine's operations over feature maps, from PyTorch.

Writes maps.safetensors and maps.json beside this file. Run it with the environment of benchmarks/peers/requirements.txt:

    python maps.py

Inputs are random float32 values; every result is computed in float64 from exactly those and rounded to float32 once.

    maps.json         {"versions", "operations": [{"name", "operation", "options", "map": [images, height, width],
                       "inputs": [names]}]}
    maps.safetensors  F32: <name>.input.<input>, <name>.output.y, <name>.upstream.y, <name>.gradient.<input>,
                      and for batch norms <name>.running.{mean,variance} before and <name>.moved.{mean,variance} after

Feature maps are matrices [images * height * width, channels], one row a position; weights of convolutions are
[out, in / groups, height, width] as PyTorch has them.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

torch.set_num_threads(1)
HERE = Path(__file__).parent
generator = torch.Generator().manual_seed(12)
tensors = {}
operations = []


def random(*shape, scale=1.0, shift=0.0):
    return shift + scale * torch.randn(*shape, generator=generator)


def rows(x):
    """NCHW to rows."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def record(name, operation, function, inputs, **options):
    """Runs `function` on float64 copies of `inputs` (name -> tensor) and stores values and gradients."""
    leaves = {key: value.double().requires_grad_() for key, value in inputs.items()}
    result = function(**leaves)
    upstream = random(*result.shape)
    (result * upstream.double()).sum().backward()
    shaped = lambda tensor: (rows(tensor) if tensor.dim() == 4 else tensor).contiguous()
    tensors[f"{name}.output.y"] = shaped(result.detach()).float()
    tensors[f"{name}.upstream.y"] = shaped(upstream).clone()
    for key, leaf in leaves.items():
        store = shaped if key in ("x", "residual") else lambda tensor: tensor
        tensors[f"{name}.input.{key}"] = store(inputs[key]).clone()
        tensors[f"{name}.gradient.{key}"] = store(leaf.grad).float()
    x = inputs["x"]
    operations.append(
        {
            "name": name,
            "operation": operation,
            "options": options,
            "map": [x.shape[0], *x.shape[2:]] if x.dim() == 4 else None,
            "inputs": list(inputs),
        }
    )


def convolutions():
    # images, height, width, in, out, kernel, stride, padding (top, bottom, left, right), dilation, groups, bias
    cases = {
        "plain": (2, 9, 11, 5, 7, (3, 3), 1, (1, 1, 1, 1), 1, 1, True),
        "pointwise": (2, 4, 5, 6, 9, (1, 1), 1, (0, 0, 0, 0), 1, 1, True),
        "narrowing": (2, 4, 5, 9, 6, (1, 1), 1, (0, 0, 0, 0), 1, 1, False),
        "downsample": (2, 7, 5, 6, 8, (1, 1), 2, (0, 0, 0, 0), 1, 1, False),
        "stem": (1, 15, 17, 3, 8, (7, 7), 2, (3, 3, 3, 3), 1, 1, False),
        "same": (2, 8, 9, 4, 5, (3, 3), 2, (0, 1, 1, 1), 1, 1, False),
        "patches": (2, 12, 8, 3, 10, (4, 4), 4, (0, 0, 0, 0), 1, 1, True),
        "dilated": (1, 11, 9, 4, 6, (3, 3), 2, (2, 2, 2, 2), 2, 1, False),
        "oblong": (1, 6, 9, 4, 6, (1, 3), 1, (0, 0, 1, 1), 1, 1, False),
        "grouped": (2, 6, 7, 8, 12, (3, 3), 2, (1, 1, 1, 1), 1, 4, True),
        "depthwise": (2, 9, 8, 18, 18, (3, 3), 1, (1, 1, 1, 1), 1, 18, True),
        "depthwise_strided": (2, 9, 8, 18, 18, (5, 5), 2, (1, 2, 2, 2), 1, 18, False),
        "multiplied": (1, 5, 6, 4, 8, (3, 3), 1, (1, 1, 1, 1), 1, 4, False),
    }
    for name, (images, height, width, inputs, outputs, kernel, stride, padding, dilation, groups, bias) in cases.items():
        top, bottom, left, right = padding

        def convolve(x, weight, bias=None):
            padded = functional.pad(x, (left, right, top, bottom))
            return functional.conv2d(padded, weight, bias, stride=stride, dilation=dilation, groups=groups)

        arguments = {"x": random(images, inputs, height, width), "weight": random(outputs, inputs // groups, *kernel)}
        if bias:
            arguments["bias"] = random(outputs)
        record(
            f"conv_{name}", "conv2d", convolve, arguments,
            stride=stride, padding=padding, dilation=dilation, groups=groups,
        )  # fmt: skip


def batch_norms():
    activations = {
        "none": lambda y: y, "relu": functional.relu, "relu6": functional.relu6,
        "silu": functional.silu, "hard_swish": functional.hardswish,
    }  # fmt: skip
    for activation, apply in activations.items():
        for training in (True, False):
            for residual in (True, False):
                name = f"batch_norm_{activation}_{'train' if training else 'eval'}" + "_residual" * residual
                mean, variance = random(6), random(6).abs() + 0.5
                tensors[f"{name}.running.mean"], tensors[f"{name}.running.variance"] = mean, variance
                moved = [mean.double(), variance.double()]

                def norm(x, weight, bias, residual=None):
                    y = functional.batch_norm(x, *moved, weight, bias, training, 0.1, 1e-3)
                    return apply(y if residual is None else y + residual)

                arguments = {"x": random(2, 6, 5, 4, scale=2.0, shift=0.7), "weight": random(6), "bias": random(6, scale=2)}
                if residual:
                    arguments["residual"] = random(2, 6, 5, 4)
                record(name, "batch_norm", norm, arguments, activation=activation, training=training, eps=1e-3)
                tensors[f"{name}.moved.mean"], tensors[f"{name}.moved.variance"] = (t.float() for t in moved)


def pools():
    x = random(2, 5, 9, 8)
    for name, options in {
        "plain": dict(kernel_size=2, stride=2, padding=0),
        "resnet": dict(kernel_size=3, stride=2, padding=1),
        "ceil": dict(kernel_size=3, stride=2, padding=0, ceil_mode=True),
        "ceil_padded": dict(kernel_size=(3, 2), stride=3, padding=1, ceil_mode=True),
    }.items():
        kernel = options["kernel_size"]
        described = dict(
            kernel=kernel if isinstance(kernel, tuple) else (kernel, kernel), stride=options["stride"],
            padding=[options["padding"]] * 4, ceil=options.get("ceil_mode", False),
        )  # fmt: skip
        record(f"max_pool_{name}", "max_pool", lambda x: functional.max_pool2d(x, **options), {"x": x}, **described)
        for counted in (True, False):
            record(
                f"avg_pool_{name}_{counted}", "avg_pool",
                lambda x: functional.avg_pool2d(x, **options, count_include_pad=counted),
                {"x": x}, **described, count_padding=counted,
            )  # fmt: skip
    for size in ((1, 1), (3, 5), (9, 8), (12, 7)):
        record(
            f"adaptive_{size[0]}_{size[1]}", "adaptive",
            lambda x: functional.adaptive_avg_pool2d(x, size), {"x": x}, size=size,
        )  # fmt: skip


def others():
    points = torch.linspace(-8, 8, 96)
    for name, apply in {
        "relu6": functional.relu6, "hard_swish": functional.hardswish, "hard_sigmoid": functional.hardsigmoid,
        "silu": functional.silu,
    }.items():  # fmt: skip
        record(name, "activation", lambda x: apply(x), {"x": points}, activation=name)
    record(
        "channel_scale", "channel_scale", lambda x, factors: x * factors[:, :, None, None],
        {"x": random(3, 7, 4, 5), "factors": random(3, 7)},
    )  # fmt: skip
    record(
        "gem", "gem", lambda x, power: (x.clamp(min=1e-6) ** power).mean((2, 3)) ** (1 / power),
        {"x": random(3, 7, 4, 5, shift=0.5), "power": torch.tensor([2.7])}, eps=1e-6,
    )  # fmt: skip
    for mode in ("bilinear", "bicubic"):
        for antialias in (False, True):
            for source, target in (((7, 7), (16, 16)), ((14, 14), (9, 5)), ((5, 8), (5, 8)), ((1, 3), (4, 2))):
                name = f"resize_{mode}_{antialias}_{source[0]}x{source[1]}_{target[0]}x{target[1]}"

                def resize(x):
                    grid = x.view(1, *source, -1).permute(0, 3, 1, 2)
                    return functional.interpolate(
                        grid, size=target, mode=mode, align_corners=False, antialias=antialias
                    )

                record(
                    name, "resize", resize, {"x": random(source[0] * source[1], 3)},
                    source=source, target=target, mode=mode, antialias=antialias,
                )  # fmt: skip


convolutions()
batch_norms()
pools()
others()
save_file({key: value.contiguous() for key, value in tensors.items()}, HERE / "maps.safetensors")
description = {"versions": {"torch": version("torch")}, "operations": operations}
(HERE / "maps.json").write_text(json.dumps(description, indent=1) + "\n")
