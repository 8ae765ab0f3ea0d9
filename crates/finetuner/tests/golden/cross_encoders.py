"""Golden scores of cross-encoders, from transformers and sentence-transformers.

Writes cross_encoders/<family>/{config.json, tokenizer.json, tokenizer_config.json, model.safetensors, golden.json}
beside this file. Run it with the environment of benchmarks/peers/requirements.txt:

    python cross_encoders.py

The weights are random, stored as float32; logits were computed in float64 from exactly those weights (evaluation mode,
eager attention), with the tokenizer's own packing of pairs, cut longest first at `max_length`. `scores` are the logits
through the activation that sentence-transformers' CrossEncoder takes; its own predictions (float32) are compared here.
"""

import json
from pathlib import Path

import numpy as np
import torch
import transformers as t
from sentence_transformers import CrossEncoder
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

torch.set_num_threads(1)  # a fixed summation order: the same file every time
HERE = Path(__file__).parent
MAX_LENGTH = 16
WORDS = "a how do i freeze my lost card bank river is the cold in winter ? . money account un ##lock ##ing".split()
PAIRS = [
    ["How do I freeze my card?", "Lost card."],
    ["bank", "the river is cold in winter"],
    ["the the the the the the the the the the the the", "money . account"],
    ["unlock my account", "a a a a a a a a a a a a a a a a a a a a"],
    ["card " * 12, "bank " * 12],
    ["is", "unknownword"],
]
SHAPE = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=24)
FROM_ONE = dict(pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)
DISTIL = dict(dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=24)


def bert_tokenizer():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: place for place, word in enumerate(special + WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    return tokenizer, names, len(vocabulary), ["input_ids", "token_type_ids", "attention_mask"]


def roberta_tokenizer():
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    words = [word.removeprefix("##") for word in WORDS]
    vocabulary = {word: place for place, word in enumerate(special + words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>", mask_token="<mask>")
    return tokenizer, names | dict(cls_token="<s>", sep_token="</s>"), len(vocabulary), ["input_ids", "attention_mask"]


FAMILIES = {
    "bert": (bert_tokenizer, lambda v: t.BertForSequenceClassification(t.BertConfig(vocab_size=v, num_labels=1, **SHAPE))),
    "bert-3-labels": (
        bert_tokenizer,
        lambda v: t.BertForSequenceClassification(t.BertConfig(vocab_size=v, num_labels=3, **SHAPE)),
    ),
    "roberta": (
        roberta_tokenizer,
        lambda v: t.RobertaForSequenceClassification(
            t.RobertaConfig(vocab_size=v, num_labels=1, type_vocab_size=1, **SHAPE, **FROM_ONE)
        ),
    ),
    "xlm-roberta": (
        roberta_tokenizer,
        lambda v: t.XLMRobertaForSequenceClassification(
            t.XLMRobertaConfig(vocab_size=v, num_labels=1, type_vocab_size=1, **SHAPE, **FROM_ONE)
        ),
    ),
    "distilbert": (
        bert_tokenizer,
        lambda v: t.DistilBertForSequenceClassification(t.DistilBertConfig(vocab_size=v, num_labels=1, **DISTIL)),
    ),
    "mpnet": (
        roberta_tokenizer,
        lambda v: t.MPNetForSequenceClassification(t.MPNetConfig(vocab_size=v, num_labels=1, **SHAPE, **FROM_ONE)),
    ),
}


def main():
    for number, (family, (tokenize, build)) in enumerate(FAMILIES.items()):
        folder = HERE / "cross_encoders" / family
        generator = torch.Generator().manual_seed(300 + number)
        tokenizer, names, vocabulary, inputs = tokenize()
        model = build(vocabulary).eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                norm = name.endswith(("LayerNorm.weight", "layer_norm.weight"))
                parameter.copy_(1 + 0.3 * noise if norm else 0.4 * noise)
        if family == "roberta":  # as ms-marco models say it
            model.config.sbert_ce_default_activation_function = "torch.nn.modules.linear.Identity"
        model.save_pretrained(folder)
        fast = t.PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, model_input_names=inputs, **names
        )
        fast.save_pretrained(folder)

        batch = fast(*map(list, zip(*PAIRS)), truncation="longest_first", padding=True, return_tensors="pt")
        model = t.AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval().double()
        with torch.no_grad():
            logits = model(**{name: batch[name] for name in inputs}).logits
        peer = CrossEncoder(str(folder), max_length=MAX_LENGTH)
        scores = torch.sigmoid(logits) if family not in ("roberta", "bert-3-labels") else logits
        predicted = peer.predict([tuple(pair) for pair in PAIRS])
        assert np.allclose(predicted, scores.squeeze(-1).numpy(), atol=2e-6), (family, predicted, scores)
        golden = {"pairs": PAIRS, "lengths": batch["attention_mask"].sum(1).tolist(), "logits": logits.tolist(),
                  "scores": scores.tolist()}
        (folder / "golden.json").write_text(json.dumps(golden))
        print(family, logits.flatten().tolist()[:3], batch["attention_mask"].sum(1).tolist())


if __name__ == "__main__":
    main()
