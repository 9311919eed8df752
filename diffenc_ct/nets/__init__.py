"""Networks: plain modules net(z, gamma) that know nothing of diffusion."""

from diffenc_ct.nets.small import MLP, VectorNetwork
from diffenc_ct.nets.unets import EncoderUNet, ScoreUNet

__all__ = ["MLP", "EncoderUNet", "ScoreUNet", "VectorNetwork"]
