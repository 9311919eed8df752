"""A small model of three dimensions with paired heads and a trainable encoder."""

import diffenc_ct as dc
from tests.strategies import make_encoder, make_model


def model_of(seed: int, *, levels: int | None = None, low: float = -5.0) -> dc.DiffEnc:
    schedule = dc.LinearSchedule(low, 4.0)
    encoder = make_encoder("trainable", (3,), seed)
    return make_model(schedule, encoder, (3,), seed, heads="paired", levels=levels)
