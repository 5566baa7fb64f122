import torch

from autobackbone.training.views import augmented


def test_views_keep_shape_type_and_most_of_the_picture():
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(0, 256, (2, 64, 48, 3), dtype=torch.uint8)
    pictures[:, 20:40, 15:30] = 200
    for _ in range(10):
        view = augmented(pictures, generator)
        assert view.shape == pictures.shape
        assert view.dtype == torch.uint8
        assert (view == 200).float().mean() > 0.04  # the patch is 10 % of the picture


def test_the_same_seed_gives_the_same_view_and_the_next_draw_another():
    pictures = torch.randint(0, 256, (1, 32, 32, 3), dtype=torch.uint8)
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    first = augmented(pictures, one)
    assert torch.equal(first, augmented(pictures, two))
    assert not torch.equal(first, augmented(pictures, one))


def test_larger_pictures_move_further():
    generator = torch.Generator().manual_seed(1)
    square = torch.zeros(1, 320, 320, 3, dtype=torch.uint8)
    square[:, 155:166, 155:166] = 255
    # The gap that a move leaves is grey, at most 124.
    moved = [(augmented(square, generator)[0, :, :, 0] > 200).nonzero().float().mean(0) - 160 for _ in range(20)]
    distances = torch.stack(moved).abs().max()
    assert 4 < distances <= 320 / 16 * 1.1 + 2
