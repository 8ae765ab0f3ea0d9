"""Loads a saved adapter folder in peft and in sentence-transformers and prints the embeddings of fixed sentences as one
line of JSON.

    python load_adapter.py FOLDER [EMBEDDINGS.npy]

{"base", "targets", "peft": [[...], ...], "sentence_transformers": [[...], ...]}

`peft` has mean pooling over the base model with the adapter, `sentence_transformers` the folder as it stands. With a
third argument, the embeddings of `finetuner encode` for load_artifact's sentences, the largest differences are printed
too.
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

from load_artifact import SENTENCES


def with_peft(folder):
    import torch
    from peft import PeftModel
    from transformers import AutoModel, AutoTokenizer

    config = json.load(open(os.path.join(folder, "adapter_config.json")))
    limit = json.load(open(os.path.join(folder, "sentence_bert_config.json")))["max_seq_length"]
    base = AutoModel.from_pretrained(config["base_model_name_or_path"], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(SENTENCES, padding=True, truncation=True, max_length=limit, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    keep = batch["attention_mask"].unsqueeze(-1)
    pooled = (hidden * keep).sum(1) / keep.sum(1)
    return config, torch.nn.functional.normalize(pooled, dim=1).numpy()


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    import numpy
    from sentence_transformers import SentenceTransformer

    folder = sys.argv[1]
    config, pooled = with_peft(folder)
    whole = SentenceTransformer(folder, device="cpu").eval()
    embeddings = whole.encode(SENTENCES)
    record = {"base": config["base_model_name_or_path"], "targets": config["target_modules"]}
    if len(sys.argv) == 3:
        ours = numpy.load(sys.argv[2])
        record["difference"] = {
            "peft": float(abs(ours / numpy.linalg.norm(ours, axis=1, keepdims=True) - pooled).max()),
            "sentence_transformers": float(abs(ours - embeddings).max()),
        }
    else:
        record |= {"peft": pooled.tolist(), "sentence_transformers": embeddings.tolist()}
    print(json.dumps(record))


if __name__ == "__main__":
    main()
