"""Random: the starting weights of the other pretexts, a record without training.

The floor of every table: what a trained row has above this one is what its training did.

    bench pretrain random --data folder:photos
"""

from ssl_bench.training.pretext import EncoderConfig, Pretext


class RandomInit(Pretext):
    """The encoder as every other method with the same settings starts from it."""

    Config = EncoderConfig
    version = 1
    baseline = 0
