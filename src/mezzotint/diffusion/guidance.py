"""Guidance: functions that take a denoiser and return a callable (x, sigma) -> x0.

Guidance always wraps a denoiser. Neither denoisers nor samplers have an option for it.

Convention: scale 1 is no guidance, 0 is unconditional. Ho & Salimans 2022 (arXiv 2207.12598)
write w = scale - 1. The label has the scale s. Style j has the scale s k_j, with its own factor
k_j. The terms are nested in the order of the condition's factors:

    D_s = D(null) + s (D(label) - D(null)) + sum_j s k_j (D(styles up to j) - D(styles before j))

Each D(styles ...) keeps the label.

A network with model guidance has learned G_w(c) = D(null) + w (D(c) - D(null)) for scales w from
1 to M. For s > 1, the formula for D_s is evaluated with G_w instead of D and s / w instead of s,
where w = min(s, M). The result is the same D_s, also for s > M.

Autoguidance replaces the unconditional model by a weaker one, under the same condition:

    D = D_bad + scale * (D_good - D_bad)

A log-likelihood l(x0) = log p(y | x0), known up to a constant, guides by its gradient. Bayes' rule
for the score and Tweedie's formula D = x + sigma^2 score give the denoiser conditioned on y:

    D' = D + sigma^2 grad_x log p(y | x)

The unknown log p(y | x) is replaced by l(D(x)). This is the "forward" guidance of Bansal et al.
2023 (arXiv 2302.07121). Diffusion posterior sampling, DPS (Chung et al. 2022, arXiv 2209.14687),
uses it for measurements y = A(x0) + Gaussian noise. Theorem 1 of that paper bounds the error of
p(y | D(x)) by a multiple of the mean distance of x0 from D(x).

sigma^2 dD/dx is the covariance of x0 given x, so D' = D + Cov grad l(D). The step is large in
directions that x leaves uncertain and small where x determines x0.

`dps_guidance` takes the gradient through the denoiser.

`x0_guidance` replaces Cov by the mean of its diagonal, one number per level. This is the "mean
guidance" of Ye et al. 2024 (arXiv 2409.15761), with this number as its step size.
`posterior_variance` measures the number as the mean squared error of a denoiser. A closed form
exists for independent pixels of standard deviation s: sigma^2 s^2 / (sigma^2 + s^2). It is two to
ten times the posterior variance of images, so steps of that size are too long.

The scale of both functions multiplies l: 1 is Bayes' rule, 0 is no guidance. For Gaussian data
and a linear l, `dps_guidance` is exact. `x0_guidance` is exact if the pixels are also independent,
with equal variance. In all other cases the error shrinks with Cov, which goes to 0 with sigma.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mezzotint.diffusion.condition import GUIDANCE, Condition, is_null
from mezzotint.diffusion.denoiser import Denoise

__all__ = [
    "ConditionalDenoise",
    "LogLikelihood",
    "VarianceOfSigma",
    "autoguide",
    "clamp_x0",
    "with_condition",
    "guide",
    "x0_guidance",
    "posterior_variance",
    "dps_guidance",
    "with_guidance_scale",
    "guidance_interval",
]

ConditionalDenoise = Callable[[Tensor, Tensor, Condition | None], Tensor]
"""A denoiser whose condition is still an argument: (x, sigma, condition) -> x0."""

VarianceOfSigma = Callable[[Tensor], Tensor]
"""Map a sigma () to the posterior variance of a pixel, Var(x0 | x), averaged over pixels and x."""

LogLikelihood = Callable[[Tensor], Tensor]
"""Map x0 (B, C, H, W) to log p(y | x0) (B,), differentiably. Each row depends on its image alone.

Images lie in [-1, 1], but x0 is not clamped to that range.
"""


def with_condition(denoiser: ConditionalDenoise, condition: Condition | None = None) -> Denoise:
    """Return the denoiser with its condition fixed: one network evaluation per call."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x, sigma, condition)

    return denoise


