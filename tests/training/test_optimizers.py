import copy

import pytest
import torch
from torch import nn

from mezzotint.training import Muon
from mezzotint.training.optimizers import _by_steps, orthogonal


def trained(optimizer, parameters, gradients):
    for row in gradients:
        for p, g in zip(parameters, row, strict=True):
            p.grad = g.clone().to(p.dtype)
        optimizer.step()


def gradients(parameters, steps=6):
    draws = torch.Generator().manual_seed(1)
    return [[torch.randn(p.shape, generator=draws) for p in parameters] for _ in range(steps)]


@pytest.mark.parametrize("shape", [(32, 288), (576, 64), (40, 60)])
def test_wide_matrices_go_through_their_squares_to_the_same_end(shape):
    """Singular values from 1 down to 1e-4, whose squares float32 can barely tell from nothing."""
    draws = torch.Generator().manual_seed(0)
    u, _, v = torch.linalg.svd(
        torch.randn(2, *shape, generator=draws, dtype=torch.float64), full_matrices=False
    )
    x = u * torch.logspace(0, -4, min(shape), dtype=torch.float64) @ v
    wide = x.mT if shape[0] > shape[1] else x
    steps = _by_steps(wide / wide.norm(dim=(1, 2), keepdim=True))
    wanted = steps.mT if shape[0] > shape[1] else steps
    for dtype, most in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
        got = orthogonal(x.to(dtype))
        assert (got.double() - wanted).norm() <= most * wanted.norm()


@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (24, 24)])
def test_orthogonal_keeps_the_singular_vectors_and_evens_the_values(shape):
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    inner = u.mT @ orthogonal(x) @ v.mT  # diagonal, if the singular vectors are x's
    values = inner.diagonal(dim1=1, dim2=2)
    assert (inner - torch.diag_embed(values)).abs().max() < 1e-9
    assert 0.3 < values.min() < values.max() < 1.3


def test_matrices_move_as_by_torchs_own_muon():
    ours = nn.Parameter(torch.randn(40, 100, generator=torch.Generator().manual_seed(0)))
    theirs = nn.Parameter(ours.detach().clone())
    rows = gradients([ours])
    trained(Muon([ours], lr=1e-2, weight_decay=0.1), [ours], rows)
    oracle = torch.optim.Muon(
        [theirs], lr=1e-2, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    start = theirs.detach().clone()
    trained(oracle, [theirs], rows)
    assert (ours - theirs).norm() < 0.01 * (theirs - start).norm()  # theirs multiplies in bfloat16


def test_a_convolution_is_the_matrix_of_its_flattened_weights():
    conv = nn.Conv2d(32, 48, 3, bias=False).to(memory_format=torch.channels_last)
    matrix = nn.Parameter(conv.weight.detach().flatten(1).clone())
    rows = gradients([conv.weight])
    trained(Muon([conv.weight], lr=1e-2), [conv.weight], rows)
    trained(Muon([matrix], lr=1e-2), [matrix], [[g.flatten(1) for g in row] for row in rows])
    torch.testing.assert_close(conv.weight.flatten(1), matrix, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_everything_else_moves_as_by_adamw(fused):
    parameters = [nn.Parameter(torch.randn(*shape)) for shape in ((48,), (11, 256), (32, 1, 3, 3))]
    copies = copy.deepcopy(parameters)
    rows = gradients(parameters)
    trained(Muon(parameters, lr=1e-2, weight_decay=0.1, fused=fused), parameters, rows)
    trained(torch.optim.AdamW(copies, lr=1e-2, weight_decay=0.1, foreach=False), copies, rows)
    for p, q in zip(parameters, copies, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_an_update_has_adamws_usual_size():
    weight = nn.Parameter(torch.zeros(64, 64, 3, 3))
    trained(Muon([weight], lr=1.0), [weight], gradients([weight], steps=1))
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(0.2, rel=0.3)


def test_saved_and_loaded_state_goes_on_the_same():
    a = nn.Sequential(nn.Conv2d(16, 16, 3), nn.Linear(16, 4)).to(memory_format=torch.channels_last)
    rows = gradients(list(a.parameters()))
    first = Muon(a.parameters(), lr=1e-2)
    trained(first, list(a.parameters()), rows[:3])
    b = copy.deepcopy(a)
    second = Muon(b.parameters(), lr=1e-2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    trained(first, list(a.parameters()), rows[3:])
    trained(second, list(b.parameters()), rows[3:])
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_parameter_without_a_gradient_stays():
    still, moving = (nn.Parameter(torch.ones(20, 20)) for _ in range(2))
    optimizer = Muon([still, moving], lr=1e-2)
    moving.grad = torch.eye(20)
    optimizer.step()
    assert torch.equal(still, torch.ones(20, 20))
    assert not torch.equal(moving, torch.ones(20, 20))
