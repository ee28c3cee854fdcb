"""Recognition, against sequences made by hand, loops, numpy and scikit-learn."""

import dataclasses
import json
import math
import weakref

import numpy as np
import pytest
import torch

from mezzotint.diffusion import Ancestral, Karras, Step, initial_state, sampling_sigmas
from mezzotint.errors import InputError
from mezzotint.imaging import shown
from mezzotint.metrics.recognition import (
    EVIDENCE,
    NOTHING,
    Level,
    Readings,
    merged,
    read_classes,
    recognise_forward,
    recognise_reverse,
    summarise,
)
from mezzotint.runtime.rng import generator

X = NOTHING


def readings(labels, read, *, process="reverse", levels=None):
    """Readings made by hand: after 0, 1, 2, … evaluations, at sigma 2^(L-2), …, 1, 0."""
    count = len(read[0])
    sigmas = [2.0**k for k in range(count - 2, -1, -1)] + [0.0]
    levels = levels or tuple(
        Level(k / (count - 1), s, s**-2 if s else None, k) for k, s in enumerate(sigmas)
    )
    rows = torch.tensor(read, dtype=torch.int16)
    return Readings("hand", process, "x0", 0.5, levels, torch.tensor(labels), rows)


def test_what_is_read_is_the_most_probable_class_where_it_is_probable_enough():
    probabilities = torch.tensor([[0.2, 0.7, 0.1], [0.4, 0.35, 0.25], [0.1, 0.4, 0.5]])
    assert read_classes(probabilities).tolist() == [1, X, 2]
    assert read_classes(probabilities, 0.3).tolist() == [1, 0, 2]
    assert read_classes(probabilities, 0.6).tolist() == [1, X, X]


def test_first_and_final_level_of_images_made_by_hand():
    arguments = readings(
        [0, 0, 0, 1],
        [
            [X, X, 0, X, 0, 0],  # a glimpse at 2, for good from 4 on
            [X, 0, 0, 0, 0, 0],  # once and for good
            [X, X, 0, 0, 1, X],  # seen, and lost again
            [X, X, X, X, X, X],  # never
        ],
    )
    assert arguments.first().tolist() == [2, 1, 2, 6]
    assert arguments.final().tolist() == [4, 1, 6, 6]


def test_first_and_final_agree_with_a_loop():
    draws = generator("recognition test")
    labels = torch.arange(60) % 3
    # Mostly right, so that every reading is evidence.
    wrong = torch.rand(60, 9, generator=draws) < 0.3
    read = torch.where(wrong, NOTHING, labels[:, None])
    arguments = readings(labels.tolist(), read.tolist())
    for row, label, first, final in zip(
        read, labels, arguments.first(), arguments.final(), strict=True
    ):
        right = [bool(value == label) for value in row]
        assert int(first) == next((k for k in range(9) if right[k]), 9)
        assert int(final) == next((k for k in range(9) if all(right[k:])), 9)


def test_quartiles_are_order_statistics_with_never_at_infinity():
    draws = generator("quartiles test")
    wrong = torch.rand(41, 9, generator=draws) < torch.linspace(1, 0.1, 9)
    arguments = readings([0] * 41, torch.where(wrong, X, 0).tolist())
    for name in ("first", "final"):
        index = getattr(arguments, name)()
        share = np.where(index == 9, np.inf, index / 8)
        (found,) = summarise(arguments, ["a"]).classes
        arrival = getattr(found, name)
        assert arrival.never == pytest.approx(np.isinf(share).mean())
        for field, q in (("quarter", 0.25), ("half", 0.5), ("three_quarters", 0.75)):
            expected = np.quantile(share, q, method="inverted_cdf")
            level = getattr(arrival, field)
            assert (math.inf if level is None else level.share) == expected
        cumulative = [(share <= k / 8).mean() for k in range(9)]
        assert arrival.reached == pytest.approx(cumulative)


