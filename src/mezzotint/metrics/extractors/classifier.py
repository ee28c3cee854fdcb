"""A small classifier of small images, which features, label accuracy and CAS share.

A residual network (He et al. 2015, arXiv 1512.03385) of three stages, 16, 32 and 64 channels
wide, each half the size of the one before, then a 1x1 convolution to 128 channels whose mean
over the image is the feature vector, and one linear layer to the classes. After training, each
batch normalisation is folded into its convolution and the weights are rounded to float16: about
185,000 numbers, below 400 kB.

Where a data set's images may be mirrored (its `Augment`), features and probabilities are means
over the image and its mirror.
"""

import copy
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from mezzotint.data import Augment, ImageSet
from mezzotint.errors import InputError
from mezzotint.imaging import check_batch, describe_shape
from mezzotint.kernels.precision import bf16_pays
from mezzotint.metrics.extractors.weights_io import read, weights_digest, write
from mezzotint.networks.blocks import Conv3x3
from mezzotint.runtime.cuda_graphs import CudaGraphs
from mezzotint.runtime.rng import generator, seeded_globally

__all__ = ["VERSION", "Classifier", "Domain", "Reading", "Recipe", "fit"]

VERSION = 1
"""Of network and training; another number makes cached classifiers anew."""

WIDTHS = (16, 32, 64)
BLOCKS = 2
FEATURES = 128
CHUNK = 500


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained; the defaults serve any small data set.

    images         shown in all, counted with repetitions
    batch          images a step
    rate           largest learning rate, reached after a fifth of the training, 0 at its end
    decay          weight decay
    """

    images: int = 100_000
    batch: int = 128
    rate: float = 0.15
    decay: float = 5e-4

    @staticmethod
    def usual(count: int) -> "Recipe":
        """For a train split of so many images: five epochs, but at least 100,000 images."""
        return Recipe(images=max(100_000, 5 * count))

    @property
    def digest(self) -> str:
        """Hex digest, for a file's name."""
        return hashlib.blake2b(repr(self).encode(), digest_size=4).hexdigest()


@dataclass(frozen=True)
class Domain:
    """The images that a classifier is trained for."""

    classes: tuple[str, ...]
    source: str
    """Name of the data set."""

    augment: Augment
    """Its `flip` says whether images may be mirrored."""

    @staticmethod
    def of(data: ImageSet) -> "Domain":
        """Return the domain of a data set."""
        return Domain(data.classes, data.name, data.augment)


