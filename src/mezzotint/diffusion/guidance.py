"""Guidance: functions from a denoiser to a callable (x, sigma) -> x0. Wrap, don't flag.

Convention: scale 1 is no guidance, 0 is unconditional. (Ho & Salimans 2022, arXiv 2207.12598,
write w = scale - 1.) With several factors, in the order of the condition, guidance is nested:

    D = D_free + sum_k scale_k * (D_{factors up to k} - D_{factors up to k - 1})

Autoguidance has a weaker model in the place of the free one, under the same condition:

    D = D_bad + scale * (D_good - D_bad)

A scorer, l(x0) = log p(wish | x0) up to a constant, guides by its gradient. Bayes' rule for the
score and x0 = x + sigma^2 score (Tweedie) give the denoiser of the images that fit the wish,

    D' = D + sigma^2 grad_x log p(wish | x),    with log p(wish | x) taken as l(D(x))

(Bansal et al. 2023, arXiv 2302.07121, "forward" guidance; Chung et al. 2022, arXiv 2209.14687,
for measurements y = A(x0) + Gaussian noise, where theorem 1 bounds the error of p(y | D(x)) in
the place of p(y | x) by a multiple of the mean distance of x0 from D(x)). As sigma^2 dD/dx is
the covariance of x0 given x, this is D + Cov grad l(D): a step uphill along what is still open.
`steered` takes the gradient through the denoiser,
`nudged` replaces Cov by its mean diagonal, one number a level (the "mean guidance" of Ye et al.
2024, arXiv 2409.15761, with this step), which `open_variance` measures: the mean squared error
of a denoiser. Pixels that were independent with deviation s would leave sigma^2 s^2 / (sigma^2 +
s^2) open, which is two to ten times as much as images do, and steps as long go astray. The scale
multiplies l: 1 is Bayes' rule, 0 is no wish. Both are exact for Gaussian data and a linear l (the
second where pixels are independent and alike); otherwise the error goes with Cov, so to 0 with
sigma.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from mezzotint.diffusion.condition import GUIDANCE, Condition
from mezzotint.diffusion.denoiser import Denoise

__all__ = [
    "Conditioned",
    "Scorer",
    "autoguide",
    "bind",
    "clip",
    "guide",
    "nudged",
    "open_variance",
    "steered",
    "told",
    "within",
]

Conditioned = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""A denoiser, or what wraps one: (x, sigma, condition) -> x0."""

Variance = Callable[[Tensor], Tensor]
"""From a level () to the mean variance of a pixel of x0 given x ()."""

Scorer = Callable[[Tensor], Tensor]
"""l: x0 (B, C, H, W) in [-1, 1], unclamped -> log p(wish | x0) (B,), with a gradient; each row
looks at its own image alone."""


