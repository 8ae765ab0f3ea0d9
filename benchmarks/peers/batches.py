"""The batches that Finetuner draws with a seed, so that a peer learns from the same ones in the same order.

What is left of chance between two runs is then dropout alone. A translation of crates/finetuner/src/data/random.rs and
data/order, whose tests hold it against this.
"""

BITS = (1 << 64) - 1


class Random:
    """SplitMix64, a stream for each seed and epoch."""

    def __init__(self, seed, stream):
        self.state = seed
        self.state = (self.next() + stream * 0xD1B54A32D192ED03) & BITS
        self.state = self.next()

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & BITS
        bits = self.state
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & BITS
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & BITS
        return bits ^ (bits >> 31)

    def below(self, bound):
        while True:
            product = self.next() * bound
            if product & BITS >= -bound % (1 << 64) % bound:
                return product >> 64

    def shuffle(self, items):
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]


def shuffled(examples, batch_size, seed, epoch=0):
    """Sampler `random`: every example once; the last batch may be smaller."""
    order = list(range(examples))
    Random(seed, epoch).shuffle(order)
    return [order[start : start + batch_size] for start in range(0, examples, batch_size)]


def m_per_class(labels, batch_size, items, seed, epoch=0):
    """Sampler `m_per_class`: random classes, so many random items of each."""
    random, members = Random(seed, epoch), {}
    for place, label in enumerate(labels):
        members.setdefault(label, []).append(place)
    classes = list(members.values())
    order = list(range(len(classes)))
    batches = []
    for _ in range(max(1, len(labels) // batch_size)):
        random.shuffle(order)
        batch = []
        for place in order[: batch_size // items]:
            own = list(classes[place])
            if len(own) < items:
                batch += [own[random.below(len(own))] for _ in range(items)]
            else:
                random.shuffle(own)
                batch += own[:items]
        batches.append(batch)
    return batches


def sampler_of(batches):
    """The same as a `batch_sampler` of sentence-transformers."""
    from sentence_transformers.base.sampler import DefaultBatchSampler

    class Given(DefaultBatchSampler):
        def __iter__(self):
            return iter(batches)

        def __len__(self):
            return len(batches)

    return Given