@dataclass(frozen=True)
class Reading:
    """What a classifier says of N images."""

    features: Tensor
    """float32 (N, 128)."""

    probabilities: Tensor
    """float32 (N, classes); each row sums to 1."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained network with what it needs to read images."""

    network: nn.Sequential
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    """(C, H, W) of the images it reads."""

    mirrored: bool
    """Whether it reads the mean of an image and its mirror."""

    source: str
    """The data set it was trained on."""

    @property
    def name(self) -> str:
        """For a protocol."""
        return f"{self.source} classifier"

    @property
    def resize(self) -> str:
        """Images are read at their own size."""
        return "none"

    def on(self, device: str) -> "Classifier":
        """Return a classifier that reads on another device: itself where it already does."""
        if next(self.network.parameters()).device == torch.device(device):
            return self
        return dataclasses.replace(self, network=copy.deepcopy(self.network).to(device))

    def features(self, images: Tensor) -> Tensor:
        """The features alone, float32 (N, 128)."""
        return self.read(images).features

    def read(self, images: Tensor) -> Reading:
        """Features and probabilities, on the CPU, of uint8 images (N, C, H, W).

        Computed in float32, where the weights are.
        """
        check_batch(images)
        if tuple(images.shape[1:]) != self.shape:
            raise InputError(
                f"the images are {describe_shape(images.shape[1:])}, but the {self.name} "
                f"reads {describe_shape(self.shape)}: evaluate them --against their own data"
            )
        features, probabilities = [], []
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            for part in images.split(CHUNK):
                x = _normal(part.to(device))
                f, p = self._read(x)
                if self.mirrored:
                    g, q = self._read(x.flip(-1))
                    f, p = (f + g) / 2, (p + q) / 2
                features.append(f.cpu())
                probabilities.append(p.cpu())
        return Reading(torch.cat(features), torch.cat(probabilities))

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.network[:-1](x)
        return features, self.network[-1](features).softmax(1)

    def probabilities(self, x0: Tensor) -> Tensor:
        """Of float images (N, C, H, W) in [-1, 1], unclamped: (N, classes), differentiable."""
        if not x0.is_floating_point():
            raise ValueError(f"images in [-1, 1] are wanted, got {x0.dtype}: read() takes uint8")
        read: Tensor = self.network(x0.float()).softmax(1)
        if self.mirrored:
            read = (read + self.network(x0.float().flip(-1)).softmax(1)) / 2
        return read

    @functools.cached_property
    def digest(self) -> str:
        """Hex digest of weights and facts: two classifiers with the same one read the same."""
        return weights_digest(self._tensors(), self._facts())

    def save(self, path: Path) -> None:
        """Write weights in float16 and facts as one safetensors file."""
        write(path, "classifier", self._tensors(), self._facts())

    @staticmethod
    def load(path: Path) -> "Classifier":
        """Read what `save` wrote; DataError for a damaged file."""
        return read(path, "classifier", Classifier._of)

    @staticmethod
    def _of(facts: dict[str, Any], tensors: dict[str, Tensor]) -> "Classifier":
        shape, classes = tuple(facts["shape"]), tuple(facts["classes"])
        network = _loaded(_empty(shape[0], len(classes)), tensors)
        return Classifier(network, classes, shape, facts["mirrored"], facts["name"])

    def _tensors(self) -> dict[str, Tensor]:
        return {k: v.half().contiguous() for k, v in self.network.state_dict().items()}

    def _facts(self) -> dict[str, object]:
        return {
            "name": self.source,
            "classes": list(self.classes),
            "shape": list(self.shape),
            "mirrored": self.mirrored,
        }


class _Residual(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, inner: int, outer: int, stride: int, folded: bool) -> None:
        super().__init__()
        self.first = _convolution(inner, outer, 3, stride, folded)
        self.second = _convolution(outer, outer, 3, 1, folded)
        same = inner == outer and stride == 1
        self.around = nn.Identity() if same else _convolution(inner, outer, 1, stride, folded)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inner, H, W) -> (B, outer, H / stride, W / stride)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.around(x))


def build(channels: int, classes: int, *, folded: bool = False) -> nn.Sequential:
    """The network; `folded`: without batch normalisation, with biases instead."""
    layers: list[nn.Module] = [_convolution(channels, WIDTHS[0], 3, 1, folded), nn.ReLU()]
    inner = WIDTHS[0]
    for stage, width in enumerate(WIDTHS):
        for block in range(BLOCKS):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(_Residual(inner, width, stride, folded))
            inner = width
    layers += [_convolution(inner, FEATURES, 1, 1, folded), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(FEATURES, classes)]
    return nn.Sequential(*layers)