def guide(
    denoiser: ConditionalDenoise,
    condition: Condition,
    guidance: float,
    style_guidance: Mapping[str, float] = {},  # noqa: B006 - never changed
    *,
    droppable: Collection[str] | None = None,
    max_model_guidance: float = 1.0,
) -> Denoise:
    """Return the denoiser under classifier-free guidance.

    Each call runs the network once, on all terms of D_s as one batch. D_s is a sum of D at several
    conditions, with weights that add up to 1. Equal conditions are merged, and terms of weight 0
    are not evaluated. If one term remains, the result is that of `with_condition`.

    Args:
        denoiser: Plain denoiser, or one with model guidance.
        condition: The condition of B images; its first factor is the label, the others are styles.
        guidance: Guidance scale s: 1 is none, 0 unconditional.
        style_guidance: Factor k_j of each style, by name. Default: 1; 0 ignores the style.
        droppable: Factors that training dropped at random; None: all. A style that is not listed
            was only dropped together with the label, so it stays with the label in every term
            (`Condition.drop_styles_jointly`).
        max_model_guidance: Largest scale M of the denoiser's model guidance; 1: it has none.

    Raises:
        ValueError: `guidance` differs from 1, but the label was never dropped in training. Or
            `style_guidance` differs from 1 for a factor that is no style or was not dropped alone.

    """
    label, *styles = condition.factors
    guided = [name for name in styles if droppable is None or name in droppable]
    if unknown := [name for name, k in style_guidance.items() if k != 1 and name not in guided]:
        raise ValueError(f"no guidance by {unknown}: the styles dropped in training are {guided}")
    if guidance != 1 and droppable is not None and label not in droppable:
        raise ValueError(f"guidance {guidance:g} needs a {label} that training dropped at random")
    model_guidance = max(1.0, min(guidance, max_model_guidance))
    if model_guidance > 1:
        denoiser = with_guidance_scale(denoiser, model_guidance)
    rest = guidance / model_guidance
    increments = [(rest, [label, *(name for name in styles if name not in guided)])]
    increments += [(rest * style_guidance.get(name, 1.0), [name]) for name in guided]
    return _weighted_sum(denoiser, _terms(condition, increments))


def _terms(
    condition: Condition, increments: Sequence[tuple[float, list[str]]]
) -> list[tuple[float, Condition]]:
    """Return the conditions at which D_s evaluates the denoiser, each with its weight.

    `increments` lists factors to add one after the other, each with the scale of its difference.
    """
    scales, conditions, kept = [1.0], [condition.null()], list[str]()
    for own_scale, names in increments:
        kept += names
        # Factors that are null anyway add no term: their condition equals the one before.
        if not all(is_null(condition.factors[name]).all() for name in names):
            scales.append(own_scale)
            conditions.append(condition.null(keep=kept))
    # The sum telescopes: conditions[i] has the weight scales[i] - scales[i + 1].
    parts = zip(pairwise([*scales, 0.0]), conditions, strict=True)
    return [(own - following, part) for (own, following), part in parts if own != following]


def _weighted_sum(
    denoiser: ConditionalDenoise, terms: Sequence[tuple[float, Condition]]
) -> Denoise:
    """Return the weighted sum of the denoiser at several conditions, evaluated as one batch."""
    if len(terms) == 1:
        return with_condition(denoiser, terms[0][1])
    weights = torch.tensor([weight for weight, _ in terms], dtype=torch.float64)
    first, *others = [part for _, part in terms]
    stacked = first.concat(*others)

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        x0 = denoiser(x.repeat(len(weights), *(1,) * (x.ndim - 1)), sigma, stacked)
        x0 = x0.unflatten(0, (len(weights), len(x)))  # (terms, B, C, H, W)
        weighted: Tensor = torch.tensordot(weights.to(x0), x0, 1)
        return weighted

    return denoise