def test_curves_and_ranking_of_three_classes():
    arguments = readings(
        [0, 0, 1, 1, 2, 2],
        [
            [X, X, 0, 0],
            [X, X, X, 0],
            [X, 1, 1, 1],
            [X, 0, 1, 1],
            [X, X, X, 2],
            [X, X, X, X],
        ],
    )
    found = summarise(arguments, ["a", "b", "c"])
    a, b, c = found.classes
    assert [each.images for each in found.classes] == [2, 2, 2]
    assert a.recognised == (0, 0, 0.5, 1)
    assert a.mistaken == (0, 0.25, 0, 0)
    assert b.final.reached == (0, 0.5, 1, 1)
    assert (b.final.half.share, b.final.three_quarters.share) == (1 / 3, 2 / 3)
    assert (c.final.half.sigma, c.final.three_quarters, c.final.never) == (0, None, 0.5)
    assert found.ranking == ("b", "a", "c")
    assert found.overall.recognised == pytest.approx((0, 1 / 6, 3 / 6, 5 / 6))
    assert found.overall.mistaken == pytest.approx((0, 1 / 6, 0, 0))
    whole, first, last = found.sentences
    assert "half after 67 % of the process (sigma 1, 2 of 3 evaluations)" in whole
    assert whole.endswith("17 % never.")
    assert first == (
        "b is recognised first: half of its images after 33 % of the process "
        "(sigma 2, 1 of 3 evaluations)."
    )
    assert last.startswith("c is recognised last: half of its images after 100 %")


def test_a_class_that_is_read_in_everything_is_not_recognised_by_it():
    # The reader calls noise 0; only from level 2 on does it tell the classes apart.
    read = [[0, 0, 0, 0]] * 6 + [[0, 0, 1, 1]] * 6
    arguments = readings([0] * 6 + [1] * 6, read)
    found = summarise(arguments, ["a", "b"])
    assert found.classes[0].recognised == (1, 1, 1, 1)
    assert found.classes[0].mistaken == (1, 1, 0, 0)
    assert arguments.first().tolist() == arguments.final().tolist() == [2] * 12


@pytest.mark.parametrize("others", [0.3, 0.36])
def test_evidence_is_a_likelihood_ratio(others):
    # 100 images of class 0 always read as 0; of the others, this share is read as 0, too.
    n = round(100 * others)
    read = [[0, 0]] * 100 + [[0, 1]] * n + [[1, 1]] * (100 - n)
    arguments = readings([0] * 100 + [1] * 100, read)
    counts = 1 / others >= EVIDENCE
    assert arguments.first()[:100].tolist() == [0 if counts else 1] * 100


def test_labels_ignored_by_the_model_are_recognised_nowhere():
    labels = (torch.arange(1000) % 10).tolist()
    digits = torch.randint(10, (1000, 1), generator=generator("unconditional")).expand(-1, 5)
    found = summarise(readings(labels, digits.tolist()), [str(k) for k in range(10)])
    assert found.overall.recognised == pytest.approx((0.1,) * 5, abs=0.03)
    assert found.overall.first.never == 1
    assert "half of the images of each never" in found.sentences[1]


def brightness(images):
    """A reader of two classes, dark and bright, by the mean: 0 … 255 -> probability of bright."""
    bright = images.double().mean((1, 2, 3)) / 255
    return torch.stack([1 - bright, bright], 1)


def made_process(labels, sigmas, alive=None):
    """Estimates that leave mid-grey when sigma is small: x0 = class * (1 - sigma / sigmas[0])."""
    signs = (labels.double() * 2 - 1)[:, None, None, None]
    x0 = torch.zeros(len(labels), 1, 4, 4, dtype=torch.float64)
    for k, sigma in enumerate(sigmas):
        if k > 0:
            x0 = (signs * (1 - sigmas[k - 1] / sigmas[0])).expand(-1, 1, 4, 4).clone()
        x = signs.expand(-1, 1, 4, 4) * (1 + sigma**2) ** 0.5 * (k / len(sigmas))
        if alive is not None:
            alive.append(weakref.ref(x))
        yield Step(torch.tensor(sigma, dtype=torch.float64), x, x0)


def test_a_reverse_process_whose_crossing_is_known():
    labels = torch.tensor([0, 1, 1, 0])
    sigmas = [8.0, 6.0, 4.0, 2.0, 1.0, 0.0]
    # The estimate made at sigma has p = (1 + (1 - sigma / 8)) / 2 for its class: 0.7 at 4.8.
    x0, x = recognise_reverse(
        made_process(labels, sigmas), {"mean": brightness}, labels, threshold=0.7
    )
    assert [level.sigma for level in x0.levels] == [8, 8, 6, 4, 2, 1]  # where it was made
    assert [level.sigma for level in x.levels] == sigmas
    assert [level.evaluations for level in x.levels] == [0, 1, 2, 3, 4, 5]
    (half,) = {each.final.half for each in summarise(x0, ["dark", "bright"]).classes}
    assert (half.sigma, half.evaluations, half.share) == (4, 3, 3 / 5)
    assert half.snr == pytest.approx(1 / 16)
    # x is shown divided by sqrt(1 + sigma^2): k / 6 above mid-grey, 0.7 after 3 evaluations.
    (half,) = {each.final.half for each in summarise(x, ["dark", "bright"]).classes}
    assert (half.sigma, half.evaluations) == (2, 3)


