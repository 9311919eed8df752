"""Lossless codes: the T-step model as a code of exactly the length of its bound, by bits back.

With a stack of bits, where coding is `push` and decoding `pop`, an example x of levels is coded by

    pop z_1 ~ q(z_1 | x), then z_s ~ q(z_s | z_t, x) down to z_0;
    push x under p(x | z_0), then z_s under p(z_s | z_t) up to z_1, and z_1 under N(0, I)

which takes L_0 + L_1 + L_T on average: what is popped comes back when the decoder, knowing x, pushes it again. Latents
live on a grid that q and p share, finer than a step's noise; only the first examples pop bits that nobody paid for.

stack: bits. laws: what is pushed and popped. bits_back: a model's code of a batch. file: the file's format. codec:
encode and decode. tiles: images of any size. Needs constriction (the extra `coding`).

Reference: Townsend, Bird, Barber 2019 (bits back with ANS); Duda 2009 (ANS); Kingma et al. 2021, section 7.3.
"""

from diffenc_ct.coding.codec import CodingOptions, batches, decode, encode
from diffenc_ct.coding.file import Header, read
from diffenc_ct.coding.tiles import cut, join

__all__ = ["CodingOptions", "Header", "batches", "cut", "decode", "encode", "join", "read"]
