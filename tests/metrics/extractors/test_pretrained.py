"""Large extractors with small or random weights, against their own libraries called directly.

No weights are fetched: Inception is drawn at random, DINOv2 and CLIP are tiny ones saved here.
"""

import copy
import importlib.util
import json
import os
import shutil
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from mezzotint.data import load
from mezzotint.errors import DataError, InputError
from mezzotint.metrics.extractors import pretrained as module
from mezzotint.metrics.extractors.pretrained import extractor_named


def grey(n=2):
    return load("digits").images[:n]


def refused(specification, words, kind=InputError):
    with pytest.raises(kind, match=words) as caught:
        extractor_named(specification)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what is missing --------------------------------------------------------------------------


def test_an_unknown_name_is_one_line():
    refused("inceptoin", "no extractor is called 'inceptoin': did you mean 'inception'")
    refused("classifier:x", "no extractor is called 'classifier:x'")


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("inception", "torch_fidelity", "mezzotint.inception."),
        ("dinov2", "transformers", "mezzotint.clip."),
        ("clip", "transformers", "mezzotint.clip."),
    ],
)
def test_a_missing_package_is_named_with_the_way_to_get_it(monkeypatch, name, package, extra):
    for known in [each for each in sys.modules if each.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, known)
    monkeypatch.setitem(sys.modules, package, None)
    message = refused(name, extra)
    assert package in message
    assert "pip install" in message


def test_the_package_that_a_package_lacks_is_named():
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not here")
    if importlib.util.find_spec("torchvision") is not None:
        pytest.skip("torchvision is here")
    assert "torchvision" in refused("inception", "torch_fidelity cannot be used here")


def test_a_package_made_for_another_torch_is_one_line(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist\nmore of it")

    monkeypatch.setattr(module.importlib, "import_module", broken)
    refused("inception", r"cannot be used here \(operator torchvision::nms does not exist\)")


# --- Inception --------------------------------------------------------------------------------


@pytest.fixture
def fidelity(monkeypatch):
    """torch-fidelity's Inception; what it wants of torchvision at import is a stand-in."""
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not here")
    if importlib.util.find_spec("torchvision") is None:
        names = ("", ".datasets", ".transforms", ".transforms.functional")
        made = {name: types.ModuleType(f"torchvision{name}") for name in names}
        for name in ("CIFAR10", "STL10", "CIFAR100"):
            setattr(made[".datasets"], name, type(name, (), {}))
        made[""].transforms, made[""].datasets = made[".transforms"], made[".datasets"]
        made[".transforms"].functional = made[".transforms.functional"]
        for each in made.values():
            monkeypatch.setitem(sys.modules, each.__name__, each)
    before = set(sys.modules)
    yield pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "torch_fidelity":
            del sys.modules[name]


@pytest.fixture
def network(fidelity):
    """Inception with random weights, whose features are of size 1."""
    kind = fidelity.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *a, **k: None)
        patch.setattr(kind, "load_state_dict", lambda self, state: None)
        found = kind("inception", ["2048"])
    torch.manual_seed(0)
    for part in found.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.7, 1.4)
    return found