def test_the_estimate_without_label_is_that_of_the_state():
    asked = []

    def denoise(x, sigma):
        asked.append(float(sigma))
        return x.sign() * 0.9  # read as the class from the first level where x has a sign

    labels = torch.tensor([0, 1])
    process_ = made_process(labels, [8.0, 4.0, 2.0, 0.0])
    *_, free = recognise_reverse(process_, {"mean": brightness}, labels, denoise=denoise)
    assert asked == [8, 4, 2]  # at 0 the state is its own estimate
    assert [level.sigma for level in free.levels] == [8, 4, 2, 0]
    assert free.final().tolist() == [1, 1]
    assert summarise(free, ["dark", "bright"]).sentences[1] == (
        "The classes are recognised together: half of the images of each "
        "after 33 % of the process (sigma 4, 1 of 3 evaluations)."
    )


def test_evaluations_are_the_clock_where_a_step_takes_two():
    labels = torch.tensor([0, 1])
    (x0, _) = recognise_reverse(
        made_process(labels, [8.0, 4.0, 2.0, 0.0]),
        {"mean": brightness},
        labels,
        evaluations=[0, 2, 4, 5],
    )
    assert [level.share for level in x0.levels] == [0, 0.4, 0.8, 1]


def test_the_steps_of_a_sampler_are_dropped_when_read():
    alive, most = [], 0

    def watching(images):
        nonlocal most
        most = max(most, sum(ref() is not None for ref in alive))
        return brightness(images)

    labels = torch.tensor([0, 1])
    recognise_reverse(
        made_process(labels, [float(k) for k in range(50, -1, -1)], alive), {"r": watching}, labels
    )
    assert len(alive) == 51
    assert most <= 2


def test_chunks_merge_to_the_whole():
    labels = torch.tensor([0, 1, 1, 0, 1])
    sigmas, readers = [8.0, 4.0, 2.0, 0.0], {"a": brightness, "b": lambda i: brightness(255 - i)}
    whole = recognise_reverse(made_process(labels, sigmas), readers, labels)
    parts = merged(
        recognise_reverse(made_process(part, sigmas), readers, part) for part in labels.split(2)
    )
    assert [(r.reader, r.view) for r in parts] == [(r.reader, r.view) for r in whole]
    assert [(r.reader, r.view) for r in parts] == [
        ("a", "x0"), ("a", "x"), ("b", "x0"), ("b", "x")
    ]  # fmt: skip
    for ours, theirs in zip(parts, whole, strict=True):
        assert summarise(ours, "ab").to_json() == summarise(theirs, "ab").to_json()


def test_a_sampler_with_the_perfect_denoiser_of_two_gaussians():
    # Data N(+-0.5, 0.1^2) a pixel; D(x; sigma) = m + v / (v + sigma^2) (x - m), so the estimate
    # is within 0.1 of m at once, and x is read when the noise of its mean is gone.
    labels = torch.arange(200) % 2
    means = (labels.double() - 0.5)[:, None, None, None]

    def denoise(x, sigma):
        return means + 0.01 / (0.01 + sigma**2) * (x - means)

    levels = sampling_sigmas(Karras(0.01, 20.0), 12)
    noise = torch.randn(200, 1, 4, 4, dtype=torch.float64, generator=generator("two gaussians"))
    x = initial_state(noise, levels[0])

    def process_():
        yield Step(levels[0], x, torch.zeros_like(x))
        yield from Ancestral(0.0).iterate(denoise, x, levels, lambda: x)

    x0, state = (
        summarise(r, ["dark", "bright"])
        for r in recognise_reverse(process_(), {"mean": brightness}, labels, threshold=0.6)
    )
    assert {each.final.three_quarters.evaluations for each in x0.classes} == {1}
    # Threshold 0.6 is a mean beyond 0.2 in [-1, 1]. DDIM's x of this D is
    # m (1 - a) + a x_start with a = sqrt((v + sigma^2) / (v + sigma_0^2)), nearly.
    # At the end all are read; with sigma = 5, the mean's deviation 1.25 / 5.1 hides 0.5 / 5.1.
    assert state.overall.recognised[-1] == 1
    assert state.overall.final.half.sigma < 5
    assert state.overall.recognised[0] < 0.5


