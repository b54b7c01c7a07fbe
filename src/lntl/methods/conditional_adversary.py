"""LNTL with a bias head that is conditioned on the class, so that z loses the bias within each class (CDANN)."""

from torch import Tensor, nn

from lntl.methods.lntl import LNTL
from lntl.types import Batch, DataSpec, Networks

__all__ = ["ConditionalAdversary"]


class ConditionalAdversary(LNTL):
    """LNTL (eq. 9) with q_h(b | z + e_y) in place of q_h(b | z): min_{f,g} max_{h,e} L_c + lam * E[log q_h] - mu * L_B.

    e (num_classes, C) is an embedding that is trained with h and starts at 0, so that an h that was trained on z
    continues unchanged; e_y is added to the channels of z (N, C, ...), the same at each position. h knows from y the
    part of the bias that y predicts; f has to remove the rest. The aim is independence of z and b given y. Sources: Li
    et al., "Deep Domain Generalization via Conditional Invariant Adversarial Networks", ECCV 2018 (CDANN); Reimers et
    al., "Towards Learning an Unbiased Classifier from Biased Data via Conditional Adversarial Debiasing", 2021, for
    conditional independence. In evaluation h does not get y: its bias accuracy is that of h(z).

    Deviation: Li et al. have an adversary for each class and one for all classes, weighted by the class priors. One
    adversary with an embedding of y is taken from DomainBed (Gulrajani and Lopez-Paz, ICLR 2021), without its gradient
    penalty and its class weights.
    """

    trained_with_h = ("class_embedding",)

    def __init__(self, networks: Networks, config: LNTL.Config, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.class_embedding = nn.Embedding(spec.num_classes, networks.num_features)
        nn.init.zeros_(self.class_embedding.weight)

    def _get_adversary(self, batch: Batch) -> nn.Module:
        return _ConditionalHead(self.h, self.class_embedding, batch.y)


class _ConditionalHead(nn.Module):
    """h conditioned on y: z (N, C, ...) -> h(z + e_y, where)."""

    def __init__(self, h: nn.Module, embedding: nn.Embedding, y: Tensor) -> None:
        super().__init__()
        self.h, self.embedding, self.y = h, embedding, y

    def forward(self, z: Tensor, where: Tensor | None = None) -> Tensor:
        """Return h's logits."""
        e = self.embedding(self.y)
        logits: Tensor = self.h(z + e.view(e.shape + (1,) * (z.dim() - 2)), where)
        return logits
