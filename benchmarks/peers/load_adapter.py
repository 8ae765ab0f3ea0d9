"""Loads a saved adapter folder in peft and in sentence-transformers, and compares with what Finetuner makes of it.

    python load_adapter.py > texts.jsonl                       the texts
    finetuner encode --model FOLDER --input texts.jsonl --output vectors.npy
    python load_adapter.py FOLDER vectors.npy

{"base", "targets", "difference": {"peft", "sentence_transformers"}}: the largest difference of any component. `peft` is
mean pooling over the base model with the adapter, normalised; `sentence_transformers` the folder as it stands.
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from load_artifact import SENTENCES

TEXTS = [sentence for sentence in SENTENCES if sentence]


def with_peft(folder):
    import torch
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    config = json.load(open(os.path.join(folder, "adapter_config.json")))
    limit = json.load(open(os.path.join(folder, "sentence_bert_config.json")))["max_seq_length"]
    base = AutoModel.from_pretrained(config["base_model_name_or_path"], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    keep = batch["attention_mask"].unsqueeze(-1)
    pooled = (hidden * keep).sum(1) / keep.sum(1)
    return config, torch.nn.functional.normalize(pooled, dim=1).numpy()


def main():
    if len(sys.argv) == 1:
        return print("\n".join(json.dumps({"text": text}) for text in TEXTS))
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    import numpy
    from sentence_transformers import SentenceTransformer

    folder, ours = sys.argv[1], numpy.load(sys.argv[2])
    config, pooled = with_peft(folder)
    embeddings = SentenceTransformer(folder, device="cpu").eval().encode(TEXTS)
    normalised = ours / numpy.linalg.norm(ours, axis=1, keepdims=True)
    difference = {
        "peft": float(abs(normalised - pooled).max()),
        "sentence_transformers": float(abs(ours - embeddings).max()),
    }
    record = {"base": config["base_model_name_or_path"], "targets": config["target_modules"], "difference": difference}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
