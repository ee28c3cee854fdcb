"""Our CLIP numbers against transformers' own, numpy, sklearn, and a CLIP that can be seen through.

The transformers tests make a tiny CLIP with random weights, its tokenizer and its processor.
"""

import json
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from mezzotint.errors import DataError, InputError
from mezzotint.imaging import to_float, to_pillow
from mezzotint.metrics.clip import clip as module
from mezzotint.metrics.clip.clip import (
    Prompts,
    TransformersClip,
    auc,
    clip_report,
    quality_scores,
    score,
)
from mezzotint.metrics.corruption import blur, noise
from mezzotint.runtime.rng import generator

TEXTS = ["a photo of a 7", "a blurry photo of a bag, thick and dark", "cab"]


def pictures(n, channels=1, size=28):
    """Smooth uint8 pictures, so that a filter's rounding does not matter."""
    g = generator("pictures", channels, size)
    coarse = torch.rand(n, channels, 4, 4, generator=g)
    fine = F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)
    return (fine * 255).round().byte()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A CLIP of some thousand random weights, saved as transformers saves one."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("tiny-clip")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    vocabulary = {word: i for i, word in enumerate([*words, "ph", "bl", "ca"])}
    merges = [("p", "h"), ("b", "l"), ("c", "a")]
    tokenizer = transformers.CLIPTokenizerFast(
        vocab=vocabulary, merges=merges, model_max_length=77
    )
    tower = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    config = transformers.CLIPConfig(
        text_config={
            **tower,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 77,
            "bos_token_id": 0,
            "eos_token_id": 1,
            "pad_token_id": 1,
        },
        vision_config={**tower, "image_size": 48, "patch_size": 16},
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.CLIPModel(config)
    for parameter in model.parameters():
        parameter.data.mul_(2)  # fresh ones are so small that all images look alike
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    processor(transformers).save_pretrained(path)
    return path


def processor(transformers):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": 48},
        crop_size={"height": 48, "width": 48},
        image_mean=[0.4, 0.5, 0.6],
        image_std=[0.2, 0.3, 0.25],
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_cosines_equal_those_of_transformers(folder, channels):
    import transformers

    images = torch.randint(256, (5, channels, 28, 28), generator=generator(5), dtype=torch.uint8)
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pixels = processor(transformers)([to_pillow(image) for image in images], return_tensors="pt")
    with torch.no_grad():
        out = model(**tokenizer(TEXTS, padding=True, return_tensors="pt"), **pixels)
    expected = out.logits_per_image / model.logit_scale.exp()
    clip = TransformersClip.load(str(folder))
    cosines = clip.embed_images(images) @ clip.embed_texts(TEXTS).T
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-5)
    assert float(cosines.std()) > 1e-2  # a comparison of constants would be none


def test_chunks_do_not_change_embeddings(folder):
    clip, images = TransformersClip.load(str(folder)), pictures(70)
    texts = [f"a photo of a {i}" for i in range(70)]
    torch.testing.assert_close(
        clip.embed_images(images)[66:67], clip.embed_images(images[66:67]), rtol=0, atol=1e-5
    )
    torch.testing.assert_close(
        clip.embed_texts(texts)[66:67], clip.embed_texts(texts[66:67]), rtol=0, atol=1e-5
    )


def test_a_text_longer_than_the_model_reads_is_cut(folder):
    clip = TransformersClip.load(str(folder))
    assert clip.embed_texts(["thick " * 200]).shape == (1, 16)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 32)])
def test_x0_has_nearly_the_embedding_of_its_pixels_and_true_gradients(folder, shape):
    clip = TransformersClip.load(str(folder))
    images = pictures(2, shape[0], 32)[:, :, : shape[1], : shape[2]]
    x0 = to_float(images).requires_grad_()
    pictured, target = clip.embed_x0(x0), clip.embed_texts(TEXTS[:1])[0]
    torch.testing.assert_close(pictured, clip.embed_images(images), rtol=0, atol=2e-2)
    (gradient,) = torch.autograd.grad((pictured @ target).sum(), x0)
    direction = torch.randn(x0.shape, generator=generator("direction"))
    step = 1e-3
    with torch.no_grad():
        ahead, behind = (
            float((clip.embed_x0(x0 + s * direction) @ target).sum()) for s in (step, -step)
        )
    expected = (ahead - behind) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(expected, rel=0.05, abs=1e-3)


