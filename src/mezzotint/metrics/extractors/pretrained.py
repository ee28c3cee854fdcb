"""Large extractors trained on photographs: Inception-v3, DINOv2 and CLIP's images.

    inception      2048 features; the network of the published FID (Heusel et al. 2017, arXiv
                   1706.08500), from torch-fidelity, which ports its resizing too
    dinov2         768 (base): Oquab et al. 2023 (arXiv 2304.07193); agrees better with people
                   than Inception does (Stein et al. 2023, arXiv 2306.04675); the whole image at
                   the size that the model's own preprocessing ends with, 224
    clip           512 (B/32), of unit length: Radford et al. 2021 (arXiv 2103.00020)

For images of 28 pixels of grey they are poor; they are here so that numbers compare with
papers. Packages and weights are extras: what is missing is said in one line. A specification is
a name, or a name and where its weights lie: `inception:FILE`, `dinov2:FOLDER`, `clip:HUB/ID`.
"""

import importlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from mezzotint.errors import DataError, InputError, first_line, is_out_of_memory, suggest
from mezzotint.imaging import check_batch, to_float
from mezzotint.metrics.extractors.extractor import Extractor
from mezzotint.metrics.extractors.weights_io import weights_digest
from mezzotint.runtime.cache import cache_directory
from mezzotint.runtime.rng import seeded_globally

__all__ = ["PRETRAINED", "Pretrained", "extractor_named"]

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_URL = (
    f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{INCEPTION_FILE}"
)
DINO = "facebook/dinov2-base"
CHUNK = 50

UNREADABLE = (
    OSError, RuntimeError, EOFError, LookupError, AttributeError, TypeError, ValueError,
    pickle.UnpicklingError,
)  # fmt: skip
"""What readers of weights raise for files that are something else; `_refuse_full_memory` first."""


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A network behind the two words of an `Extractor`."""

    name: str
    digest: str
    resize: str
    embed: Callable[[Tensor], Tensor]
    """From uint8 RGB (B, 3, H, W) to float (B, D)."""

    def features(self, images: Tensor) -> Tensor:
        """Features float32 (N, D) of uint8 images (N, C, H, W); grey is repeated to RGB."""
        check_batch(images)
        parts = []
        with torch.inference_mode():
            for part in images.split(CHUNK):
                parts.append(self.embed(part.expand(-1, 3, -1, -1)).float())
        return torch.cat(parts)


def inception(where: str) -> Extractor:
    """Inception-v3; where: a file of torch-fidelity's weights, "" for the cache or the web."""
    module = _package("torch_fidelity.feature_extractor_inceptionv3", "inception")
    path = Path(where).expanduser() if where else _fetched_inception()
    if not path.is_file():
        raise DataError(f"{path} does not exist: fetch {INCEPTION_URL} and give its path")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # The constructor loads weights itself, by unpickling; it is handed ours instead.
        fetched = _replaced(module, "load_state_dict_from_url", lambda *_, **__: state)
        with seeded_globally(0), fetched:  # the module is the process's: one thread at a time
            network = module.FeatureExtractorInceptionV3("inception", ["2048"])
    except UNREADABLE as error:
        _refuse_full_memory(error)
        raise DataError(
            f"{path} does not hold Inception's weights: fetch {INCEPTION_URL} and give its path"
        ) from error
    return Pretrained(
        "inception-v3-2015-12-05",
        weights_digest(network.state_dict()),
        "bilinear to 299 as in TensorFlow 1",
        lambda images: network(images.contiguous())[0],
    )


def dinov2(where: str) -> Extractor:
    """DINOv2; where: a local folder or a hub id, "" for the base model on the hub."""
    transformers = _package("transformers", "clip")
    name = where or DINO
    try:
        # Of another kind the weights would be left out, and random ones taken with a warning.
        kind = transformers.AutoConfig.from_pretrained(name).model_type
        if not kind.startswith("dinov2"):
            raise ValueError(f"it is a {kind}")
        with seeded_globally(0):  # while it loads, no other thread may build a network
            network = transformers.AutoModel.from_pretrained(name, dtype=torch.float32)
        network.eval().requires_grad_(False)
        images, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name)
        size = int(images["crop_size"]["height"])  # not the configuration's: 518, of training
        mean, deviation = (
            torch.tensor(images[k]).view(3, 1, 1) for k in ("image_mean", "image_std")
        )
    except (*UNREADABLE, SafetensorError) as error:
        _refuse_full_memory(error)
        raise DataError(
            f"{name} cannot be loaded ({first_line(error)}): check the network, or give "
            "dinov2:FOLDER with its config.json, preprocessor_config.json and weights"
        ) from error

    def embed(images: Tensor) -> Tensor:
        x = F.interpolate(to_float(images), (size, size), mode="bicubic", antialias=True)
        x = (x.clamp(-1, 1) + 1) / 2  # bicubic overshoots
        features: Tensor = network((x - mean) / deviation).pooler_output
        return features

    return Pretrained(
        Path(name).name, weights_digest(network.state_dict()), f"bicubic to {size}", embed
    )


def clip(where: str) -> Extractor:
    """CLIP's image features; where: a local folder or a hub id, "" for B/32 on the hub."""
    from mezzotint.metrics.clip.clip import TransformersClip

    found = TransformersClip.load(where) if where else TransformersClip.load()
    resize = str(found.protocol["resize"])
    return Pretrained(
        Path(found.name).name, weights_digest(found.model.state_dict()), resize, found.embed_images
    )


PRETRAINED: Mapping[str, Callable[[str], Extractor]] = {
    "inception": inception,
    "dinov2": dinov2,
    "clip": clip,
}


def extractor_named(specification: str) -> Extractor:
    """`NAME` or `NAME:WHERE`; a one-line error for what is unknown or missing."""
    name, _, where = specification.partition(":")
    if name not in PRETRAINED:
        raise InputError(
            f"no extractor is called '{specification}': "
            f"{suggest(name, ['classifier', *PRETRAINED])}"
        )
    return PRETRAINED[name](where)


def _refuse_full_memory(error: Exception) -> None:
    """Raise an error that says nothing of the file, which may be whole."""
    if is_out_of_memory(error):
        raise error


def _fetched_inception() -> Path:
    path = cache_directory() / INCEPTION_FILE
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(INCEPTION_URL, str(path), "6726825d", progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: what came is another file
        raise DataError(
            f"Inception's weights are not at {path} and were not fetched ({error}): bring "
            f"{INCEPTION_URL} and give --extractor inception:FILE"
        ) from error
    return path


def _package(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision for another torch
        package = name.partition(".")[0]
        raise InputError(
            f"{package} cannot be used here ({first_line(error)}): "
            f'pip install "mezzotint[{extra}]"'
        ) from error


@contextmanager
def _replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)
