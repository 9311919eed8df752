"""Networks: plain modules net(z, gamma) that know nothing of diffusion.

    score networks       ScoreUNet (images), VectorNetwork, MLP (vectors)
    encoders' networks   EncoderUNet (images), MLP with `bounded` (vectors)

gamma is a tensor of shape (batch,). A network with a true attribute `takes_jets` also takes a `Jet` of gamma, and then
returns its output together with the derivative with respect to gamma.
"""

from diffenc_ct.networks.jets import Jet
from diffenc_ct.networks.small import MLP, VectorNetwork
from diffenc_ct.networks.unets import EncoderUNet, ScoreUNet

__all__ = ["MLP", "EncoderUNet", "Jet", "ScoreUNet", "VectorNetwork"]
