"""Guidance: functions from a denoiser to a callable (x, sigma) -> x0. Wrap, don't flag.

Convention: scale 1 is no guidance, 0 is unconditional. (Ho & Salimans 2022, arXiv 2207.12598,
write w = scale - 1.) Styles follow the label's scale s, each times a factor k of its own; in the
order of the condition, guidance is nested:

    D_s = D(null) + s (D(label) - D(null)) + sum_j s k_j (D(styles up to j) - D(styles before j))

A network with model guidance has learned G_w(c) = D(null) + w (D(c) - D(null)) for scales w from
1 to M. With w = min(s, M) for s > 1 the formula keeps its form, with G_w in the place of D and
s / w in the place of s. So a scale means the same with model guidance, without it and beyond M.

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

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from mezzotint.diffusion.condition import GUIDANCE, Condition, is_free
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


def guide(
    denoiser: Conditioned,
    condition: Condition,
    scale: float,
    style_scales: Mapping[str, float] = {},  # noqa: B006 - never changed
    *,
    droppable: Collection[str] | None = None,
    max_model_scale: float = 1.0,
) -> Denoise:
    """Return the denoiser under classifier-free guidance, one batch of evaluations a call.

    D_s is a weighted sum of D at growing conditions; the weights add up to 1. Equal conditions
    are merged, and terms of weight 0 are not evaluated: where one term is left, this is `bind`.

    Args:
        denoiser: Plain denoiser, or one with model guidance.
        condition: The condition of B images; its first factor is the label, the others are styles.
        scale: Guidance scale s: 1 is none, 0 unconditional.
        style_scales: Factor k of each style, by name; 1 where not named, 0 ignores the style.
        droppable: Factors that training left out now and then; None: all. A style that is not
            among them stays with the label: training left it out with the label alone
            (`Condition.nested`).
        max_model_scale: Largest scale M of the denoiser's model guidance; 1: it has none.

    Raises:
        ValueError: A scale is other than 1 for a factor that is missing or was never left out.

    """
    label, *styles = condition.factors
    guided = [name for name in styles if droppable is None or name in droppable]
    if unknown := [name for name, k in style_scales.items() if k != 1 and name not in guided]:
        raise ValueError(f"no guidance by {unknown}: the styles left out in training are {guided}")
    if scale != 1 and droppable is not None and label not in droppable:
        raise ValueError(f"guidance {scale:g} needs a {label} that training left out now and then")
    model_scale = max(1.0, min(scale, max_model_scale))
    if model_scale > 1:
        denoiser = told(denoiser, model_scale)
    rest = scale / model_scale
    growth = [(rest, [label, *(name for name in styles if name not in guided)])]
    growth += [(rest * style_scales.get(name, 1.0), [name]) for name in guided]
    steps, conditions, kept = [1.0], [condition.null()], list[str]()
    for step, names in growth:
        kept += names
        if not all(is_free(condition.factors[name]).all() for name in names):  # else: as before
            steps.append(step)
            conditions.append(condition.null(keep=kept))
    parts = zip(pairwise([*steps, 0.0]), conditions, strict=True)
    terms = [(now - then, part) for (now, then), part in parts if now != then]
    if len(terms) == 1:
        return bind(denoiser, terms[0][1])
    weights = torch.tensor([weight for weight, _ in terms], dtype=torch.float64)
    first, *others = [part for _, part in terms]
    stacked = first.concat(*others)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoiser(x.repeat(len(weights), *(1,) * (x.ndim - 1)), sigma, stacked)
        x0 = x0.unflatten(0, (len(weights), len(x)))  # (terms, B, C, H, W)
        return torch.tensordot(weights.to(x0), x0, 1)

    return denoise


def told(denoiser: Conditioned, scale: float) -> Conditioned:
    """The denoiser told to guide itself by a scale that it has learned: one evaluation a call.

    It is plain for images of which nothing is asked.
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
