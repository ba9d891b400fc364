"""Which pictures the running statistics of BatchNorm learn from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextlib.contextmanager
def steady_statistics(network: nn.Module) -> Iterator[None]:
    """Leaves the running statistics of BatchNorm as they are while the network is in training mode.

    An exported network normalises by its running statistics. They must be those of what it will translate, so passes
    over other pictures, such as its own translations, are made in here. Without BatchNorm it changes nothing.

    Args:
        network: normalises by the batch, as ever in training.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
