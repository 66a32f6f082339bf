"""The zoo: prescribed right by a probe of its own, or refused by name; nothing wrong in silence."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from tests.parametrization.zoo.models import CLASSES, FEATURES, LENGTH, VOCABULARY, ZOO, Entry

WIDTHS = (64, 128, 256, 512)
STEPS, BAND = 4, 0.3
FEW = ("attention, fused, heads grow", "tied by function", "raw, product and sum", "graph score")


def batch(entry: Entry) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    if entry.tokens:
        x = torch.randint(VOCABULARY, (16, LENGTH), generator=generator)
        return x, (x * 5 + 1) % VOCABULARY
    x = torch.randn(32, FEATURES, generator=generator)
    return x, torch.randint(CLASSES, (32,), generator=generator)


def moved(entry: Entry, width: int, seed: int) -> dict[str, float]:
    """RMS of the change of every module's output, by own hooks.

    A factor that is folded into a layer is on its output too, and is taken off again.
    """
    torch.manual_seed(seed)
    model = entry.make(width)
    x, y = batch(entry)
    prescription = t1.prescribe(model, base=lambda: entry.make(WIDTHS[0]), sample=(x,))
    folds = {rule.name.rpartition(".")[0]: rule.fold for rule in prescription.rules}
    optimizer = t1.parametrize(model, base=prescription, lr=2**-9)
    seen: dict[str, Tensor] = {}

    def note(name: str) -> None:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen[name] = output.detach()

        model.get_submodule(name).register_forward_hook(hook)

    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.LayerNorm)) or not name:
            note(name)
    model(x)
    first = dict(seen)
    for _ in range(STEPS):
        optimizer.zero_grad()
        out = model(x)
        F.cross_entropy(out.flatten(0, -2), y.flatten() % out.shape[-1]).backward()
        optimizer.step()
    model(x)
    changes = {name: (seen[name] - first[name]).square().mean().sqrt() for name in first}
    return {name: float(change) / folds.get(name, 1.0) for name, change in changes.items()}


def slopes(entry: Entry) -> dict[str, float]:
    torch.set_num_threads(1)
    changes = [[moved(entry, width, seed) for seed in range(2)] for width in WIDTHS]
    x = torch.tensor(WIDTHS).double().log2()
    x -= x.mean()
    found: dict[str, float] = {}
    for name in changes[0][0]:
        y = torch.tensor([sum(one[name] for one in row) for row in changes]).double().log2()
        found[name] = float((x * y).sum() / x.square().sum())
    return found


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in ZOO]
)
def test_prescribed_right_or_refused_by_name(name: str) -> None:
    entry = ZOO[name]
    if entry.refused:
        with pytest.raises(t1.ThetaOneError, match=entry.refused):
            slopes(entry)
        return
    wrong = {layer: slope for layer, slope in slopes(entry).items() if abs(slope) > BAND}
    assert not wrong
