"""What Finetuner draws with a seed beside its batches, so that nothing of a peer's run is left to chance: class vectors, and
the dropout of models of BERT's shape in transformers.

A translation of crates/engine/src/random.rs and of the streams that crates/finetuner/src gives to masks
(encoder/layers.rs) and class vectors (objective/mod.rs).
"""

import numpy

GOLDEN = numpy.uint64(0x9E3779B97F4A7C15)
SPAN = 16


def mix(words):
    words = (words ^ (words >> numpy.uint64(30))) * numpy.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> numpy.uint64(27))) * numpy.uint64(0x94D049BB133111EB)
    return words ^ (words >> numpy.uint64(31))


def part(key, index):
    """Streams of parts of a stream; arrays of both."""
    return mix(key ^ mix(numpy.array(index, dtype=numpy.uint64, ndmin=1) + GOLDEN))


def run_key(seed):
    return mix(numpy.array([seed ^ 0x5851F42D4C957F2D], dtype=numpy.uint64))


def row_keys(key, texts, positions):
    """The stream of every row of texts, which are numbered: `[..., texts, positions]`."""
    return part(part(key[..., None], texts)[..., None], numpy.arange(positions))


def kept(keys, columns, probability):
    """`[..., columns]` of 1 or 0: what of rows survives whose streams are `keys`."""
    first, second = (keys & numpy.uint64(0xFFFFFFFF)).astype(numpy.uint32), (keys >> numpy.uint64(32)).astype(numpy.uint32)
    spans = -(-columns // SPAN)
    counters = (numpy.arange(spans)[:, None] * SPAN + numpy.arange(SPAN // 2)).astype(numpy.uint32)
    words = (counters + first[..., None, None]) * numpy.uint32(0x7FEB352D)
    words = (words ^ (words >> numpy.uint32(15)) ^ second[..., None, None]) * numpy.uint32(0x846CA68B)
    words ^= words >> numpy.uint32(16)
    threshold = numpy.uint32(round(float(numpy.float32(probability)) * 65536) << 16)
    both = numpy.stack([words << numpy.uint32(16), words], axis=-2) >= threshold
    return both.reshape(*keys.shape, spans * SPAN)[..., :columns].astype(numpy.float32)


def class_vectors(seed, classes, dimension, deviation):
    """The first values of a loss's normal class vectors: `[classes, dimension]`."""
    key = part(part(run_key(seed), int.from_bytes(b"loss\0\0\0\0", "little")), 0)
    counters = numpy.arange(2 * classes * dimension, dtype=numpy.uint64).reshape(classes, dimension, 2)
    uniform = (mix(key + counters * GOLDEN) >> numpy.uint64(11)) * 2.0**-53
    normal = numpy.sqrt(-2 * numpy.log(1 - uniform[..., 0])) * numpy.cos(2 * numpy.pi * uniform[..., 1])
    return (deviation * normal).astype(numpy.float32)


class Dropout:
    """Puts the masks of a run into a model, which embeds so many columns of texts a step, one after the other."""

    def __init__(self, bert, seed, columns):
        import torch
        from transformers.models.bert import modeling_bert

        self.seed, self.columns, self.column, self.row, self.texts = seed, columns, -1, 0, 0
        if bert.config.model_type != "bert":
            raise ValueError(f"expected a model of type bert, got {bert.config.model_type}")
        bert.set_attn_implementation("eager")
        modeling_bert.eager_attention_forward = self.attention
        # Not of the model itself: sentence-transformers calls its `forward`.
        bert.embeddings.register_forward_pre_hook(self.begin_column, with_kwargs=True)

        outer = self

        class Drop(torch.nn.Module):
            def __init__(self, probability, site):
                super().__init__()
                self.probability, self.site = probability, site

            def forward(self, x):
                return x * outer.mask(x.shape, self.site, self.probability) if self.training else x

        bert.embeddings.dropout = Drop(bert.config.hidden_dropout_prob, 0)
        for index, layer in enumerate(bert.encoder.layer):
            layer.attention.output.dropout = Drop(bert.config.hidden_dropout_prob, 3 * index + 2)
            layer.output.dropout = Drop(bert.config.hidden_dropout_prob, 3 * index + 3)

    def begin_column(self, embeddings, _, inputs):
        if embeddings.training:
            self.column += 1
            self.row = 0 if self.column % self.columns == 0 else self.row + self.texts
            self.texts = len(inputs["input_ids"])

    def mask(self, shape, site, probability, heads=None):
        """What rows `[texts, positions, columns]`, or every head's, are multiplied with."""
        import torch

        key = part(part(run_key(self.seed), self.column // self.columns), site)
        if heads is not None:
            key = part(key, numpy.arange(heads))
        texts, positions, columns = shape
        keys = row_keys(key, self.row + numpy.arange(texts), positions)
        found = kept(keys[0] if heads is None else keys.swapaxes(0, 1), columns, probability)
        return torch.from_numpy(found * numpy.float32(1 / (1 - numpy.float32(probability))))

    def attention(self, module, query, key, value, attention_mask, scaling=None, dropout=0.0, **_):
        import torch

        scores = query @ key.transpose(2, 3) * (query.size(-1) ** -0.5 if scaling is None else scaling)
        if attention_mask is not None:
            scores = scores + attention_mask
        probabilities = torch.softmax(scores, dim=-1)
        if dropout > 0:
            texts, heads, queries, keys = probabilities.shape
            shape = (texts, queries, keys)
            probabilities = probabilities * self.mask(shape, 3 * module.layer_idx + 1, dropout, heads)
        return (probabilities @ value).transpose(1, 2).contiguous(), probabilities


def independence(seed=1, steps=8, sites=3, texts=64, positions=40, columns=384, probability=0.1):
    """How many standard errors masks are from independent ones: name, distance."""
    dropped = numpy.stack([
        [1 - kept(row_keys(part(part(run_key(seed), step), site), numpy.arange(texts), positions)[0], columns, probability)
         for site in range(sites)]
        for step in range(steps)
    ])  # fmt: skip
    share = round(probability * 65536) / 65536
    off = (dropped - share) / (share * (1 - share)) ** 0.5
    yield "share", off.mean() * off.size**0.5
    sums = off.reshape(-1, columns).sum(axis=1)
    yield "spread of what rows lose", (sums.var() / columns - 1) * (sums.size / 2) ** 0.5
    yield "spread of what columns lose", (off.reshape(-1, columns).sum(axis=0).var() / sums.size - 1) * (columns / 2) ** 0.5
    for axis, name in enumerate(("steps", "sites", "texts", "positions", "columns")):
        pairs = numpy.delete(off, 0, axis) * numpy.delete(off, -1, axis)
        yield f"neighbouring {name}", pairs.mean() * pairs.size**0.5
    pairs = numpy.cov(off.reshape(-1, columns).T)[numpy.triu_indices(columns, 1)] * sums.size**0.5
    yield "spread of all pairs of columns", (pairs.var() - 1) * (pairs.size / 2) ** 0.5


if __name__ == "__main__":
    for name, distance in independence():
        print(f"{name}: {distance:+.1f}")
