"""The classifier against its unfolded network, the textbook's batch normalisation, its own twin.

All on the embedded digits, with trainings of about a second.
"""

import copy
import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from mezzotint.data import Augment
from mezzotint.errors import DataError, InputError
from mezzotint.metrics.extractors import classifier as module
from mezzotint.metrics.extractors import weights_io
from mezzotint.metrics.extractors.classifier import Classifier, Domain, Recipe, fit
from mezzotint.metrics.extractors.extractor import WEIGHTS

NO = Augment()


@pytest.fixture(scope="module")
def shipped():
    return Classifier.load(WEIGHTS / "digits.safetensors")


@pytest.fixture(scope="module")
def trained(digits):
    """A classifier, and its network as it was before folding and rounding."""
    kept = []

    def keeping(network, *rest):
        kept.append(copy.deepcopy(network).eval())
        return folded(network, *rest)

    folded = module._folded
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_folded", keeping)
        patch.setattr(module, "bf16_pays", lambda device: False)
        found = quick(digits, images=5000)
    return found, kept[0]


def quick(data, images=640, seed=0, **changes):
    x, y = data.split("train")
    domain = Domain(data.classes, "digits", NO)
    return fit(x, y, domain, recipe=Recipe(images=images), seed=seed, **changes)


def accuracy(classifier, images, labels):
    return float((classifier.read(images).probabilities.argmax(1) == labels).double().mean())


def test_a_second_of_training_reads_held_out_digits(trained, digits):
    assert accuracy(trained[0], *digits.split("test")) > 0.97


def test_the_shipped_weights_read_held_out_digits_and_are_small(shipped, digits):
    assert accuracy(shipped, *digits.split("test")) >= 0.98
    assert (WEIGHTS / "digits.safetensors").stat().st_size < 400_000
    assert shipped.classes == digits.classes
    assert sum(p.numel() for p in shipped.network.parameters()) < 200_000


def test_folded_and_rounded_it_reads_as_the_network_with_batch_normalisation(trained, digits):
    classifier, network = trained
    images, _ = digits.split("test")
    with torch.no_grad():
        x = images.double() / 127.5 - 1
        features = network.double()[:-1](x)
        probabilities = network[-1](features).softmax(1)
    reading = classifier.read(images)
    assert any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    assert not any(isinstance(part, nn.BatchNorm2d) for part in classifier.network.modules())
    # float16 keeps 11 bits, so weights are off by up to 1 in 2048, and some dozen layers add up.
    assert (reading.features - features).abs().max() < 0.01 * features.abs().max()
    assert (reading.probabilities - probabilities).abs().max() < 0.02


def test_one_folded_convolution_is_the_textbooks_normalisation_after_it():
    """y = weight (conv(x) - mean) / sqrt(variance + 1e-5) + bias, Ioffe and Szegedy 2015."""
    torch.manual_seed(0)
    pair = module._convolution(3, 5, 3, 2, False).double().eval()
    convolution, norm = pair
    for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    with torch.no_grad():
        weight, bias = module._fused(pair)
        found = F.conv2d(x, weight, bias, stride=2, padding=1)
        y = F.conv2d(x, convolution.weight, None, stride=2, padding=1).movedim(1, -1)
        y = (y - norm.running_mean) / (norm.running_var + 1e-5).sqrt()
        expected = (y * norm.weight + norm.bias).movedim(-1, 1)
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_probabilities_are_the_softmax_of_one_linear_layer_on_the_features(shipped, digits):
    reading = shipped.read(digits.images[:30])
    last = shipped.network[-1]
    logits = reading.features.double() @ last.weight.double().T + last.bias.double()
    expected = logits.exp() / logits.exp().sum(1, keepdim=True)
    assert torch.allclose(reading.probabilities.double(), expected, atol=1e-5)
    assert reading.features.shape == (30, 128)
    assert (reading.features.dtype, reading.probabilities.dtype) == (torch.float32,) * 2
    assert torch.equal(shipped.features(digits.images[:30]), reading.features)


