"""Less memory where no gradient is asked."""

from __future__ import annotations

import torch
from torch import nn

from reliev3r.model.network import Reliev3R


def matrices_in_bf16(model: Reliev3R) -> Reliev3R:
    """Keep the large weights in bfloat16, in place, for forward passes under bf16 autocast.

    Autocast casts these weights (linear and patch layers of encoder, decoder and head decoders) in every forward pass
    and keeps both copies meanwhile; cast once, they give the same prediction bit for bit from less than half the
    memory. Norms, tokens, positions and the output heads, which work in float32, stay. Not for training.
    """
    for part in (model.encoder, model.decoder, model.depth_decoder, model.conf_decoder, model.camera_decoder):
        for module in part.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.to(torch.bfloat16)
    return model
