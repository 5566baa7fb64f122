"""Networks of somebody's own, which worker processes can import."""

import torch
from torch import nn


class Tiny(nn.Module):
    """Three steps with batch norms, one of them over a skip connection, and a head that has a name of its own."""

    def __init__(self, n_classes=5, width=16):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.late = nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.answer = nn.Linear(2 * width, n_classes)

    def forward(self, x):
        x = self.stem(x)
        x = self.late(x + self.middle(x))
        return self.answer(self.pool(x).flatten(1))


def tiny(width=16):
    return Tiny(width=width)


class Softmaxed(Tiny):
    """Answers what is no logit."""

    def forward(self, x):
        return super().forward(x).softmax(1)


class Picky(Tiny):
    """Takes pictures of one size."""

    def forward(self, x):
        if x.shape[2:] != (48, 48):
            raise ArithmeticError("48 px are wanted")
        return super().forward(x)


class Headless(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.body(x).mean((2, 3))


class Averaging(Tiny):
    """Looks at all pictures of a batch for each."""

    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True))


class Undefined(Tiny):
    """Answers no number."""

    def forward(self, x):
        return super().forward(x) * torch.log(torch.tensor(-1.0))


class Rounding(Tiny):
    """Answers to a picture beside others what differs by much of rounding, as a deep network of random weights may."""

    def forward(self, x):
        return super().forward(x * (1 + 1e6 * torch.finfo(x.dtype).eps * (len(x) > 1)))


class Dividing(Tiny):
    """Fails in its own way."""

    def forward(self, x):
        return super().forward(x) / (1 // (len(x) // 99))


class Dumb(Tiny):
    """Fails, and does not say why."""

    def forward(self, x):
        raise AssertionError


class Single(Tiny):
    """Holds what cannot be copied: a tensor that was computed from others."""

    def __init__(self):
        super().__init__()
        self.kernel = self.stem[0].weight * 2


def frozen():
    return Tiny().requires_grad_(requires_grad=False)


def a_tensor():
    return torch.zeros(3)
