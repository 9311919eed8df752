"""Networks: plain modules net(z, gamma), or net(z, gamma, condition), that know nothing of diffusion.

    UNet                 score and encoders' networks on images; MLP, the same on vectors
    ScoreUNet            the authors' score networks on images; VectorNetwork, theirs on vectors
    EncoderUNet          the authors' encoders' networks on images

gamma is a tensor of shape (batch,). A network with a true attribute `takes_jets` also takes a `Jet` of gamma, and then
returns its output together with the derivative with respect to gamma.
"""

from diffenc_ct.networks.halving import UNet
from diffenc_ct.networks.jets import Jet
from diffenc_ct.networks.small import MLP, VectorNetwork
from diffenc_ct.networks.unets import EncoderUNet, ScoreUNet

__all__ = ["MLP", "EncoderUNet", "Jet", "ScoreUNet", "UNet", "VectorNetwork"]
