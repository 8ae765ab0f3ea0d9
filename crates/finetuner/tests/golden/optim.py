"""Weights after each of some steps by torch's optimisers in float64, and learning-rate factors by transformers' and torch's
schedules.

    python optim.py      # torch, transformers

Gradients are `sin(0.7 step + 1.3 place) (1 + 0.2 place)` with every third one of a step 0, and weights start at
`cos(0.9 place)`, place counted from 0.
"""

import json
import math
from pathlib import Path

import torch
from torch.optim import lr_scheduler
from transformers import optimization

torch.set_default_dtype(torch.float64)
PLACES, STEPS = 6, 12

OPTIMIZERS = [
    ("Adam", 1e-2, {}),
    ("Adam", 1e-2, {"betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", 1e-2, {"amsgrad": True}),
    ("SGD", 1e-1, {}),
    ("SGD", 1e-1, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ("SGD", 1e-1, {"momentum": 0.9, "dampening": 0.3}),
    ("RAdam", 1e-2, {}),
    ("RAdam", 1e-2, {"betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1}),
    ("RAdam", 1e-2, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("NAdam", 1e-2, {}),
    ("NAdam", 1e-2, {"betas": [0.8, 0.95], "eps": 1e-6, "weight_decay": 0.1, "momentum_decay": 0.01}),
    ("NAdam", 1e-2, {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("Adamax", 1e-2, {}),
    ("Adamax", 1e-2, {"betas": [0.8, 0.95], "eps": 1e-4, "weight_decay": 0.1}),
    ("Adagrad", 1e-1, {}),
    ("Adagrad", 1e-1, {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-4, "weight_decay": 0.1}),
    ("Adadelta", 1.0, {}),
    ("Adadelta", 1.0, {"rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    ("RMSprop", 1e-2, {}),
    ("RMSprop", 1e-2, {"alpha": 0.9, "eps": 1e-4, "weight_decay": 0.1, "momentum": 0.9}),
    ("RMSprop", 1e-2, {"alpha": 0.9, "centered": True, "eps": 1e-3}),
    ("RMSprop", 1e-2, {"alpha": 0.9, "centered": True, "momentum": 0.5, "eps": 1e-3}),
    ("ASGD", 1e-1, {}),
    ("ASGD", 1e-1, {"lambd": 0.1, "alpha": 0.5, "weight_decay": 0.1}),
    ("Rprop", 1e-2, {}),
    ("Rprop", 1e-2, {"etas": [0.4, 1.5], "step_sizes": [1e-3, 0.1]}),
]


def trajectory(name, rate, options):
    weight = torch.nn.Parameter(torch.tensor([math.cos(0.9 * place) for place in range(PLACES)]).float().double())
    optimizer = getattr(torch.optim, name)([weight], lr=rate, **options)
    weights = []
    for step in range(1, STEPS + 1):
        gradient = [
            0.0 if (place + step) % 3 == 0 else math.sin(0.7 * step + 1.3 * place) * (1 + 0.2 * place)
            for place in range(PLACES)
        ]
        weight.grad = torch.tensor(gradient).float().double()
        optimizer.step()
        weights.append(weight.detach().tolist())
    return {"name": name, "learning_rate": rate, "options": options, "weights": weights}


def factors(name, options, warmup, total):
    rate = 1e-3
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    makers = {
        "constant": lambda: optimization.get_constant_schedule_with_warmup(optimizer, warmup),
        "linear": lambda: optimization.get_linear_schedule_with_warmup(optimizer, warmup, total),
        "cosine": lambda: optimization.get_cosine_schedule_with_warmup(optimizer, warmup, total, **options),
        "cosine_with_restarts": lambda: optimization.get_cosine_with_hard_restarts_schedule_with_warmup(optimizer, warmup, total, **options),
        "cosine_with_min_lr": lambda: optimization.get_cosine_with_min_lr_schedule_with_warmup(optimizer, warmup, total, **options),
        "cosine_warmup_with_min_lr": lambda: optimization.get_cosine_with_min_lr_schedule_with_warmup_lr_rate(optimizer, warmup, total, **options),
        "polynomial": lambda: optimization.get_polynomial_decay_schedule_with_warmup(optimizer, warmup, total, **options),
        "inverse_sqrt": lambda: optimization.get_inverse_sqrt_schedule(optimizer, warmup, **options),
        "warmup_stable_decay": lambda: optimization.get_wsd_schedule(optimizer, warmup, num_training_steps=total, **options),
        "step": lambda: lr_scheduler.StepLR(optimizer, **options),
        "multi_step": lambda: lr_scheduler.MultiStepLR(optimizer, **options),
        "exponential": lambda: lr_scheduler.ExponentialLR(optimizer, **options),
    }  # fmt: skip
    schedule = makers[name]()
    values = []
    for _ in range(total):
        values.append(schedule.get_last_lr()[0] / rate)
        optimizer.step()
        schedule.step()
    return {"name": name, "options": options, "warmup": warmup, "total": total, "factors": values}


SCHEDULES = [
    ("constant", {}, 5, 20),
    ("linear", {}, 5, 20),
    ("cosine", {}, 5, 20),
    ("cosine", {"num_cycles": 1.5}, 0, 20),
    ("cosine_with_restarts", {}, 5, 20),
    ("cosine_with_restarts", {"num_cycles": 3}, 2, 20),
    ("cosine_with_min_lr", {"min_lr": 1e-4}, 5, 20),
    ("cosine_with_min_lr", {"min_lr_rate": 0.2, "num_cycles": 1.0}, 0, 20),
    ("cosine_warmup_with_min_lr", {"min_lr": 1e-4}, 5, 20),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.2, "warmup_lr_rate": 0.3}, 5, 20),
    ("polynomial", {}, 5, 20),
    ("polynomial", {"lr_end": 1e-5, "power": 2.0}, 0, 20),
    ("inverse_sqrt", {}, 5, 20),
    ("inverse_sqrt", {"timescale": 7}, 0, 20),
    ("warmup_stable_decay", {"num_decay_steps": 6}, 5, 20),
    ("warmup_stable_decay", {"num_decay_steps": 6, "decay_type": "linear", "min_lr_ratio": 0.1, "warmup_type": "cosine"}, 5, 20),
    ("warmup_stable_decay", {"num_decay_steps": 6, "num_stable_steps": 4, "decay_type": "1-sqrt", "warmup_type": "1-sqrt"}, 5, 20),
    ("step", {"step_size": 4, "gamma": 0.5}, 0, 20),
    ("multi_step", {"milestones": [3, 9]}, 0, 20),
    ("exponential", {"gamma": 0.9}, 0, 20),
]

if __name__ == "__main__":
    document = {
        "optimizers": [trajectory(*case) for case in OPTIMIZERS],
        "schedules": [factors(*case) for case in SCHEDULES],
    }
    (Path(__file__).parent / "optim.json").write_text(json.dumps(document, indent=1) + "\n")
    print(len(document["optimizers"]), "optimisers,", len(document["schedules"]), "schedules")
