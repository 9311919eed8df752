"""Identities between finite and infinite depth, checked on a model or a world."""

from diffenc_ct.verification.checks import Check, Verification
from diffenc_ct.verification.identities import LADDER, verify
from diffenc_ct.verification.losses import richardson
from diffenc_ct.verification.parts import check_parts

__all__ = ["LADDER", "Check", "Verification", "check_parts", "richardson", "verify"]
