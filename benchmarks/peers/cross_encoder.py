"""A cross-encoder by sentence-transformers: SciFact's training pairs against a mined negative each, one epoch.

    python cross_encoder.py --model FOLDER --pairs mined.csv --save FOLDER [--scores pairs.csv]

`mined.csv` has the columns anchor, positive and negative, as `finetuner mine` writes them. Prints what the last of them,
which are held out, come to: how often the positive's score is above the negative's. `--scores` writes their scores.
"""

import csv
import tempfile
from pathlib import Path

import measure

OPTIONS = dict(
    model=dict(required=True),
    pairs=dict(required=True, type=Path),
    save=dict(required=True),
    seed=dict(type=int, default=1),
    held_out=dict(type=int, default=100, help="rows that are not trained on"),
    max_length=dict(type=int, default=192),
    scores=dict(type=Path, help="write text1, text2 and score of the rows held out"),
)


def main():
    given = measure.arguments(__doc__.splitlines()[0], **OPTIONS)
    from datasets import Dataset
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    with open(given.pairs, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pairs = [(row["anchor"], row[role], label) for row in rows for role, label in (("positive", 1.0), ("negative", 0.0))]
    held_out, pairs = pairs[-2 * given.held_out :], pairs[: -2 * given.held_out]

    model = CrossEncoder(given.model, num_labels=1, max_length=given.max_length, device="cpu")
    with tempfile.TemporaryDirectory() as folder, measure.Clock() as clock:
        CrossEncoderTrainer(
            model=model,
            args=CrossEncoderTrainingArguments(
                output_dir=folder, num_train_epochs=1, per_device_train_batch_size=16, learning_rate=5e-5,
                warmup_steps=0.1, seed=given.seed, use_cpu=True, save_strategy="no", report_to="none",
                disable_tqdm=True, logging_strategy="no", max_steps=given.steps or -1,
            ),
            train_dataset=Dataset.from_dict(dict(zip(("text1", "text2", "label"), map(list, zip(*pairs))))),
            loss=BinaryCrossEntropyLoss(model),
        ).train()  # fmt: skip
    model.save_pretrained(given.save)
    scores = [float(score) for score in model.predict([pair[:2] for pair in held_out])]
    if given.scores:
        with open(given.scores, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text1", "text2", "score"])
            writer.writerows([*pair[:2], score] for pair, score in zip(held_out, scores))
    above = sum(positive > negative for positive, negative in zip(scores[::2], scores[1::2]))
    measure.report(benchmark="cross-encoder", seconds=clock.seconds, pairs=len(pairs), above=above / given.held_out)


if __name__ == "__main__":
    main()
