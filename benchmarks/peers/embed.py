"""Embeds a text file, one text a line, with sentence-transformers; writes float32 [lines, dimensions] as .npy.

    python embed.py MODEL_FOLDER texts.txt out.npy [--threads 2] [--batch-size 32] [--max-length N]
"""

from pathlib import Path

import measure


def main():
    given = measure.arguments(
        __doc__.splitlines()[0],
        "model",
        "texts",
        "out",
        max_length=dict(type=int),
        batch_size=dict(type=int, default=32),
    )
    import numpy
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(given.model, device="cpu").eval()
    if given.max_length:
        model.max_seq_length = given.max_length
    sentences = Path(given.texts).read_text(encoding="utf-8").splitlines()
    with measure.Clock() as clock:
        embeddings = model.encode(sentences, batch_size=given.batch_size)
    numpy.save(given.out, embeddings.astype(numpy.float32))
    measure.report(benchmark="embed", texts=len(sentences), encode_seconds=clock.seconds)


if __name__ == "__main__":
    main()
