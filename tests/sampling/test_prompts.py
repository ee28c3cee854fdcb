"""Prompts: log-likelihoods against the formula by hand, words against what captions say."""

import pytest
import torch
import torch.nn.functional as F

from mezzotint.diffusion import dps_guidance, x0_guidance
from mezzotint.errors import InputError
from mezzotint.metrics.clip import captions
from mezzotint.metrics.clip.captions import Captioner, Styles, tokens
from mezzotint.metrics.clip.clip import TransformersClip
from mezzotint.metrics.clip.likelihood import check, class_in, prompt_log_likelihood
from mezzotint.metrics.clip.small_clip import SmallClip, TextEncoder, sigmoid_loss
from mezzotint.runtime.rng import generator
from mezzotint.sampling.prompt import likelihood_guidance

FASHION = ("T-shirt/top", "Trouser", "Shirt", "Sneaker", "Ankle boot")
DIGITS = tuple("0123456789")


def small():
    """A small CLIP with a linear image encoder, untrained, in float64 but for the texts."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 64))
        return SmallClip(images, TextEncoder(), 8.0, -2.0, (1, 4, 4), "toy")


def test_a_log_likelihood_is_the_log_of_the_chance_that_the_prompt_is_true():
    clip, classes = small(), ("cat", "dog")
    x0 = torch.rand(3, 1, 4, 4, generator=generator("x0")) * 2 - 1
    labels = torch.tensor([0, 1, 1])
    found = prompt_log_likelihood(clip, "a thick {}", classes)(x0, labels)
    texts = clip.embed_texts(["a thick cat", "a thick dog"])
    for i, label in enumerate(labels.tolist()):
        cosine = F.cosine_similarity(clip.images(x0[i : i + 1]), texts[label : label + 1])
        expected = torch.log(1 / (1 + torch.exp(-(8.0 * cosine - 2.0))))
        torch.testing.assert_close(found[i : i + 1], expected)
    one = prompt_log_likelihood(clip, "a thick dog", classes)(x0, labels)
    torch.testing.assert_close(one[1:], found[1:])


def test_a_log_likelihood_has_the_gradient_of_its_differences():
    x0 = torch.rand(2, 1, 4, 4, generator=generator("x0")).requires_grad_()
    labels = torch.tensor([0, 1])
    log_likelihood = prompt_log_likelihood(small(), "a clear {}", ("cat", "dog"))
    (gradient,) = torch.autograd.grad(log_likelihood(x0, labels).sum(), x0)
    direction, step = torch.randn(x0.shape, generator=generator("direction")), 1e-2
    with torch.no_grad():
        ahead, behind = (
            float(log_likelihood(x0 + s * direction, labels).sum()) for s in (step, -step)
        )
    along = float((gradient * direction).sum())
    assert along == pytest.approx((ahead - behind) / (2 * step), rel=1e-3)


def test_the_chance_is_the_one_that_the_small_clip_was_trained_for():
    clip, cosines = small(), torch.linspace(-1, 1, 5)[:, None]
    loss = sigmoid_loss(
        cosines, torch.ones(5, 1, dtype=torch.bool), torch.tensor(8.0), torch.tensor(-2.0)
    )
    assert float(-clip.log_truth(cosines).sum()) == pytest.approx(float(loss))


def test_a_published_clips_chances_are_its_softmax_up_to_a_constant():
    clip = TransformersClip(None, None, "x", 224, (), ())
    cosines = torch.tensor([0.21, 0.25, 0.18])
    shares = (100 * cosines).softmax(0)
    torch.testing.assert_close(clip.log_truth(cosines).softmax(0), shares)


@pytest.mark.parametrize(
    ("prompt", "classes", "expected"),
    [
        ("a thick clear 7", DIGITS, 7),
        ("a Seven, slanted left", DIGITS, 7),
        ("the number four", DIGITS, 4),
        ("a thick 17", DIGITS, None),
        ("3 or 5", DIGITS, None),
        ("something thick", DIGITS, None),
        ("an ankle boot", FASHION, 4),
        ("a bright t-shirt", FASHION, 0),
        ("a bright shirt", FASHION, 2),
        ("boot of an ankle", FASHION, None),
    ],
)
def test_the_class_that_a_prompt_names(prompt, classes, expected):
    assert class_in(prompt, classes) == expected


def test_every_word_of_a_caption_is_known(digits, monkeypatch):
    monkeypatch.setattr(captions, "_with_strangers", lambda template, chance: template)
    images, labels = (part[:300] for part in digits.split("train"))
    captioner = Captioner(digits.classes, Styles.found(images))
    values = captioner.values(labels, torch.arange(300) % 3, captioner.styles.levels(images))
    texts, _ = captioner.sample(values, generator("captions"))
    said = {word for text in texts for word in tokens(text)}
    assert said <= captioner.telling | captioner.filling
    assert not captioner.telling & captioner.filling
    assert {"7", "seven", "clear", "blurry"} <= captioner.telling
    assert {"a", "photo", "thing", "looks"} <= captioner.filling


def test_strange_words_are_named_and_a_prompt_of_nothing_else_refused(digits):
    assert check("a photo of a clear 7", digits) is None
    assert check("a clear {}", digits) is None
    said = check("a beautiful clear 7", digits)
    assert "was not taught beautiful, and guesses" in said
    assert "blurry" in said
    assert "\n" not in said
    with pytest.raises(InputError, match="no word that the small CLIP of digits was taught"):
        check("a beautiful thing", digits)


def test_prompt_guidance_is_by_the_log_likelihood_of_the_images_own_labels():
    labels = torch.tensor([2.0, -1.0])
    x = 3 * torch.randn(2, 1, 3, 3, generator=generator("x"), dtype=torch.float64)
    sigma = torch.tensor(0.7, dtype=torch.float64)

    def denoise(x, sigma):
        return 0.5 * x

    def log_likelihood(x0, labels):
        assert x0.abs().max() <= 1  # what the picture will show
        return labels * (x0**3).sum((1, 2, 3))

    def own(x0):
        return log_likelihood(x0.clamp(-1, 1), labels)

    def variance(sigma):
        return sigma / 2

    def by(**more):
        return likelihood_guidance(log_likelihood, 0.3, variance, **more)(denoise, labels)(
            x, sigma
        )

    torch.testing.assert_close(by(), x0_guidance(denoise, own, variance, 0.3)(x, sigma))
    expected = dps_guidance(denoise, own, 0.3)(x, sigma)
    torch.testing.assert_close(by(gradient="network"), expected)
    assert torch.equal(by(interval=(0.7, 2.0)), denoise(x, sigma))
    assert torch.equal(by(interval=(0.6, 0.7)), by())
    with pytest.raises(InputError, match="x0 or network, got 'both'"):
        by(gradient="both")