def test_what_is_missing_is_said_in_one_line(folder, tmp_path, monkeypatch):
    for name in ("no/such/folder", str(tmp_path)):
        with pytest.raises(DataError, match="no CLIP could be loaded from") as caught:
            TransformersClip.load(name)
        assert "\n" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r'pip install "mezzotint\[clip\]"'):
        TransformersClip.load(str(folder))


class Toy:
    """A CLIP whose every number can be followed: images and texts are two facts each.

    An image is its mean (the class: 0 dark, 1 bright) and its roughness; a text has the angle
    that its words say. Both are turned into angles of three dimensions.
    """

    name, scale = "toy", 5.0
    protocol = {"model": "toy", "scale": 5.0, "resize": None}  # noqa: RUF012

    def embed_x0(self, x0):
        rough = (x0[..., 1:] - x0[..., :-1]).abs().mean((1, 2, 3))
        bright = x0.mean((1, 2, 3))
        return F.normalize(torch.stack([bright, rough, torch.ones_like(rough) / 2], 1))

    def embed_images(self, images):
        return self.embed_x0(to_float(images))

    def embed_texts(self, texts):
        rows = []
        for text in texts:
            rough = {"blurry": -1.0, "noisy": 1.5, "sharp": 0.5, "clean": -1.0, "good": 0.2}
            looks = [value for word, value in rough.items() if word in text]
            rows.append([1.0 if "bright" in text else -1.0, looks[0] if looks else 0.0, 0.3])
        return F.normalize(torch.tensor(rows))


CLASSES = ("dark", "bright")


def stripes(n, key):
    """Dark and bright pictures in turn, with edges that a blur softens."""
    g = generator("stripes", key)
    labels = torch.arange(n) % 2
    level = 40 + 130 * labels[:, None, None, None] + 20 * torch.rand(n, 1, 1, 1, generator=g)
    comb = (torch.arange(12) % 4 < 2).float() * 60 * torch.rand(n, 1, 1, 1, generator=g)
    return (level + comb).expand(-1, 1, 12, -1).round().byte(), labels


def test_scores_are_those_of_the_textbook():
    images, labels = stripes(9, "a")
    toy, prompts = (
        Toy(),
        Prompts("a {} one", (("sharp {}", "blurry {}"), ("clean {}", "noisy {}"))),
    )
    got = score(toy, images, labels, CLASSES, prompts)
    seen = toy.embed_images(images).double().numpy()

    def cosines(i, texts):
        return toy.embed_texts(texts).double().numpy() @ seen[i]

    def softmax(z):
        return np.exp(5 * z) / np.exp(5 * z).sum()

    for i, label in enumerate(labels.tolist()):
        name = CLASSES[label]
        own = cosines(i, [f"a {c} one" for c in CLASSES])
        assert float(got.cosine[i]) == pytest.approx(100 * own[label], rel=1e-6)
        assert float(got.intended[i]) == pytest.approx(softmax(own)[label], rel=1e-6)
        assert bool(got.right[i]) == (own[label] > own[1 - label])
        pairs = [
            softmax(cosines(i, [f"sharp {name}", f"blurry {name}"]))[0],
            softmax(cosines(i, [f"clean {name}", f"noisy {name}"]))[0],
        ]
        assert got.pairs[i].tolist() == pytest.approx(pairs, rel=1e-6)
        three = [f"a {w} photo of a {name}" for w in ("good", "clear", "blurry")]
        assert got.good_clear_blurry[i].tolist() == pytest.approx(
            softmax(cosines(i, three)).tolist(), rel=1e-6
        )
        assert float(got.quality[i]) == pytest.approx(
            softmax(own)[label] * pairs[0] * pairs[1], rel=1e-6
        )
    torch.testing.assert_close(
        quality_scores(toy, images, labels, CLASSES, prompts), got.quality.float()
    )


def test_auc_agrees_with_sklearn_ties_included():
    g = generator("auc")
    for n, m, values in ((5, 9, 3), (300, 200, 40), (50, 1, 1)):
        higher, lower = (torch.randint(values, (k,), generator=g).double() for k in (n, m))
        expected = roc_auc_score([1] * n + [0] * m, torch.cat([higher, lower]).numpy())
        assert auc(higher, lower) == pytest.approx(expected, abs=1e-12)


def report(extremes=3):
    """A report whose blurred anchor the toy can see."""
    images, labels = stripes(40, "drawn")
    real, real_labels = stripes(60, "real")
    draws = generator("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLUR_RADIUS", 3.0)
        patch.setattr(module, "EXTREMES", extremes)
        result = clip_report(Toy(), images, labels, CLASSES, real, real_labels, generator=draws)
    return result, images, labels, real, real_labels