def fit(
    images: Tensor,
    labels: Tensor,
    domain: Domain,
    *,
    recipe: Recipe = Recipe(),  # noqa: B008 - frozen
    seed: int = 0,
    device: str = "cpu",
    watch: Callable[[int], None] = lambda seen: None,
) -> Classifier:
    """Train a classifier, which stays on the device.

    The same call gives the same bits on one machine's CPU with one number of threads. On a GPU it
    makes the same draws and rounds differently. The optimiser is SGD with Nesterov momentum and a
    triangular learning rate. Images are shifted by up to an eighth (mirrored sets) or a fourteenth
    of their size. The precision is bf16 where that is faster.

    Args:
        images: uint8 (N, C, H, W).
        labels: int64 (N,).
        domain: Class names, data set, and whether images may be mirrored.
        recipe: Number of images, batch size, learning rate and weight decay.
        seed: Of the first weights, the order and the augmentation.
        device: Device to train on.
        watch: Called with the number of images seen, now and then.

    """
    check_batch(images)
    flip, classes = domain.augment.flip, len(domain.classes)
    changed = Augment(flip, images.shape[-1] // (8 if flip else 14))
    with seeded_globally(seed):
        network = build(images.shape[1], classes)
    network = _channels_last(network.to(device)).train()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.0, momentum=0.9, nesterov=True, weight_decay=recipe.decay
    )
    bf16, graphs = bf16_pays(device), CudaGraphs(device.startswith("cuda"))

    def gradients(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=bf16):
            logits = network(_normal(x))
        F.cross_entropy(logits.float(), y).backward()

    steps = max(1, recipe.images // recipe.batch)
    for step, (rows, draws) in enumerate(_batches(len(images), recipe.batch, steps, seed)):
        x, y = changed(images[rows], draws), labels[rows]
        graphs("gradients", gradients, x.to(device), y.to(device))
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * triangle(step / steps, peak=0.2)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            watch((step + 1) * recipe.batch)
    folded, shape = _folded(network, images.shape[1], classes), images.shape[1:]
    return Classifier(folded, domain.classes, (shape[0], shape[1], shape[2]), flip, domain.source)


def _batches(
    count: int, batch: int, steps: int, seed: int
) -> Iterator[tuple[Tensor, torch.Generator]]:
    """Yield the rows of each step's batch, and the generator of its augmentation.

    Each image is shown once before any is shown again.
    """
    order, position = torch.empty(0, dtype=torch.int64), 0
    for step in range(steps):
        draws = generator("classifier", seed, step)
        if position + batch > len(order):
            left = order[position:]
            fresh = torch.randperm(count, generator=draws)
            repeats = -(-batch // count)  # a set smaller than one batch
            order, position = torch.cat([left, fresh.repeat(repeats)]), 0
        yield order[position : position + batch], draws
        position += batch


def triangle(done: float, peak: float) -> float:
    """A learning rate's shape: from 0 up to 1 at the share `peak` of the steps, down to 0."""
    return done / peak if done < peak else (1 - done) / (1 - peak)


def _normal(images: Tensor) -> Tensor:
    return (images.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def _convolution(inner: int, outer: int, size: int, stride: int, folded: bool) -> nn.Module:
    convolution = (
        Conv3x3(inner, outer, bias=folded)
        if (size, stride) == (3, 1)
        else nn.Conv2d(inner, outer, size, stride, size // 2, bias=folded)
    )
    return convolution if folded else nn.Sequential(convolution, nn.BatchNorm2d(outer))


def _folded(network: nn.Sequential, channels: int, classes: int) -> nn.Sequential:
    """The same function without batch normalisation, rounded to float16."""
    plain = _empty(channels, classes)
    modules = dict(network.named_modules())
    state: dict[str, Tensor] = {}
    for name, module in plain.named_modules():
        if isinstance(module, nn.Conv2d):
            weight, bias = _fused(modules[name])
            state[f"{name}.weight"], state[f"{name}.bias"] = weight, bias
        elif isinstance(module, nn.Linear):
            linear = modules[name]
            assert isinstance(linear, nn.Linear)
            state[f"{name}.weight"], state[f"{name}.bias"] = linear.weight, linear.bias
    return _loaded(plain, {key: value.detach().half() for key, value in state.items()})


def _fused(pair: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that does its batch normalisation's work as well."""
    assert isinstance(pair, nn.Sequential)
    convolution, norm = pair
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return fuse_conv_bn_weights(
        convolution.weight, None, norm.running_mean, norm.running_var,
        norm.eps, norm.weight, norm.bias,
    )  # fmt: skip


def _empty(channels: int, classes: int) -> nn.Sequential:
    """A folded network without weights, for which nothing is drawn from the global generator."""
    with torch.device("meta"):
        return build(channels, classes, folded=True)


def _loaded(network: nn.Sequential, weights: Mapping[str, Tensor]) -> nn.Sequential:
    """The network with these weights, to read with."""
    state = {key: value.float() for key, value in weights.items()}
    network.load_state_dict(state, assign=True)
    network.eval().requires_grad_(False)
    return _channels_last(network)


def _channels_last(network: nn.Sequential) -> nn.Sequential:
    """With the weights in the order that convolutions are fastest in."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network