def test_inceptions_features_are_those_of_torch_fidelitys_own_network(network, fidelity, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    found = extractor_named(f"inception:{tmp_path / 'weights.pth'}")
    images = grey()
    features = found.features(images)
    expected = network(images.repeat(1, 3, 1, 1))[0]
    assert features.shape == (2, 2048)
    assert torch.allclose(features, expected, rtol=1e-5, atol=1e-6)
    assert (expected[0] - expected[1]).abs().mean() > 1e-3
    assert found.name == "inception-v3-2015-12-05"
    assert found.resize == "bilinear to 299 as in TensorFlow 1"
    # Putting our weights in its place was for that moment alone.
    assert fidelity.load_state_dict_from_url is torch.hub.load_state_dict_from_url

    with torch.no_grad():
        network.Conv2d_1a_3x3.conv.weight[0, 0, 0, 0] += 1
    torch.save(network.state_dict(), tmp_path / "other.pth")
    assert extractor_named(f"inception:{tmp_path / 'other.pth'}").digest != found.digest


class Code:
    """Whoever unpickles it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize("kind", ["text", "empty", "cut", "code", "list", "other", "folder"])
def test_a_file_that_is_not_inceptions_weights_is_one_line(fidelity, tmp_path, kind):
    path = tmp_path / "file.pth"
    if kind == "text":
        path.write_text("hello, these are no weights")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        torch.save({"a": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:700])
    elif kind == "code":
        torch.save(Code(tmp_path / "ran"), path)
    elif kind == "list":
        torch.save([torch.zeros(3)], path)
    elif kind == "other":
        torch.save(nn.Linear(1, 1).state_dict(), path)
    else:
        path.mkdir()
    refused(
        f"inception:{path}",
        r"file\.pth does not (hold Inception's weights|exist): fetch",
        DataError,
    )
    assert not (tmp_path / "ran").exists()


def test_inceptions_weights_are_fetched_once(network, fidelity, tmp_path, monkeypatch):
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path / "cache"))
    asked = []

    def download(url, path, digits, progress):
        asked.append((url, digits))
        torch.save(network.state_dict(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    first = extractor_named("inception")
    assert extractor_named("inception").digest == first.digest
    assert asked == [(module.INCEPTION_URL, "6726825d")]
    assert (tmp_path / "cache" / module.INCEPTION_FILE).is_file()


@pytest.mark.parametrize(
    "error", [OSError("no route to host"), RuntimeError('invalid hash value (expected "67")')]
)
def test_weights_that_cannot_be_fetched_are_one_line(fidelity, tmp_path, monkeypatch, error):
    monkeypatch.setenv("MEZZOTINT_CACHE", str(tmp_path))

    def download(*arguments, **named):
        raise error

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    message = refused("inception", "were not fetched", DataError)
    assert module.INCEPTION_URL in message
    assert "--extractor inception:FILE" in message


# --- DINOv2 -----------------------------------------------------------------------------------

MEAN, DEVIATION = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def by_pillow(images, size):
    """Grey as RGB, enlarged by Pillow without rounding, kept in 0 … 255, normalised."""
    rows = []
    for image in images.expand(-1, 3, -1, -1).numpy():
        planes = [Image.fromarray(plane.astype(np.float32)) for plane in image]
        planes = [plane.resize((size, size), Image.Resampling.BICUBIC) for plane in planes]
        pixels = np.stack([np.asarray(plane) for plane in planes]).clip(0, 255) / 255
        rows.append((pixels - np.reshape(MEAN, (3, 1, 1))) / np.reshape(DEVIATION, (3, 1, 1)))
    return torch.from_numpy(np.stack(rows)).float()


def preprocessor(folder, **more):
    facts = {"image_mean": MEAN, "image_std": DEVIATION, **more}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


@pytest.fixture(scope="module")
def _dino(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    model = transformers.Dinov2Model(config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    folder = tmp_path_factory.mktemp("hub") / "dino-tiny"
    model.save_pretrained(folder)
    size = {"shortest_edge": 48}
    preprocessor(folder, size=size, crop_size={"height": 42, "width": 42}, do_center_crop=True)
    return folder, model


@pytest.fixture
def dino(_dino, tmp_path):
    """A folder of one's own to spoil, and the model in it."""
    return shutil.copytree(_dino[0], tmp_path / "dino-tiny"), _dino[1]


def test_dinov2s_features_are_those_of_transformers_model(dino):
    folder, model = dino
    found = extractor_named(f"dinov2:{folder}")
    images = grey(5)
    features = found.features(images)
    with torch.no_grad():
        expected = model(by_pillow(images, 42)).pooler_output
    assert features.shape == (5, 32)
    assert torch.allclose(features, expected, atol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 0.05
    # The size is that of the model's own preprocessing, not 28 as in its configuration.
    assert (found.name, found.resize) == ("dino-tiny", "bicubic to 42")
    assert not torch.is_inference(features)


def test_rgb_is_read_in_its_own_colours_and_in_chunks(dino, monkeypatch):
    folder, model = dino
    found = extractor_named(f"dinov2:{folder}")
    images = torch.stack([grey(5)[:, 0], grey(5)[:, 0].flip(1), grey(5)[:, 0].flip(2)], 1)
    monkeypatch.setattr(module, "CHUNK", 2)
    with torch.no_grad():
        expected = model(by_pillow(images, 42)).pooler_output
    assert torch.allclose(found.features(images), expected, atol=1e-5)


def test_the_hash_is_of_the_weights(dino):
    folder, _ = dino
    before = extractor_named(f"dinov2:{folder}").digest
    assert extractor_named(f"dinov2:{folder}").digest == before
    weights = load_file(folder / "model.safetensors")
    weights["layernorm.bias"][3] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert extractor_named(f"dinov2:{folder}").digest != before


def test_weights_of_half_precision_are_read_in_single(dino):
    folder, model = dino
    weights = {k: v.half() for k, v in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": "float16"}))
    rounded = copy.deepcopy(model).half().float()
    images = grey(3)
    with torch.no_grad():
        expected = rounded(by_pillow(images, 42)).pooler_output
    assert torch.allclose(
        extractor_named(f"dinov2:{folder}").features(images), expected, atol=1e-5
    )


@pytest.mark.parametrize("kind", ["cut", "empty", "no weights", "no preprocessor", "no config"])
def test_a_folder_that_is_no_dinov2_is_one_line(dino, kind):
    folder, _ = dino
    weights = folder / "model.safetensors"
    if kind == "cut":
        weights.write_bytes(weights.read_bytes()[:5000])
    elif kind == "empty":
        weights.write_bytes(b"")
    else:
        name = {"weights": weights.name, "config": "config.json"}.get(
            kind.partition(" ")[2], "preprocessor_config.json"
        )
        (folder / name).unlink()
    refused(
        f"dinov2:{folder}",
        r"dino-tiny cannot be loaded \(.+\): check the network, or give",
        DataError,
    )


# --- CLIP -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    side = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }  # fmt: skip
    config = transformers.CLIPConfig(
        text_config={**side, "vocab_size": 3, "max_position_embeddings": 8},
        vision_config={**side, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    model = transformers.CLIPModel(config).eval()
    folder = tmp_path_factory.mktemp("hub") / "clip-tiny"
    model.save_pretrained(folder)
    preprocessor(folder)
    words = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2}
    (folder / "vocab.json").write_text(json.dumps(words))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder, model


def test_clips_features_are_those_of_transformers_vision_model(clip):
    folder, model = clip
    found = extractor_named(f"clip:{folder}")
    images = grey(4)
    features = found.features(images)
    # CLIP's preprocessing is Pillow's with rounding, so the same but for half a grey level.
    enlarged = [
        Image.fromarray(i[0].numpy()).resize((32, 32), Image.Resampling.BICUBIC) for i in images
    ]
    x = torch.from_numpy(np.stack(enlarged)).float()[:, None].expand(-1, 3, -1, -1) / 255
    x = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1)
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(pixel_values=x).pooler_output)
    expected = expected / expected.norm(dim=1, keepdim=True)
    assert features.shape == (4, 12)
    assert torch.allclose(features, expected, atol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    assert found.name == "clip-tiny"
    assert found.resize == "centre square, Pillow bicubic to 32x32"


def test_a_clip_is_no_dinov2(clip):
    """Loaded as one it would have random weights."""
    refused(f"dinov2:{clip[0]}", r"clip-tiny cannot be loaded \(it is a clip\)", DataError)


def test_what_is_no_batch_of_images_is_refused(clip):
    found, images = extractor_named(f"clip:{clip[0]}"), grey()
    for arguments in (images.float(), images[:, 0], images[:0]):
        with pytest.raises(InputError, match="images must be uint8|at least one image"):
            found.features(arguments)
