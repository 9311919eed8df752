"""Networks: plain modules net(z, gamma) that know nothing of diffusion."""

from diffenc_ct.networks.small import MLP, VectorNetwork
from diffenc_ct.networks.unets import EncoderUNet, ScoreUNet

__all__ = ["MLP", "EncoderUNet", "ScoreUNet", "VectorNetwork"]
