"""Which noise meets which image in training: the coupling of x0 and eps.

They may be drawn independently, or dealt out so that they lie near each other: then the lines
x0 + sigma eps cross less, and the denoiser has less to average over. The reverse ODE asks for no
more than that each alone is distributed as it should be (minibatch optimal transport: Pooladian
et al. 2023, arXiv 2304.14772; Tong et al. 2023, arXiv 2302.00482). Dealt out among images of one
label, the noise of each label stays N(0, I), which is what its sampling starts from. A batch with
one image of each label is as it was.
"""

import torch
from torch import Tensor

__all__ = ["paired"]


def paired(x0: Tensor, eps: Tensor, labels: Tensor) -> Tensor:
    """The noise eps (B, …) in the order that lies nearest to x0 (B, …) within each label (B,).

    Nearest: the least sum of squared distances, by the Hungarian method. On the CPU.
    """
    from scipy.optimize import linear_sum_assignment

    order, x, noise = torch.arange(len(x0)), x0.flatten(1), eps.flatten(1).to(x0)
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        distances = torch.cdist(x[own], noise[own]).square()
        _, columns = linear_sum_assignment(distances.numpy())
        order[own] = own[torch.from_numpy(columns)]
    return eps[order]
