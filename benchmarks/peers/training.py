"""sentence-transformers' Trainer as the peer runs use it: one epoch on the batches that Finetuner draws with that seed,
linear schedule.
"""

import sys
import tempfile
from contextlib import redirect_stdout

import batches
from chance import Dropout
from measure import Clock, peak_bytes


def in_batch_negatives(model, pairs, **options):
    """Trains on (anchor, positive) texts with MultipleNegativesRankingLoss, scale 20; returns what it measured."""
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    columns = {"anchor": [pair[0] for pair in pairs], "positive": [pair[1] for pair in pairs]}
    return train(model, columns, MultipleNegativesRankingLoss(model, scale=20.0), **options)


def train(
    model, columns, loss, *, batch_size, learning_rate, warmup, seed, steps=0, precision="f32", save=None, same_chance=False
):  # fmt: skip
    """Trains on columns of texts (and `score`) with a loss, the first `steps` of the epoch or all; returns what it measured."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, arguments, state, control, **_):
            if state.global_step == steps:
                control.should_training_stop = True

    data = Dataset.from_dict(columns)
    if same_chance:
        Dropout(model[0].auto_model, seed, sum(name not in ("score", "label") for name in columns))
    with tempfile.TemporaryDirectory() as folder:
        trainer = SentenceTransformerTrainer(
            model=model,
            args=SentenceTransformerTrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=batch_size,
                learning_rate=learning_rate,
                warmup_steps=warmup,
                seed=seed,
                batch_sampler=batches.sampler_of(batches.shuffled(len(data), batch_size, seed)),
                bf16=precision == "bf16",
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
            ),
            train_dataset=data,
            loss=loss,
            callbacks=[Stop],
        )
        # The trainer prints its own summary: stdout is for the result alone.
        with redirect_stdout(sys.stderr), Clock() as clock:
            outcome = trainer.train()
    if save:
        model.save_pretrained(save)
    return {
        "train_seconds": clock.seconds,
        "train_steps": outcome.global_step,
        "train_loss": outcome.training_loss,
        "rows": len(data),
        "train_peak_bytes": peak_bytes(),
    }