def bind(denoiser: Conditioned, condition: Condition | None = None) -> Denoise:
    """The denoiser with its condition fixed; one evaluation of the network a call."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, condition)

    return denoise


def guide(denoiser: Conditioned, condition: Condition, scales: Mapping[str, float]) -> Denoise:
    """Classifier-free guidance with one scale per factor; a factor not named has scale 1.

    The nested sum is a weighted sum of D at growing conditions, whose weights add up to 1; terms
    of weight 0 are not evaluated, the others run as one batch. All scales 1: `bind`.
    """
    names = list(condition.factors)
    if unknown := set(scales) - set(names):
        raise ValueError(f"no factor {sorted(unknown)} to guide here, only {names}")
    steps = [1.0, *(scales.get(name, 1.0) for name in names), 0.0]
    terms = [
        (now - then, condition.null(keep=names[:depth]))
        for depth, (now, then) in enumerate(pairwise(steps))
        if now != then
    ]
    if len(terms) == 1:
        return bind(denoiser, terms[0][1])
    weights = torch.tensor([weight for weight, _ in terms], dtype=torch.float64)
    first, *rest = [part for _, part in terms]
    stacked = first.concat(*rest)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoiser(x.repeat(len(weights), *(1,) * (x.ndim - 1)), sigma, stacked)
        x0 = x0.unflatten(0, (len(weights), len(x)))  # (terms, B, C, H, W)
        return torch.tensordot(weights.to(x0), x0, 1)

    return denoise


def told(denoiser: Conditioned, scale: float) -> Conditioned:
    """The denoiser told to guide itself by a scale that it has learned: one evaluation a call.

    Wrapped in `guide` again, the scales multiply.
    """

    def denoise(x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        if condition is None or not condition.factors:
            return denoiser(x, sigma, condition)
        scales = torch.full((len(x),), scale, device=x.device)
        return denoiser(x, sigma, condition.told(GUIDANCE, scales))

    return denoise


def autoguide(good: Denoise, bad: Denoise, scale: float) -> Denoise:
    """Away from what a weaker model of the same data thinks, where the two differ.

    Karras et al. 2024 (arXiv 2406.02507), equation 3. Both have the same condition and, where
    there is one, the same guidance: since both are linear, guidance of autoguided denoisers is
    the same. Scale 1 is `good` itself, scale 0 `bad`; else each is called once.
    """
    if scale in (0, 1):
        return good if scale == 1 else bad

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        weak = bad(x, sigma)
        return weak + scale * (good(x, sigma) - weak)

    return denoise


def within(inside: Denoise, outside: Denoise, low: float, high: float) -> Denoise:
    """`inside` at levels low < sigma <= high, `outside` elsewhere.

    The guidance interval of Kynkäänniemi et al. 2024 (arXiv 2404.07724), equation 6.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return (inside if low < float(sigma) <= high else outside)(x, sigma)

    return denoise


def steered(denoise: Denoise, scorer: Scorer, scale: float = 1.0) -> Denoise:
    """Guided by a scorer, its gradient taken through the denoiser: D + scale sigma^2 grad_x l(D).

    Costs one evaluation with its gradient, about three in time, and the memory of a training step.
    """

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = denoise(x, sigma)
            (uphill,) = torch.autograd.grad(scorer(x0).sum(), x)
        return x0.detach() + scale * sigma.to(x) ** 2 * uphill

    return denoised


def nudged(denoise: Denoise, scorer: Scorer, variance: Variance, scale: float = 1.0) -> Denoise:
    """Guided by a scorer, its gradient taken at x0 alone: no way back through the network.

    D + scale variance(sigma) grad l(D). One evaluation of the network, and one of the scorer with
    its gradient.
    """

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():
            x0 = denoise(x, sigma)
        with torch.enable_grad():
            leaf = x0.detach().requires_grad_()
            (uphill,) = torch.autograd.grad(scorer(leaf).sum(), leaf)
        return x0 + scale * variance(sigma).to(x0) * uphill

    return denoised


def open_variance(denoise: Denoise, x0: Tensor, levels: Tensor, noise: Tensor) -> Variance:
    """What a denoiser leaves open at each level, by its mean squared error on clean images.

    Of the best denoiser, E |x0 - D(x)|^2 is the trace of Cov(x0 | x), on average over x.

    x0      (B, C, H, W) in [-1, 1]; noise: the same shape, of deviation 1
    levels  (L,), above 0; between two the error is taken as a power of sigma, beyond as theirs
    """
    errors = []
    for sigma in levels:
        with torch.no_grad():
            error = denoise(x0 + sigma.to(x0) * noise, sigma) - x0
        errors.append(error.square().mean().cpu().double())  # Apple's devices have no float64
    order = levels.argsort()
    at, logs = levels[order].double().log(), torch.stack(errors)[order].log()

    def variance(sigma: Tensor) -> Tensor:
        where = sigma.detach().cpu().double().log().clamp(at[0], at[-1])
        above = int(torch.searchsorted(at, where).clamp(1, len(at) - 1)) if len(at) > 1 else 0
        if above == 0:
            return logs[0].exp()
        share = (where - at[above - 1]) / (at[above] - at[above - 1])
        return torch.lerp(logs[above - 1], logs[above], share).exp()

    return variance


def clip(denoise: Denoise) -> Denoise:
    """The same with x0 kept in [-1, 1], as DDPM's code does. Off unless asked for."""

    def clipped(x: Tensor, sigma: Tensor) -> Tensor:
        return denoise(x, sigma).clamp(-1, 1)

    return clipped
