"""PyTorch: GFLOP/s of the matrix products of a linear layer, forward (nt), gradient of the input (nn) and of the weights (tn).

    python products.py --precision bf16

Shapes and names are those of `cargo bench -p engine -- matmul`, each the best of several. Operands of bf16 lie in memory as such.
"""

import json
import time

import measure

# Name, rows (tokens of a batch), hidden and feed-forward size.
MODELS = [("bert", 1024, 768, 3072), ("minilm", 4096, 384, 1536)]


def main():
    given = measure.arguments(
        __doc__.splitlines()[0], precision=dict(choices=("f32", "bf16"), default="f32", help="of operands and results")
    )
    import torch

    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[given.precision]
    for model, rows, hidden, inner in MODELS:
        for inputs, outputs in ((hidden, inner), (inner, hidden), (hidden, hidden)):
            x, weight, dy = (torch.randn(shape, dtype=dtype) for shape in ((rows, inputs), (outputs, inputs), (rows, outputs)))
            products = {"nt": lambda: x @ weight.T, "nn": lambda: dy @ weight, "tn": lambda: dy.T @ x}
            for kind, product in products.items():
                rate = 2e-9 * rows * inputs * outputs / fastest(product, given.steps or 30)
                name = f"matmul_{kind}_{given.precision}/{model}/{inputs}x{outputs}"
                print(json.dumps({"benchmark": name, "gflops": round(rate, 1)}), flush=True)


def fastest(run, times):
    seconds = []
    for _ in range(3 + times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


if __name__ == "__main__":
    main()
