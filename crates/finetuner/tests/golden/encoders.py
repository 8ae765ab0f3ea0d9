"""Golden numbers of the text encoders, from transformers.

Writes encoders/<family>/{config.json, model.safetensors, golden.safetensors} beside this file. Run it with the
environment of benchmarks/peers/requirements.txt:

    python encoders.py

The weights are random and stored as float32. Everything in golden.safetensors was computed in float64 from exactly
those weights (evaluation mode, eager attention) and rounded to float32 once, at the end. In the files of a family,
T = 59 tokens in four sequences, H = 32:

    ids, type_ids       I32 [T]      packed, no padding; type_ids are 0 where the family has one type or none
    offsets             I32 [5]      0, 3, 20, 29, 59: sequence s is rows offsets[s] .. offsets[s + 1]
    last_hidden_state   F32 [T, H]   packed like ids
    pooled.<kind>       F32 [4, H]   mean, cls (first token), max, last, gem
    upstream            F32 [4, H]   a fixed random cotangent
    gradient.<name>                  d sum(pooled.mean * upstream) / d parameter, by its name in model.safetensors;
                                     parameters that the result does not depend on (BERT's pooler) have none

gem = (mean over tokens of max(x, 1e-6)^3)^(1/3).
"""

from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

torch.set_num_threads(1)  # a fixed summation order: the same file every time
HERE = Path(__file__).parent
LENGTHS = [3, 17, 9, 30]
VOCABULARY, HIDDEN = 67, 32
GEM_POWER, GEM_FLOOR = 3.0, 1e-6

SHAPE = dict(
    vocab_size=VOCABULARY,
    hidden_size=HIDDEN,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=40,
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
)
# RoBERTa and MPNet count positions from pad_token_id + 1 and call the padding token 1.
FROM_ONE = dict(pad_token_id=1, bos_token_id=0, eos_token_id=2)
FAMILIES = {
    "bert": (BertModel, BertConfig(**SHAPE, type_vocab_size=2)),
    "bert-relu": (BertModel, BertConfig(**SHAPE, type_vocab_size=2, hidden_act="relu")),
    "bert-gelu-new": (BertModel, BertConfig(**SHAPE, type_vocab_size=2, hidden_act="gelu_new")),
    "roberta": (RobertaModel, RobertaConfig(**SHAPE, **FROM_ONE, type_vocab_size=1, layer_norm_eps=1e-5)),
    "xlm-roberta": (XLMRobertaModel, XLMRobertaConfig(**SHAPE, **FROM_ONE, type_vocab_size=1, layer_norm_eps=1e-5)),
    "distilbert": (
        DistilBertModel,
        DistilBertConfig(
            vocab_size=VOCABULARY, dim=HIDDEN, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=40
        ),
    ),
    "mpnet": (
        MPNetModel,
        MPNetConfig(**SHAPE, **FROM_ONE, layer_norm_eps=1e-5, relative_attention_num_buckets=32),
    ),
}


def randomise(model, generator):
    """Every parameter gets values that no default hides: no zero biases, no unit norms."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("LayerNorm.weight") or name.endswith("layer_norm.weight"):
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_(0.2 * noise)


def inputs(model_type, generator):
    """Ids without special tokens (5 and up), right-padded, with their mask and types."""
    longest = max(LENGTHS)
    pad = 1 if model_type in ("roberta", "xlm-roberta", "mpnet") else 0
    ids = torch.full((len(LENGTHS), longest), pad)
    mask = torch.zeros(len(LENGTHS), longest, dtype=torch.long)
    types = torch.zeros(len(LENGTHS), longest, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        ids[row, :length] = torch.randint(5, VOCABULARY, (length,), generator=generator)
        mask[row, :length] = 1
    if model_type == "bert":
        types[1, 8:17] = 1
    return ids, mask, types


def pool(hidden, mask):
    keep = mask.unsqueeze(-1).to(hidden.dtype)
    count = keep.sum(1)
    last = mask.sum(1) - 1
    return {
        "mean": (hidden * keep).sum(1) / count,
        "cls": hidden[:, 0],
        "max": hidden.masked_fill(keep == 0, -torch.inf).max(1).values,
        "last": hidden[torch.arange(len(hidden)), last],
        "gem": ((hidden.clamp(min=GEM_FLOOR) ** GEM_POWER * keep).sum(1) / count) ** (1 / GEM_POWER),
    }


def main():
    for number, (family, (build, config)) in enumerate(FAMILIES.items()):
        folder = HERE / "encoders" / family
        folder.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(100 + number)
        config._attn_implementation = "eager"
        model = build(config).eval()
        randomise(model, generator)

        weights = {name: value.clone().contiguous() for name, value in model.state_dict().items()}
        assert all(value.dtype == torch.float32 for value in weights.values()), sorted(weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config.architectures = [build.__name__]
        config.save_pretrained(folder)

        model = model.double()
        ids, mask, types = inputs(config.model_type, generator)
        arguments = dict(input_ids=ids, attention_mask=mask)
        if config.model_type == "bert":
            arguments["token_type_ids"] = types
        hidden = model(**arguments).last_hidden_state
        pooled = pool(hidden, mask)
        upstream = torch.randn(len(LENGTHS), HIDDEN, generator=generator)
        (pooled["mean"] * upstream.double()).sum().backward()

        packed = mask.bool()
        golden = {
            "ids": ids[packed].int(),
            "type_ids": types[packed].int(),
            "offsets": torch.tensor([0] + LENGTHS).cumsum(0).int(),
            "last_hidden_state": hidden[packed].detach().float(),
            "upstream": upstream,
        }
        golden |= {f"pooled.{kind}": value.detach().float().contiguous() for kind, value in pooled.items()}
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                golden[f"gradient.{name}"] = parameter.grad.float().contiguous()
        save_file(
            golden,
            folder / "golden.safetensors",
            metadata={"torch": torch.__version__, "transformers": transformers.__version__},
        )
        without = sorted(name for name, parameter in model.named_parameters() if parameter.grad is None)
        print(family, "no gradient:", without)


if __name__ == "__main__":
    main()
