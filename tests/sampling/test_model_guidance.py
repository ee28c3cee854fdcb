"""A model's guidance by label and styles against the formula, and what an evaluation costs."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from mezzotint.config.schema import Sampling
from mezzotint.data.styles.style import number_style
from mezzotint.diffusion import GUIDANCE, X0, Condition, Denoiser, Karras, is_null
from mezzotint.sampling.denoise import build_denoise
from mezzotint.sampling.model import Model

SIGMA = torch.tensor(0.8, dtype=torch.float64)
X = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LABEL, SLANT = torch.tensor([1, 2, 0]), torch.tensor([0.5, float("nan"), 7.0])
PLAIN = Condition({"label": LABEL, "slant": torch.full((3,), torch.nan)})
STYLED = Condition({"label": LABEL, "slant": SLANT})


class Network(nn.Module):
    """Answers with a number that depends on label and style, and guides itself where asked to."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(slope, dtype=torch.float64))
        self.rows = 0

    def forward(self, x: Tensor, noise: Tensor, condition: Condition) -> Tensor:
        self.rows += len(x)
        label, slant = condition.factors["label"], condition.factors["slant"]
        mean = torch.where(is_null(label), 0.0, 3.0 + label)
        mean = mean + torch.where(is_null(slant), 0.0, slant * (1 + label))
        scale = condition.factors.get(GUIDANCE, torch.full_like(slant, torch.nan))
        return x / 2 + self.slope * (mean * scale.nan_to_num(1.0))[:, None, None, None]


def make_model(learned: float, slope: float = 1.0) -> Model:
    return Model(
        Denoiser(Network(slope), X0()),
        Sampling(),
        Karras(),
        (1, 2, 2),
        ("a", "b", "c"),
        0.0,
        0.5,
        styles=(
            number_style("slant", torch.linspace(-20, 20, 90).double(), ("low", "mid", "high")),
        ),
        droppable=("label", "slant"),
        max_model_guidance=learned,
    )


def plain(model: Model, condition: Condition) -> Tensor:
    """D without any guidance."""
    with torch.no_grad():
        return model.denoiser(X, SIGMA, condition)


def by_formula(model: Model, condition: Condition, s: float, k: float) -> Tensor:
    null, label = condition.null(), condition.null(keep=["label"])
    d = [plain(model, each) for each in (null, label, condition)]
    return d[0] + s * (d[1] - d[0]) + s * k * (d[2] - d[1])


def estimate(model: Model, condition: Condition, **changes) -> tuple[Tensor, float]:
    """x0, and the evaluations an image that it took."""
    network = model.denoiser.network
    network.rows = 0
    with torch.no_grad():
        x0 = build_denoise(model.changed(**changes), condition)(X, SIGMA)
    return x0, network.rows / len(X)


@pytest.mark.parametrize(
    ("learned", "condition", "s", "k", "evaluations"),
    [
        (1, PLAIN, 2, 1, 2), (1, PLAIN, 2, 3, 2), (1, STYLED, 2, 1, 2), (1, STYLED, 2, 0, 2),
        (1, STYLED, 2, 3, 3), (1, STYLED, 1, 1, 1), (1, STYLED, 0, 3, 1),
        (3, PLAIN, 2, 3, 1), (3, STYLED, 2, 1, 1), (3, STYLED, 2, 3, 2), (3, STYLED, 5, 1, 2),
        (3, STYLED, 5, 2, 3), (3, STYLED, 0.5, 1, 2), (3, STYLED, 0, 1, 1),
    ],
)  # fmt: skip
def test_one_scale_guides_by_label_and_style(learned, condition, s, k, evaluations):
    model = make_model(learned)
    x0, spent = estimate(model, condition, guidance=s, style_guidance={"slant": k})
    torch.testing.assert_close(x0, by_formula(model, condition, s, k), rtol=1e-12, atol=1e-12)
    assert spent == evaluations


def test_autoguidance_guides_both_models_by_the_same_formula():
    weak = make_model(1, slope=0.3)  # has no model guidance
    model = dataclasses.replace(make_model(3), guide_model=weak)
    settings = {"guidance": 2.0, "style_guidance": {"slant": 0.5}}
    x0, _ = estimate(model, STYLED, autoguidance=1.8, **settings)
    good, bad = (by_formula(each, STYLED, 2.0, 0.5) for each in (model, weak))
    torch.testing.assert_close(x0, bad + 1.8 * (good - bad), rtol=1e-12, atol=1e-12)


def test_a_prompt_guides_what_is_guided_by_the_same_formula():
    def wrap(denoise, labels):
        assert torch.equal(labels, LABEL)
        return lambda x, sigma: denoise(x, sigma) + 1

    model = dataclasses.replace(make_model(3), denoise_wrapper=wrap)
    x0, spent = estimate(model, STYLED, guidance=5.0, style_guidance={"slant": 0.0})
    expected = by_formula(model, STYLED, 5.0, 0.0) + 1
    torch.testing.assert_close(x0, expected, rtol=1e-12, atol=1e-12)
    assert spent == 2