def test_a_mirrored_classifier_reads_the_mean_of_an_image_and_its_mirror(shipped, digits):
    images = digits.images[:20]
    mirrored = dataclasses.replace(shipped, mirrored=True)
    both = mirrored.read(images)
    one, other = shipped.read(images), shipped.read(images.flip(-1))
    assert torch.allclose(both.features, (one.features + other.features) / 2, atol=1e-6)
    expected = (one.probabilities + other.probabilities) / 2
    assert torch.allclose(both.probabilities, expected, atol=1e-6)
    x0 = images.float() / 127.5 - 1
    assert torch.allclose(mirrored.probabilities(x0), expected, atol=1e-6)


def test_images_are_read_alone_as_in_a_crowd(shipped, digits, monkeypatch):
    images = digits.images[:25]
    whole = shipped.read(images).features
    monkeypatch.setattr(module, "CHUNK", 7)
    assert torch.allclose(shipped.read(images).features, whole, atol=1e-5)
    assert torch.allclose(shipped.read(images[3:4]).features, whole[3:4], atol=1e-5)


def test_the_gradient_of_a_probability_is_its_finite_difference(shipped, digits):
    x0 = digits.images[:1].float() / 127.5 - 1
    x0 = (x0 * 0.5).requires_grad_()  # where the classifier is less than certain
    slope = torch.autograd.grad(shipped.probabilities(x0)[0, 3], x0)[0]
    direction = slope / slope.norm()
    step = 1e-2
    with torch.no_grad():
        ahead, behind = (shipped.probabilities(x0 + s * direction)[0, 3] for s in (step, -step))
    assert float((ahead - behind) / (2 * step)) == pytest.approx(float(slope.norm()), rel=0.05)


def test_two_trainings_give_the_same_hash_whatever_happened_before(digits):
    first = quick(digits)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = quick(digits)
    Classifier.load(WEIGHTS / "digits.safetensors")
    assert torch.equal(torch.get_rng_state(), before)
    assert again.digest == first.digest
    assert quick(digits, seed=1).digest != first.digest


def test_the_hash_is_of_every_weight_and_fact(shipped, tmp_path):
    assert dataclasses.replace(shipped, mirrored=True).digest != shipped.digest
    assert dataclasses.replace(shipped, classes=tuple("abcdefghij")).digest != shipped.digest
    seen = {shipped.digest}
    for name in shipped.network.state_dict():
        changed = dataclasses.replace(shipped, network=copy.deepcopy(shipped.network))
        changed.network.state_dict()[name].as_strided((1,), (1,)).add_(0.5)
        seen.add(changed.digest)
    assert len(seen) == 1 + len(shipped.network.state_dict())
    same = dataclasses.replace(shipped, network=copy.deepcopy(shipped.network))
    assert same.digest == shipped.digest


def test_a_saved_classifier_comes_back_as_it_was(trained, digits, tmp_path):
    classifier, _ = trained
    classifier.save(tmp_path / "new" / "one.safetensors")
    back = Classifier.load(tmp_path / "new" / "one.safetensors")
    assert back.digest == classifier.digest
    images = digits.images[:40]
    assert torch.equal(back.read(images).features, classifier.read(images).features)
    assert (back.classes, back.shape, back.mirrored, back.source) == (
        digits.classes, (1, 8, 8), False, "digits",
    )  # fmt: skip
    weights = load_file(tmp_path / "new" / "one.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16}


def test_every_image_is_seen_equally_often(digits, monkeypatch):
    """In every window of 10 (or 3) images as shown, each of the 10 (or 3) is there once."""
    shown = []

    def watching(images, *rest):
        shown.extend(int(image[0, 0, 0]) for image in images)
        return normal(images, *rest)

    normal = module._normal
    monkeypatch.setattr(module, "_normal", watching)
    for n, batch in ((10, 4), (3, 8), (7, 7)):
        images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4)
        fit(
            images.contiguous(), torch.arange(n) % 2, Domain(("a", "b"), "few", NO),
            recipe=Recipe(images=80, batch=batch, rate=0.0),
        )  # fmt: skip
        whole = [shown[i : i + n] for i in range(0, len(shown) - n + 1, n)]
        assert len(whole) >= 7
        assert all(sorted(window) == list(range(n)) for window in whole)
        shown.clear()


