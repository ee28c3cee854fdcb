"""Gradients of a batch: in micro-batches that fit in memory, as CUDA graphs, summed over ranks."""

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from mezzotint.diffusion import Condition, Denoiser, loss
from mezzotint.runtime.cuda_graphs import CudaGraphs
from mezzotint.runtime.device import Compute
from mezzotint.training.batches import Batch
from mezzotint.training.memory import empty_cuda_cache, fit_in_memory
from mezzotint.training.plan import Plan
from mezzotint.training.state import TrainState

__all__ = ["GradientComputer", "losses_of"]


class GradientComputer:
    """Computes the gradient of the mean loss of each batch of one training.

    It owns the CUDA graphs of the training, and lowers `state.micro_batch` if memory runs out.
    """

    def __init__(self, state: TrainState, plan: Plan, compute: Compute) -> None:
        self.state = state
        self.plan = plan
        self.compute = compute
        self._graphs = CudaGraphs(compute.cuda_graphs)
        self._graph_key: tuple[Hashable, ...] = ()

    def backward(self, batch: Batch) -> tuple[Tensor, bool]:
        """Store the gradient of the mean loss in the parameters, summed over all ranks.

        If memory runs out, the micro-batch is halved and the whole batch is computed again. The
        noise is the same, and so is the gradient. Only BatchNorm differs, as it sees smaller
        batches.

        Args:
            batch: This rank's share of a training batch.

        Returns:
            The losses (B,) of all ranks, and whether memory ran out on this one.

        Raises:
            InputError: Memory runs out even with one image at a time.

        """
        size = min(self.state.micro_batch, len(batch.x0))
        losses, fitting = fit_in_memory(
            lambda images: self._accumulate(batch, images), size, self._release
        )
        reduced = fitting < size
        if reduced:
            self.state.micro_batch = fitting
        # All-reduce after the last retry: ranks that needed none wait here for the others.
        parameters = self.state.denoiser.network.parameters()
        self.compute.ranks.all_reduce_([p.grad for p in parameters if p.grad is not None])
        self.compute.ranks.all_reduce_([losses])
        return losses, reduced

    def graphed(self, name: str, work: Callable[..., Any], *inputs: Tensor) -> Any:
        """Return work(*inputs), on CUDA by a graph that belongs to the last batch's gradients.

        A captured backward pass owns the gradient tensors that it writes. Work that reads them,
        such as the optimiser's step, must be captured again for every kind of backward pass.
        """
        return self._graphs((name, *self._graph_key), work, *inputs)

    def _accumulate(self, batch: Batch, micro_batch: int) -> Tensor:
        """Run this rank's micro-batches, and store the gradient of its part of the mean loss.

        Returns:
            The losses (B,), 0 for the images of other ranks.

        """
        denoiser, optimizer, scaler = self.state.denoiser, self.state.optimizer, self.state.scaler
        size, device = self.plan.batch, self.compute.device
        parts = batch.micro_batches(micro_batch, device)

        # A CUDA graph may capture this function, so every tensor that changes is an argument.
        def work(
            x0: Tensor, sigma: Tensor, eps: Tensor, weight: Tensor, *factors: Tensor
        ) -> Tensor:
            condition = Condition(dict(zip(batch.condition.factors, factors, strict=True)))
            inputs = Batch(x0, condition, sigma, eps, weight, batch.position, batch.share)
            optimizer.zero_grad(set_to_none=True)
            losses = torch.zeros(size, device=device)
            own, weight = losses[batch.share], weight[batch.share]
            for part, guided_rows in parts:
                each = losses_of(denoiser, inputs, part, guided_rows, self.plan, self.compute)
                value = (each * weight[part]).sum() / size
                (scaler.scale(value) if scaler else value).backward()
                own[part] = each.detach()
            return losses

        key = (micro_batch, *batch.condition.factors)
        if key != self._graph_key:  # free the memory of the old key's graphs
            self._graphs.clear()
            self._graph_key = key
        tensors = batch.x0, batch.sigma, batch.eps, batch.weight
        losses: Tensor = self.graphed(
            "gradients", work, *tensors, *batch.condition.factors.values()
        )
        return losses

    def _release(self) -> None:
        """Free the memory of graphs and of the allocator before a retry."""
        self._graphs.clear()
        empty_cuda_cache(self.compute.device)


def losses_of(
    denoiser: Denoiser,
    batch: Batch,
    part: slice,
    guided_rows: Tensor | None,
    plan: Plan,
    compute: Compute,
) -> Tensor:
    """Return the losses (n,) of one part of a batch.

    Args:
        denoiser: The denoiser to evaluate.
        batch: Images, condition, levels and noise.
        part: Rows of the batch to evaluate.
        guided_rows: Rows of the part that train model guidance, as in `loss`.
        plan: Settings of the training, the loss weight among them.
        compute: Precision of the network.

    """
    with compute.autocast():
        return loss(
            denoiser,
            batch.x0[part],
            batch.condition[part],
            batch.sigma[part],
            batch.eps[part],
            plan.loss_weight,
            guided_rows,
        )
