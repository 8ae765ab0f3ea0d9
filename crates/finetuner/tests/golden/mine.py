"""Golden hard negatives, from sentence-transformers' mine_hard_negatives.

Writes mine/golden.json and mine/model (a BERT of random weights) beside this file; the cross-encoder is
cross_encoders/bert. Run it after cross_encoders.py, with the environment of benchmarks/peers/requirements.txt:

    python mine.py

No positive belongs to two queries: the peer leaves out a query's own positives only, we leave out whatever the pairs
connect with it.
"""

import json
import random
from pathlib import Path

import torch
import transformers as t
from cross_encoders import MAX_LENGTH, SHAPE, WORDS, bert_tokenizer
from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from sentence_transformers.util import mine_hard_negatives

torch.set_num_threads(1)
HERE = Path(__file__).parent
CASES = [
    dict(),
    dict(num_negatives=2, range_min=3),
    dict(num_negatives=2, range_min=1, range_max=6, output_format="n-tuple"),
    dict(absolute_margin=0.05, output_scores=True),
    dict(relative_margin=0.1, num_negatives=5, output_format="n-tuple", output_scores=True),
    dict(max_score=0.7, min_score=0.45, output_format="labeled-pair"),
    dict(max_score=0.8, output_format="labeled-pair", output_scores=True),
    dict(relative_margin=0.05, output_format="labeled-list"),
    dict(relative_margin=0.05, output_format="labeled-list", output_scores=True),
    dict(include_positives=True, num_negatives=6, output_format="n-tuple", output_scores=True),
    dict(cross_encoder=True, absolute_margin=0.1, num_negatives=2, output_scores=True),
    dict(cross_encoder=True, min_score=0.3, num_negatives=2, output_format="labeled-pair", output_scores=True),
]


def build(folder):
    tokenizer, names, vocabulary, inputs = bert_tokenizer()
    torch.manual_seed(7)
    model = t.BertModel(t.BertConfig(vocab_size=vocabulary, initializer_range=0.6, **SHAPE)).eval()
    model.save_pretrained(folder)
    t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=MAX_LENGTH, model_input_names=inputs, **names
    ).save_pretrained(folder)
    transformer = Transformer(str(folder), max_seq_length=MAX_LENGTH)
    return SentenceTransformer(modules=[transformer, Pooling(16, "mean")], device="cpu")


def main():
    draw = random.Random(11)
    words = [word for word in WORDS if word.isalpha()]
    texts = set()
    while len(texts) < 90:
        texts.add(" ".join(draw.choice(words) for _ in range(draw.randint(2, 7))))
    texts = sorted(texts)
    draw.shuffle(texts)
    queries, documents, corpus = texts[:24], texts[24:60], texts[60:]
    pairs = [[query, document] for query, document in zip(queries, documents)]
    pairs += [[queries[place % 7], document] for place, document in enumerate(documents[24:])]
    model = build(HERE / "mine" / "model")
    cross_encoder = CrossEncoder(str(HERE / "cross_encoders" / "bert"), max_length=MAX_LENGTH, device="cpu")
    data = Dataset.from_dict({"anchor": [pair[0] for pair in pairs], "positive": [pair[1] for pair in pairs]})
    cases = []
    for options in CASES:
        arguments = dict(options)
        if arguments.pop("cross_encoder", False):
            arguments["cross_encoder"] = cross_encoder
        mined = mine_hard_negatives(data, model, corpus=corpus, verbose=False, **arguments)
        cases.append({"options": options, "columns": mined.column_names, "rows": [list(row.values()) for row in mined]})
        print(options, len(mined), mined.column_names)
    golden = {"pairs": pairs, "corpus": corpus, "cases": cases}
    (HERE / "mine" / "golden.json").write_text(json.dumps(golden))


if __name__ == "__main__":
    main()
