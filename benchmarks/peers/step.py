"""PyTorch: median time of one training step (forward, backward, AdamW) on random weights and random tokens.

    python step.py --shape bert-base      12 layers of 768, 16 x 64 tokens
    python step.py --shape minilm-l6       6 layers of 384, 64 x 64 tokens
    python step.py --shape multilingual-minilm   12 layers of 384 and 250,037 words, 64 x 16 tokens
    python step.py --shape clip-base-32   CLIP ViT-B/32, 64 pictures of 224 x 224 with texts of 16 tokens, padded to 77

The objective is in-batch negatives (scale 20) between the mean-pooled first and second halves of the batch; of CLIP its own.
`--padded 16` leaves the padding of CLIP's texts out, which its own recipes do not.
"""

import statistics
import time

import measure

SHAPES = {
    "bert-base": dict(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, batch=16,
                      tokens=64),
    "minilm-l6": dict(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, batch=64,
                      tokens=64),
    "multilingual-minilm": dict(hidden_size=384, num_hidden_layers=12, num_attention_heads=12, intermediate_size=1536,
                                vocab_size=250_037, batch=64, tokens=16),
}  # fmt: skip
WARM_UP = 3


def main():
    given = measure.arguments(
        __doc__.splitlines()[0],
        shape=dict(choices=[*SHAPES, "clip-base-32"], required=True),
        padded=dict(type=int, default=77, help="tokens of every text of CLIP with its padding"),
        precision=dict(choices=("f32", "bf16"), default="f32", help="bf16: autocast"),
        fused=dict(action="store_true", help="AdamW(fused=True)"),
    )
    import torch

    torch.manual_seed(0)
    model, loss_of, size = clip(given.padded) if given.shape == "clip-base-32" else bert(given.shape)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-5, **({"fused": True} if given.fused else {}))

    times = []
    for _ in range(WARM_UP + (given.steps or 10)):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=given.precision == "bf16"):
            loss = loss_of()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.perf_counter() - start)
    times = times[WARM_UP:]
    measure.report(
        benchmark="step", shape=given.shape, **size, precision=given.precision, fused=given.fused,
        steps=len(times), seconds_per_step=statistics.median(times), fastest=min(times), slowest=max(times),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )  # fmt: skip


def bert(name):
    """A BERT, its loss on texts of its own, and how many and how long they are."""
    import torch
    from torch.nn.functional import cross_entropy, normalize
    from transformers import BertConfig, BertModel

    shape = dict(SHAPES[name])
    batch, tokens = shape.pop("batch"), shape.pop("tokens")
    model = BertModel(BertConfig(**shape), add_pooling_layer=False).train()
    ids = torch.randint(1000, 30000, (batch, tokens))
    mask = torch.ones_like(ids)

    def loss():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled = normalize(hidden.float().mean(1))
        scores = 20 * pooled[: batch // 2] @ pooled[batch // 2 :].T
        return cross_entropy(scores, torch.arange(batch // 2))

    return model, loss, {"batch": batch, "tokens": tokens}


def clip(padded, batch=64, tokens=16):
    """CLIP ViT-B/32, its loss on pairs of its own, and how many and how long they are."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    model = CLIPModel(CLIPConfig()).train()
    end = model.config.text_config.eos_token_id
    ids = torch.full((batch, padded), end)
    ids[:, : tokens - 1] = torch.randint(1000, 30000, (batch, tokens - 1))
    mask = (torch.arange(padded) < tokens).long().expand(batch, -1)
    pixels = torch.randn(batch, 3, 224, 224)
    size = {"batch": batch, "tokens": tokens}
    return model, lambda: model(input_ids=ids, attention_mask=mask, pixel_values=pixels, return_loss=True).loss, size


if __name__ == "__main__":
    main()