def test_the_forward_process_loses_flat_images_where_the_integral_says():
    # Big flat images of +-0.6, where the noise averages out: the mean brightness shown is that of
    # (m + sigma z) / sqrt(1 + sigma^2), clamped to [-1, 1], integrated over the normal z.
    labels = torch.arange(6) % 2
    images = ((labels * 1.2 - 0.6 + 1) * 127.5).round().to(torch.uint8)
    images = images[:, None, None, None].expand(-1, 1, 128, 128).contiguous()
    schedule, threshold = Karras(0.01, 20.0), 0.6
    (found,) = recognise_forward(
        images,
        labels,
        schedule,
        {"mean": brightness},
        generator("flat"),
        levels=11,
        threshold=threshold,
    )
    u = torch.linspace(1, 0, 11, dtype=torch.float64)
    sigma = schedule.sigma(u)
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    x = (0.6 + sigma[:, None] * z) / (1 + sigma[:, None] ** 2).sqrt()
    weight = torch.exp(-(z**2) / 2)
    means = (x.clamp(-1, 1) * weight).sum(1) / weight.sum()
    apart = means - (2 * threshold - 1)
    assert apart.abs().min() > 0.02  # the noise of a mean of 16384 pixels cannot decide it
    expected = int((apart > 0).int().argmax())
    assert set(found.final().tolist()) == {expected}
    assert [level.share for level in found.levels] == u.tolist()
    half = summarise(found, "ab").overall.final.half
    assert half.sigma == pytest.approx(float(sigma[expected]))
    assert half.snr == pytest.approx(half.sigma**-2)
    assert half.evaluations is None


def test_a_perfect_denoiser_sees_further_into_the_noise():
    # Flat images of +-0.4, both as likely: E[x0 | x] = 0.4 tanh(0.4 sum(x) / sigma^2). An image
    # is read right while the sum of its noise does not outweigh it, here computed directly.
    labels = torch.arange(100) % 2
    images = ((labels * 0.8 - 0.4 + 1) * 127.5).round().to(torch.uint8)
    images = images[:, None, None, None].expand(-1, 1, 6, 6).contiguous()
    schedule = Karras(0.1, 20.0)

    def denoise(x, sigma):
        assert sigma.shape == ()
        tilt = 0.4 * x.sum((1, 2, 3), keepdim=True) / sigma**2
        return (0.4 * tilt.tanh()).expand_as(x)

    x, free = recognise_forward(
        images, labels, schedule, {"mean": brightness}, generator("tanh"), denoise=denoise,
        levels=15, threshold=0.6,
    )  # fmt: skip
    assert (x.view, free.view) == ("x", "unconditional")
    eps = torch.randn(images.shape, generator=generator("tanh")).double().sum((1, 2, 3))
    signs = labels.double() * 2 - 1
    clean = (images[:, 0, 0, 0].double() / 127.5 - 1) * 36
    for k, level in enumerate(free.levels):
        tilt = 0.4 * (clean + level.sigma * eps) / level.sigma**2
        right = 0.4 * tilt.tanh() * signs > 0.2  # probability 0.6
        sure = (0.4 * tilt.tanh() * signs - 0.2).abs() > 0.01
        assert torch.equal((free.read[:, k] == labels)[sure], right[sure])
    halves = [summarise(each, "ab").overall.final.half for each in (x, free)]
    assert halves[0].sigma < halves[1].sigma


def test_each_image_keeps_its_noise_on_the_way():
    seen = []

    def spying(images):
        seen.append(images.double())
        return brightness(images)

    images = torch.full((2, 1, 8, 8), 128, dtype=torch.uint8)
    recognise_forward(
        images, torch.tensor([0, 1]), Karras(0.01, 0.3), {"spy": spying}, generator("k"), levels=3
    )
    top, middle = (view - 128 for view in seen[:2])
    correlation = torch.corrcoef(torch.stack([top.flatten(), middle.flatten()]))[0, 1]
    assert correlation > 0.99


