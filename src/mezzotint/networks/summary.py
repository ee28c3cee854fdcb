"""What a network is made of: every layer with its output shape, parameters and FLOPs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mezzotint.diffusion.condition import Condition

__all__ = ["Layer", "summarise"]


@dataclass(frozen=True)
class Layer:
    """One layer, for one image."""

    name: str
    kind: str
    shape: tuple[int, ...]
    """Of its output, without the batch."""

    parameters: int
    flops: int
    """Of one forward pass: a multiplication and an addition are two."""


def summarise(network: nn.Module, shape: tuple[int, int, int]) -> list[Layer]:
    """The layers in the order they run, for one image (C, H, W); attention's products are its own.

    Counted by running the network once; normalisations and activations count 0 FLOPs.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    kinds: dict[str, nn.Module] = {}
    hooks = []
    for name, module in network.named_modules():
        if _shown(module):
            kinds[name] = module
            hooks.append(module.register_forward_hook(_recorder(name, shapes)))
    was_training = network.training
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(torch.zeros(1, *shape), torch.zeros(1), Condition())
    finally:
        network.train(was_training)
        for hook in hooks:
            hook.remove()
    prefix = f"{type(network).__name__}."
    counts = {
        k.removeprefix(prefix): sum(v.values()) for k, v in counter.get_flop_counts().items()
    }
    layers = []
    for name, output in shapes.items():
        module = kinds[name]
        inner = [counts.get(f"{name}.{child}", 0) for child, _ in module.named_children()]
        own = sum(p.numel() for p in module.parameters(recurse=not list(module.children())))
        flops = int(counts.get(name, 0) - sum(inner))
        layers.append(Layer(name, type(module).__name__, output, own, flops))
    return layers


def _shown(module: nn.Module) -> bool:
    """Leaves that do something, and attention, whose products belong to no leaf."""
    leaf = not list(module.children()) and not isinstance(module, nn.Identity)
    return leaf or type(module).__name__ == "Attention"


def _recorder(
    name: str, shapes: dict[str, tuple[int, ...]]
) -> Callable[[nn.Module, object, Tensor], None]:
    def record(module: nn.Module, inputs: object, output: Tensor) -> None:
        shapes[name] = tuple(output.shape[1:])

    return record
