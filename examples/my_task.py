import torch
from torch import nn


def model(width):
    hidden = [nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, 8))


def batches(seed):
    generator = torch.Generator().manual_seed(seed)
    while True:
        x = torch.randn(64, 16, generator=generator)
        yield x, (x[:, :8] * x[:, 8:]).argmax(1)


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])
