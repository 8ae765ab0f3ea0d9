"""Values and gradients of the loss of Barlow Twins as its authors compute it: writes barlow_twins.json beside itself.

The views are `sin(0.9 i + 1.7 j + 0.3 i j)` and `cos(0.5 i + 1.1 j + 0.2 i j)`, i from 1 over the rows, j from 1 over 4
columns, in double precision from numbers of 32 bits. Run in the environment of benchmarks/peers.
"""

import json
import os

import torch


def table(rows, formula):
    i = torch.arange(1, rows + 1, dtype=torch.float64)[:, None]
    j = torch.arange(1, 5, dtype=torch.float64)[None, :]
    return formula(i, j).float().double().requires_grad_()


cases = []
for rows, options in [(8, {}), (8, {"lambda": 0.5}), (3, {"lambda": 0.02, "eps": 0.01})]:
    first = table(rows, lambda i, j: torch.sin(0.9 * i + 1.7 * j + 0.3 * i * j))
    second = table(rows, lambda i, j: torch.cos(0.5 * i + 1.1 * j + 0.2 * i * j))
    norm = torch.nn.BatchNorm1d(4, affine=False, eps=options.get("eps", 1e-5), dtype=torch.float64)
    # facebookresearch/barlowtwins, main.py, BarlowTwins.forward
    c = norm(first).T @ norm(second)
    c = c / rows
    on_diagonal = (torch.diagonal(c) - 1).pow(2).sum()
    off_diagonal = c.flatten()[:-1].view(3, 5)[:, 1:].flatten().pow(2).sum()
    loss = on_diagonal + options.get("lambda", 0.0051) * off_diagonal
    loss.backward()
    gradient = torch.cat([first.grad, second.grad]).flatten().tolist()
    cases.append({"rows": rows, "options": options, "value": loss.item(), "gradient": gradient})

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "barlow_twins.json"), "w", encoding="utf-8") as file:
    file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
