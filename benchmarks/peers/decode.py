"""Pillow: decodes, resizes and normalises photos on one thread, milliseconds each. Twin of `cargo run --example decode`.

    python decode.py FOLDER [--edge 224] [--limit 300]
"""

import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--edge", type=int, default=224)
parser.add_argument("--limit", type=int, default=300)
options = parser.parse_args()

endings = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"}
paths = sorted(path for path in options.folder.rglob("*") if path.suffix.lower() in endings)[: options.limit]
files = [path.read_bytes() for path in paths]
mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
deviation = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
edge = options.edge

decoding = processing = float("inf")
for _ in range(3):
    in_decoding = in_processing = 0.0
    for content in files:
        start = time.perf_counter()
        image = Image.open(io.BytesIO(content)).convert("RGB")
        decoded = time.perf_counter()
        width, height = image.size
        size = (edge, edge * height // width) if width <= height else (edge * width // height, edge)
        left, top = (size[0] - edge) // 2, (size[1] - edge) // 2
        image = image.resize(size, Image.BICUBIC).crop((left, top, left + edge, top + edge))
        values = (np.asarray(image, np.float32) * np.float32(1 / 255) - mean) / deviation
        in_decoding += decoded - start
        in_processing += time.perf_counter() - decoded
    decoding, processing = min(decoding, in_decoding), min(processing, in_processing)
each = lambda seconds: 1e3 * seconds / len(files)
print(json.dumps({
    "photos": len(files), "decode_ms": each(decoding), "process_ms": each(processing), "total_ms": each(decoding + processing),
}))
