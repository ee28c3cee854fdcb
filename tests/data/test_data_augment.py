import pytest
import torch

from mezzotint.data import Augment
from mezzotint.errors import InputError


def batch(seed=0, dtype=torch.uint8):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (64, 3, 6, 5), generator=generator).to(dtype)


def seeded(seed=7):
    return torch.Generator().manual_seed(seed)


def test_off_is_the_same_object_and_draws_nothing():
    images, generator = batch(), seeded()
    before = generator.get_state()
    assert Augment()(images, generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16])
def test_every_image_is_itself_or_its_mirror_by_its_own_coin(dtype):
    images = batch(dtype=dtype)
    coins = torch.rand(64, generator=seeded()) < 0.5
    flipped = Augment(flip=True)(images, seeded())
    assert flipped.dtype == dtype
    for image, result, coin in zip(images, flipped, coins, strict=True):
        assert torch.equal(result, torch.flip(image, (-1,)) if coin else image)
    assert 0 < coins.sum() < 64


def test_a_shift_is_a_crop_of_the_edge_padded_image():
    images, shift = batch(), 2
    moved = Augment(shift=shift)(images, seeded())
    padded = torch.nn.functional.pad(images.float(), (shift,) * 4, mode="replicate")
    seen = set()
    for image, result in zip(padded, moved, strict=True):
        fits = [
            (shift - top, shift - left)
            for top in range(2 * shift + 1)
            for left in range(2 * shift + 1)
            if torch.equal(image[:, top : top + 6, left : left + 5], result.float())
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert {down for down, _ in seen} == {right for _, right in seen} == {-2, -1, 0, 1, 2}


def test_the_generator_alone_decides():
    augment, images = Augment(flip=True, shift=1), batch()
    assert torch.equal(augment(images, seeded(1)), augment(images, seeded(1)))
    assert not torch.equal(augment(images, seeded(1)), augment(images, seeded(2)))


def test_a_negative_shift_is_refused():
    with pytest.raises(InputError, match="shift -1"):
        Augment(shift=-1)


def test_a_share_of_the_changes_is_that_share_of_the_whole():
    images = torch.arange(10 * 5 * 6).view(10, 1, 5, 6)
    changes = Augment(flip=True, shift=2).draw(10, torch.Generator().manual_seed(0))
    whole = changes(images)
    assert torch.equal(changes[slice(3, 7)](images[3:7]), whole[3:7])
    assert not torch.equal(whole[3:7], images[3:7])
    nothing = Augment().draw(10, torch.Generator())
    assert nothing[slice(3, 7)](images) is images
