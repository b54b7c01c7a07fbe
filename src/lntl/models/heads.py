"""Bias heads that architectures share."""

from torch import Tensor, nn


class MapHead(nn.Module):
    """h for a map of biases: z (N, C, H, W) -> logits (N, bins, biases, H, W).

    One grouped network with the function of `biases` separate ones, each
    conv 3x3 C->C, BatchNorm, ReLU, conv 3x3 C->bins. Source: the authors' code.
    """

    def __init__(self, channels: int, bins: int, biases: int) -> None:
        super().__init__()
        self.biases = biases
        self.body = nn.Sequential(
            nn.Conv2d(channels, biases * channels, 3, padding=1),
            nn.BatchNorm2d(biases * channels),
            nn.ReLU(),
            nn.Conv2d(biases * channels, biases * bins, 3, padding=1, groups=biases),
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return the logits, bins in dimension 1."""
        logits: Tensor = self.body(z).unflatten(1, (self.biases, -1)).transpose(1, 2)
        return logits