def test_images_are_shifted_and_mirrored_only_where_the_set_allows_it(monkeypatch):
    arguments = []
    monkeypatch.setattr(
        module,
        "Augment",
        lambda flip, shift: arguments.append((flip, shift)) or Augment(flip, shift),
    )
    for augment, width in ((Augment(), 28), (Augment(flip=True), 32), (Augment(shift=3), 8)):
        images = torch.zeros(4, 1, width, width, dtype=torch.uint8)
        found = fit(
            images, torch.arange(4) % 2, Domain(("a", "b"), "x", augment),
            recipe=Recipe(images=4, batch=4),
        )  # fmt: skip
        assert found.mirrored == augment.flip
    assert arguments == [(False, 2), (True, 4), (False, 0)]


def test_the_learning_rate_rises_for_a_fifth_and_falls_to_nothing():
    rates = [module.triangle(step / 100, peak=0.2) for step in range(101)]
    assert rates[0] == 0
    assert rates.index(max(rates)) == 20
    assert rates[20] == pytest.approx(1)
    assert rates[100] == pytest.approx(0)
    assert rates[60] == pytest.approx(0.5)


def test_the_watcher_hears_of_progress_up_to_the_end(digits):
    heard = []
    quick(digits, images=128 * 3, watch=heard.append)
    assert heard == [128, 384]


def test_usual_recipes_are_long_enough_and_named_apart():
    assert Recipe.usual(500).images == 100_000
    assert Recipe.usual(60_000).images == 300_000
    assert Recipe.usual(500).digest == Recipe().digest != Recipe(images=7).digest


def test_a_copy_on_another_device_leaves_the_classifier_where_it_is(shipped, digits):
    before = shipped.read(digits.images[:9])
    there = shipped.on("meta")  # a device that every machine has
    assert {p.device.type for p in there.network.parameters()} == {"meta"}
    assert {p.device.type for p in shipped.network.parameters()} == {"cpu"}
    assert torch.equal(shipped.read(digits.images[:9]).features, before.features)
    assert (there.classes, there.shape, there.source) == (
        shipped.classes, shipped.shape, shipped.source,
    )  # fmt: skip
    assert shipped.on("cpu") is shipped


def test_images_of_another_shape_are_refused(shipped):
    wide = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    colour = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for images, words in ((wide, "28x28 grey"), (colour, "8x8 RGB"), (wide.float(), "float32")):
        with pytest.raises(InputError, match=words) as caught:
            shipped.read(images)
        assert "\n" not in str(caught.value)


def damage(kind, path):
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("not a classifier\n" * 100)
    elif kind == "without facts":
        save_file(load_file(path), path)
    elif kind == "other classes":
        facts = {"name": "x", "classes": ["a", "b"], "shape": [1, 8, 8], "mirrored": False}
        save_file(load_file(path), path, metadata={"classifier": json.dumps(facts)})
    elif kind == "missing weights":
        weights = load_file(path)
        weights.popitem()
        facts = {"name": "x", "classes": list("0123456789"), "shape": [1, 8, 8], "mirrored": False}
        save_file(weights, path, metadata={"classifier": json.dumps(facts)})
    elif kind == "odd facts":
        save_file(load_file(path), path, metadata={"classifier": "[1, 2]"})


@pytest.mark.parametrize(
    "kind",
    ["cut", "empty", "text", "without facts", "other classes", "missing weights", "odd facts"],
)
def test_a_damaged_file_is_one_line(kind, shipped, tmp_path):
    path = tmp_path / "cached.safetensors"
    shipped.save(path)
    damage(kind, path)
    with pytest.raises(DataError, match=r"cached.safetensors is damaged: delete it") as caught:
        Classifier.load(path)
    assert "\n" not in str(caught.value)


def test_a_cut_off_write_leaves_the_old_file(shipped, tmp_path, monkeypatch):
    path = tmp_path / "kept.safetensors"
    shipped.save(path)
    monkeypatch.setattr(
        weights_io, "save", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "full"))
    )
    with pytest.raises(OSError, match="full"):
        shipped.save(path)
    assert Classifier.load(path).digest == shipped.digest
    assert [p.name for p in tmp_path.iterdir()] == ["kept.safetensors"]