def with_guidance_scale(denoiser: ConditionalDenoise, guidance: float) -> ConditionalDenoise:
    """Return the denoiser with its model-guidance scale fixed: one network evaluation per call.

    Images whose factors are all null get no guidance.
    """

    def denoise(x: Tensor, sigma: Tensor, condition: Condition | None) -> Tensor:
        if condition is None or not condition.factors:
            return denoiser(x, sigma, condition)
        scales = torch.full((len(x),), guidance, device=x.device)
        return denoiser(x, sigma, condition.with_factor(GUIDANCE, scales))

    return denoise


def autoguide(good: Denoise, bad: Denoise, scale: float) -> Denoise:
    """Guide away from the estimate of a weaker model of the same data.

    Both models need the same condition. To add other guidance, guide both models alike. All
    guidance is linear in the denoisers, so the order does not matter. Scale 1 returns `good`, and
    scale 0 returns `bad`. Any other scale calls each model once.

    Karras et al. 2024 (arXiv 2406.02507), equation 3.
    """
    if scale in (0, 1):
        return good if scale == 1 else bad

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        weak = bad(x, sigma)
        return weak + scale * (good(x, sigma) - weak)

    return denoise


def guidance_interval(inside: Denoise, outside: Denoise, low: float, high: float) -> Denoise:
    """Use `inside` at levels low < sigma <= high, and `outside` at all others.

    The guidance interval of Kynkäänniemi et al. 2024 (arXiv 2404.07724), equation 6.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return (inside if low < float(sigma) <= high else outside)(x, sigma)

    return denoise


def dps_guidance(denoise: Denoise, log_likelihood: LogLikelihood, scale: float = 1.0) -> Denoise:
    """Guide by a log-likelihood, through the denoiser: D + scale sigma^2 grad_x l(D).

    Each call costs one evaluation and its backward pass, about the time of three evaluations. It
    needs the memory of a training step.
    """

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x0 = denoise(x, sigma)
            (uphill,) = torch.autograd.grad(log_likelihood(x0).sum(), x)
        return x0.detach() + scale * sigma.to(x) ** 2 * uphill

    return denoised


def x0_guidance(
    denoise: Denoise, log_likelihood: LogLikelihood, variance: VarianceOfSigma, scale: float = 1.0
) -> Denoise:
    """Guide by a log-likelihood's gradient at x0: D + scale variance(sigma) grad l(D).

    The gradient does not pass through the network. Each call costs one evaluation of the network,
    and one of the log-likelihood with its gradient.
    """

    def denoised(x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad():
            x0 = denoise(x, sigma)
        with torch.enable_grad():
            leaf = x0.detach().requires_grad_()
            (uphill,) = torch.autograd.grad(log_likelihood(leaf).sum(), leaf)
        return x0 + scale * variance(sigma).to(x0) * uphill

    return denoised


def posterior_variance(
    denoise: Denoise, x0: Tensor, levels: Tensor, noise: Tensor
) -> VarianceOfSigma:
    """Measure the mean posterior variance of a pixel at each level.

    It is the mean squared error of the denoiser on clean images. For the optimal denoiser,
    E |x0 - D(x)|^2 is the trace of Cov(x0 | x), averaged over x.

    Args:
        denoise: The denoiser to measure.
        x0: Clean images (B, C, H, W) in [-1, 1].
        levels: Sigmas (L,) > 0 to measure at.
        noise: Standard normal noise (B, C, H, W).

    Returns:
        The variance as a function of sigma. Its logarithm is interpolated linearly in log sigma.
        Outside of the range of `levels`, it is the variance at the nearest one.

    """
    errors = []
    for sigma in levels:
        with torch.no_grad():
            error = denoise(x0 + sigma.to(x0) * noise, sigma) - x0
        errors.append(error.square().mean().cpu().double())  # on the CPU: MPS has no float64
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


def clamp_x0(denoise: Denoise) -> Denoise:
    """Return the denoiser with x0 clamped to [-1, 1], as in DDPM's code."""

    def clipped(x: Tensor, sigma: Tensor) -> Tensor:
        return denoise(x, sigma).clamp(-1, 1)

    return clipped