def test_a_report_survives_json_and_says_how_it_was_made():
    result, *_ = report()
    assert json.loads(json.dumps(result)) == result
    assert result["protocol"] == {
        "model": "toy", "scale": 5.0, "resize": None,
        "n": 40, "n_real": 60, "blur_radius": 3.0, "noise_share": 0.1,
    }  # fmt: skip
    assert result["cosine"]["prompts"] == ["a photo of a {}"]
    assert result["pairs"][1]["prompts"] == ["a clean photo of a {}", "a noisy photo of a {}"]


def test_a_report_holds_the_scores_of_its_images_and_anchors():
    result, images, labels, real, real_labels = report()
    own, true = score(Toy(), images, labels, CLASSES), score(Toy(), real, real_labels, CLASSES)
    soft = score(Toy(), blur(real, 3.0), real_labels, CLASSES)
    rough = score(Toy(), noise(real, 0.1, generator("report")), real_labels, CLASSES)
    checks = [
        (result["cosine"], lambda s: s.cosine, lambda s: s.cosine),
        (result["zero_shot"], lambda s: s.right.double(), lambda s: s.intended),
        (result["pairs"][0], lambda s: s.pairs[:, 0], lambda s: s.pairs[:, 0]),
        (result["pairs"][1], lambda s: s.pairs[:, 1], lambda s: s.pairs[:, 1]),
        (result["quality"], lambda s: s.quality, lambda s: s.quality),
    ]
    for entry, value, rank in checks:
        assert entry["value"] == pytest.approx(float(value(own).mean()))
        for name, scores in (("real", true), ("blurred", soft), ("noisy", rough)):
            assert entry["anchors"][name] == pytest.approx(float(value(scores).mean()))
        for name, scores in (("blurred", soft), ("noisy", rough)):
            expected = roc_auc_score(
                [1] * 60 + [0] * 60, torch.cat([rank(true), rank(scores)]).numpy()
            )
            assert entry["auc"][name] == pytest.approx(expected)
    # The toy sees roughness alone: a blur makes it less sharp and no less clean.
    assert result["pairs"][0]["auc"]["blurred"] > 0.8
    assert result["pairs"][1]["auc"]["blurred"] < 0.2
    assert result["pairs"][1]["auc"]["noisy"] > 0.7
    high = own.good_clear_blurry[:, :2].sum(1) > own.good_clear_blurry[:, 2]
    assert result["good_clear_blurry"]["value"] == pytest.approx(float(high.double().mean()))
    assert sum(result["good_clear_blurry"]["shares"]) == pytest.approx(1)
    assert result["zero_shot"]["chance"] == 0.5


def test_a_report_names_extremes_and_ranks_classes():
    result, images, labels, *_ = report(extremes=2)
    quality = quality_scores(Toy(), images, labels, CLASSES).tolist()
    means = []
    for k, entry in enumerate(result["classes"]):
        rows = sorted((i for i in range(40) if labels[i] == k), key=lambda i: -quality[i])
        assert (entry["name"], entry["n"]) == (CLASSES[k], 20)
        assert entry["highest"] == rows[:2]
        assert entry["lowest"] == rows[::-1][:2]
        means.append(sum(quality[i] for i in rows) / 20)
        assert entry["quality"] == pytest.approx(means[-1], rel=1e-5)
    best = CLASSES[0] if means[0] > means[1] else CLASSES[1]
    assert result["easiest"][0] == best
    assert result["hardest"] == result["easiest"][::-1]


def test_a_class_without_images_has_no_numbers():
    real, real_labels = stripes(10, "real")
    images, labels = real[real_labels == 0], real_labels[real_labels == 0]
    result = clip_report(
        Toy(), images, labels, CLASSES, real, real_labels, generator=generator("r")
    )
    assert result["classes"][1]["quality"] is None
    assert result["classes"][1]["highest"] == []
    assert result["easiest"] == ["dark"]


def test_mistakes_are_refused():
    images, labels = stripes(4, "a")
    with pytest.raises(InputError, match="4 images need as many labels from 0 to 1"):
        score(Toy(), images, labels[:3], CLASSES)
    with pytest.raises(InputError, match="from 0 to 2"):
        score(Toy(), images, torch.tensor([0, 1, 2, 0]), CLASSES)
    with pytest.raises(InputError, match="names no class"):
        Prompts("a photo")
