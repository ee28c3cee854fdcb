"""Guidance: functions from a denoiser to a callable (x, sigma) -> x0. Wrap, don't flag.

Convention: scale 1 is no guidance, 0 is unconditional. (Ho & Salimans 2022, arXiv 2207.12598,
write w = scale - 1.) Styles follow the label's scale s, each times a factor k of its own; in the
order of the condition, guidance is nested:

    D_s = D(null) + s (D(label) - D(null)) + sum_j s k_j (D(styles up to j) - D(styles before j))

A network with model guidance has learned G_w(c) = D(null) + w (D(c) - D(null)) for scales w from
1 to M. With w = min(s, M) for s > 1 the formula keeps its form, with G_w in the place of D and
s / w in the place of s. So a scale means the same with model guidance, without it and beyond M.

Autoguidance replaces the unconditional model by a weaker one, under the same condition:

    D = D_bad + scale * (D_good - D_bad)

A log-likelihood, l(x0) = log p(y | x0) up to a constant, guides by its gradient. Bayes' rule for
the score and x0 = x + sigma^2 score (Tweedie) give the denoiser of the images that fit y,

    D' = D + sigma^2 grad_x log p(y | x),    with log p(y | x) taken as l(D(x))

(Bansal et al. 2023, arXiv 2302.07121, "forward" guidance; Chung et al. 2022, arXiv 2209.14687,
for measurements y = A(x0) + Gaussian noise, where theorem 1 bounds the error of p(y | D(x)) in
the place of p(y | x) by a multiple of the mean distance of x0 from D(x)). As sigma^2 dD/dx is
the covariance of x0 given x, this is D + Cov grad l(D): a step uphill along what x leaves unknown.
`dps_guidance` takes the gradient through the denoiser.
`x0_guidance` replaces Cov by its mean diagonal, one number a level (the "mean guidance" of Ye et
al. 2024, arXiv 2409.15761, with this step). `posterior_variance` measures that number: the mean
squared error of a denoiser. Independent pixels of deviation s would have the posterior variance
sigma^2 s^2 / (sigma^2 + s^2), two to ten times that of images, and such steps are too long. The
scale multiplies l: 1 is Bayes' rule, 0 is no guidance. Both are exact for Gaussian data and a
linear l (`x0_guidance` where pixels are independent and alike); otherwise the error goes with
Cov, so to 0 with sigma.
"""

from collections.abc import Callable, Collection, Mapping
from itertools import pairwise

import torch
from torch import Tensor

from mezzotint.diffusion.condition import GUIDANCE, Condition, is_null
from mezzotint.diffusion.denoiser import Denoise

__all__ = [
    "Conditioned",
    "LogLikelihood",
    "autoguide",
    "with_condition",
    "clip",
    "guide",
    "x0_guidance",
    "posterior_variance",
    "dps_guidance",
    "with_guidance_scale",
    "guidance_interval",
]

Conditioned = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""A denoiser, or what wraps one: (x, sigma, condition) -> x0."""

Variance = Callable[[Tensor], Tensor]
"""From a level () to the mean variance of a pixel of x0 given x ()."""

LogLikelihood = Callable[[Tensor], Tensor]
"""l: x0 (B, C, H, W) in [-1, 1], unclamped -> log p(y | x0) (B,), with a gradient; each row
looks at its own image alone."""


def with_condition(denoiser: Conditioned, condition: Condition | None = None) -> Denoise:
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
    are merged, and terms of weight 0 are not evaluated. A single term is `with_condition`.

    Args:
        denoiser: Plain denoiser, or one with model guidance.
        condition: The condition of B images; its first factor is the label, the others are styles.
        scale: Guidance scale s: 1 is none, 0 unconditional.
        style_scales: Factor k of each style, by name; 1 where not named, 0 ignores the style.
        droppable: Factors that training left out now and then; None: all. A style that is not
            among them stays with the label: training left it out with the label alone
            (`Condition.drop_styles_jointly`).
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
        denoiser = with_guidance_scale(denoiser, model_scale)
    rest = scale / model_scale
    growth = [(rest, [label, *(name for name in styles if name not in guided)])]
    growth += [(rest * style_scales.get(name, 1.0), [name]) for name in guided]
    steps, conditions, kept = [1.0], [condition.null()], list[str]()
    for step, names in growth:
        kept += names
        if not all(is_null(condition.factors[name]).all() for name in names):  # else: as before
            steps.append(step)
            conditions.append(condition.null(keep=kept))
    parts = zip(pairwise([*steps, 0.0]), conditions, strict=True)
    terms = [(now - then, part) for (now, then), part in parts if now != then]
    if len(terms) == 1:
        return with_condition(denoiser, terms[0][1])
    weights = torch.tensor([weight for weight, _ in terms], dtype=torch.float64)
    first, *others = [part for _, part in terms]
    stacked = first.concat(*others)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoiser(x.repeat(len(weights), *(1,) * (x.ndim - 1)), sigma, stacked)
        x0 = x0.unflatten(0, (len(weights), len(x)))  # (terms, B, C, H, W)
        return torch.tensordot(weights.to(x0), x0, 1)

    return denoise


def with_guidance_scale(denoiser: Conditioned, scale: float) -> Conditioned:
    """Return the denoiser with model guidance at this scale: one evaluation a call.

    Images whose factors are all null get no guidance.
    """

    def denoise(x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        if condition is None or not condition.factors:
            return denoiser(x, sigma, condition)
        scales = torch.full((len(x),), scale, device=x.device)
        return denoiser(x, sigma, condition.with_factor(GUIDANCE, scales))

    return denoise


def autoguide(good: Denoise, bad: Denoise, scale: float) -> Denoise:
    """Guide away from the estimate of a weaker model of the same data.

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


def guidance_interval(inside: Denoise, outside: Denoise, low: float, high: float) -> Denoise:
    """`inside` at levels low < sigma <= high, `outside` elsewhere.

    The guidance interval of Kynkäänniemi et al. 2024 (arXiv 2404.07724), equation 6.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return (inside if low < float(sigma) <= high else outside)(x, sigma)

    return denoise


def dps_guidance(denoise: Denoise, log_likelihood: LogLikelihood, scale: float = 1.0) -> Denoise:
    """Guide by a log-likelihood, through the denoiser: D + scale sigma^2 grad_x l(D).

    Costs one evaluation with its gradient, about three in time, and the memory of a training step.
    """

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = denoise(x, sigma)
            (uphill,) = torch.autograd.grad(log_likelihood(x0).sum(), x)
        return x0.detach() + scale * sigma.to(x) ** 2 * uphill

    return denoised


def x0_guidance(
    denoise: Denoise, log_likelihood: LogLikelihood, variance: Variance, scale: float = 1.0
) -> Denoise:
    """Guide by a log-likelihood whose gradient is taken at x0, not through the network.

    D + scale variance(sigma) grad l(D). One evaluation of the network, and one of the
    log-likelihood with its gradient.
    """

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():
            x0 = denoise(x, sigma)
        with torch.enable_grad():
            leaf = x0.detach().requires_grad_()
            (uphill,) = torch.autograd.grad(log_likelihood(leaf).sum(), leaf)
        return x0 + scale * variance(sigma).to(x0) * uphill

    return denoised


def posterior_variance(denoise: Denoise, x0: Tensor, levels: Tensor, noise: Tensor) -> Variance:
    """Measure the posterior variance of a pixel at each level.

    It is the mean squared error of the denoiser on clean images.

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