def test_real_digits_drown_as_scikit_learn_counts_it():
    from sklearn.linear_model import LogisticRegression

    import mezzotint.data

    digits = mezzotint.data.load("digits")
    images, labels = digits.split("train")
    model = LogisticRegression(max_iter=300).fit(images.flatten(1) / 255, labels)

    def reader(batch):
        return torch.from_numpy(model.predict_proba(batch.flatten(1).numpy() / 255))

    images, labels = digits.split("test")
    (found,) = recognise_forward(
        images, labels, Karras(1e-3, 20.0), {"logistic": reader}, generator("digits"), levels=21
    )
    messages = summarise(found, digits.classes)
    p = model.predict_proba(images.flatten(1) / 255)
    sure = (p.argmax(1) == labels.numpy()) & (p.max(1) >= 0.5)
    assert messages.overall.recognised[-1] == pytest.approx(sure.mean(), abs=0.005)
    assert messages.overall.recognised[-1] > 0.9
    assert messages.overall.recognised[0] < 0.25  # noise: chance, whatever the reader makes of it
    assert messages.overall.first.reached[0] < 0.05  # and no evidence
    assert 0.1 < messages.overall.final.half.share < 0.9
    whole, first, last = messages.sentences
    assert whole.startswith(
        "On the way to noise logistic in x itself still recognises three quarters"
    )
    assert f"{messages.ranking[-1]} is lost first" in first
    assert f"{messages.ranking[0]} is lost last" in last
    half = {each.name: each.final.half.share for each in messages.classes}
    assert half[messages.ranking[-1]] == min(half.values())
    assert half[messages.ranking[0]] == max(half.values())


def test_json_is_plain_and_whole():
    found = summarise(readings([0, 1], [[X, 0, 0], [X, X, X]]), ["a", "b"])
    text = json.dumps(found.to_json(), allow_nan=False)
    again = json.loads(text)
    assert set(again) == {
        "reader", "process", "view", "threshold", "levels", "overall", "classes", "ranking",
        "sentences",
    }  # fmt: skip
    assert again["levels"][2] == {"share": 1.0, "sigma": 0.0, "snr": None, "evaluations": 2}
    assert again["classes"][0]["final"]["half"] == again["levels"][1]
    assert again["classes"][1]["final"]["half"] is None
    assert set(again["overall"]) == {field.name for field in dataclasses.fields(found.overall)}


def test_noise_is_shown_in_the_range_of_pixels():
    x = torch.tensor([-5.0, 0.0, 5.0]).view(1, 1, 1, 3)
    assert shown(x, 10.0).flatten().tolist() == [64, 128, 191]  # -+ 5 / sqrt(101)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda process_: recognise_reverse(process_, {"r": brightness}, torch.tensor([0])),
            "2 images have 1 labels",
        ),
        (
            lambda process_: recognise_reverse(process_, {"r": brightness}, torch.tensor([0, 2])),
            "2 classes",
        ),
        (
            lambda process_: recognise_reverse(
                process_, {"r": brightness}, torch.tensor([0, 1]), evaluations=[0, 1]
            ),
            "3 steps and evaluations",
        ),
        (
            lambda process_: recognise_reverse(process_, {}, torch.tensor([0, 1]), threshold=0.0),
            "threshold is 0",
        ),
    ],
    ids=["labels", "classes", "evaluations", "threshold"],
)
def test_bad_input_is_one_line(call, words):
    with pytest.raises(InputError, match=words) as caught:
        call(made_process(torch.tensor([0, 1]), [4.0, 2.0, 0.0]))
    assert "\n" not in str(caught.value)


def test_bad_input_of_the_forward_process_is_one_line():
    images, labels = torch.zeros(600, 1, 8, 8, dtype=torch.uint8), torch.zeros(500).long()
    with pytest.raises(InputError, match="600 images have 500 labels"):
        recognise_forward(images, labels, Karras(), {"r": brightness}, generator("k"))
    with pytest.raises(InputError, match="2 levels or more, got 1"):
        recognise_forward(images[:500], labels, Karras(), {}, generator("k"), levels=1)


def test_chunks_of_different_samplers_do_not_merge():
    labels = torch.tensor([0, 1])
    one, other = (
        recognise_reverse(made_process(labels, sigmas), {"r": brightness}, labels)
        for sigmas in ([4.0, 2.0, 0.0], [4.0, 1.0, 0.0])
    )
    with pytest.raises(InputError, match="different samplers"):
        merged([one, other])
