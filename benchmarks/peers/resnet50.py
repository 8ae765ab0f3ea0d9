"""PyTorch: median time of ResNet-50's forward and backward pass on random weights and random pictures.

    python resnet50.py                        channels_last, 8 x 224 x 224, two threads
    python resnet50.py --format contiguous    NCHW

`cargo run --release -p engine --example resnet50` is ours. Neither updates weights.
"""

import statistics
import time

import measure

WARM_UP = 2


def main():
    given = measure.arguments(
        __doc__.splitlines()[0],
        format=dict(choices=("channels_last", "contiguous"), default="channels_last"),
        precision=dict(choices=("f32", "bf16"), default="f32", help="bf16: autocast"),
        batch=dict(type=int, default=8),
    )
    import torch
    from torchvision.models import resnet50

    torch.manual_seed(0)
    layout = torch.channels_last if given.format == "channels_last" else torch.contiguous_format
    model = resnet50().train().to(memory_format=layout)
    model.fc = torch.nn.Identity()
    pictures = torch.randn(given.batch, 3, 224, 224).to(memory_format=layout)
    upstream = torch.randn(given.batch, 2048)

    times, forward = [], []
    for _ in range(WARM_UP + (given.steps or 10)):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bf16"):
            embeddings = model(pictures)
        forward.append(time.perf_counter() - start)
        embeddings.float().backward(upstream)
        times.append(time.perf_counter() - start)
        model.zero_grad()
    times, forward = times[WARM_UP:], forward[WARM_UP:]
    measure.report(
        benchmark="resnet50", batch=given.batch, format=given.format, precision=given.precision, steps=len(times),
        seconds_per_step=statistics.median(times), fastest=min(times), slowest=max(times),
        forward_seconds=statistics.median(forward),
    )  # fmt: skip


if __name__ == "__main__":
    main()
