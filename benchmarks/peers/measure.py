"""What the peer programs share: arguments, the thread count, clocks, peak memory and the one line they print.

Import this before torch: the thread count has to stand in the environment when torch starts.
"""

import argparse
import json
import os
import resource
import sys
import time


# Of programs that train a model and measure it before and after.
SAME_CHANCE = dict(action="store_true", help="the dropout masks and class vectors that Finetuner draws with that seed")
EVALUATE = dict(choices=("both", "after", "never"), default="both", help="when to measure (both)")


def arguments(description, *positional, **extra):
    """Parses `positional`, --threads, --steps and `extra` (name -> add_argument keywords); fixes the thread count."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=0, help="stop after so many training steps; 0: the whole run")
    for name in positional:
        parser.add_argument(name)
    for name, options in extra.items():
        parser.add_argument("--" + name.replace("_", "-"), **options)
    given = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ[variable] = str(given.threads)
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

    import torch

    torch.set_num_threads(given.threads)
    return given


def peak_bytes():
    """Highest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Clock:
    """with Clock() as clock: …; clock.seconds"""

    def __enter__(self):
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.start


def environment():
    import platform

    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "mkl_environment": {key: value for key, value in os.environ.items() if key.startswith("MKL_")},
    }


def report(**record):
    """Prints the result: one line of JSON on stdout."""
    print(json.dumps({**record, "peak_bytes": peak_bytes(), "environment": environment()}))
    sys.stdout.flush()
