"""Loads a saved folder in sentence-transformers and prints the embeddings of fixed sentences as one line of JSON.

    python load_artifact.py FOLDER

{"modules": [class names], "max_seq_length", "dimensions", "sentences": [...], "embeddings": [[...], ...]}
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

SENTENCES = [
    "How do I freeze my card?",
    "A man is playing a guitar.",
    "Tests SSL/TLS enabled services to discover supported cipher suites",
    "Ünïcödé, 漢字 and 😀 in one line",
    "",
    "word " * 600,
]


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(sys.argv[1], device="cpu").eval()
    embeddings = model.encode(SENTENCES)
    record = {
        "modules": [type(module).__name__ for module in model],
        "max_seq_length": model.max_seq_length,
        "dimensions": embeddings.shape[1],
        "sentences": SENTENCES,
        "embeddings": embeddings.tolist(),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
