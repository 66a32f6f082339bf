"""Parameters that lie on the same memory: refused by name, unless they share no element."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import PrescriptionError
from thetaone.parametrization.reading import overlaps


class TiedByData(nn.Module):
    def __init__(self, width: int, device: str = "cpu", *, by: str = "data") -> None:
        super().__init__()
        self.emb = nn.Embedding(32, width, device=device)
        self.mid = nn.Linear(width, width, device=device)
        self.head = nn.Linear(width, 32, bias=False, device=device)
        data = self.emb.weight.detach()
        views = {"data": data, "view": data.view(-1).view(32, width), "copy": data.clone()}
        self.head.weight = self.emb.weight if by == "itself" else nn.Parameter(views[by])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mid(self.emb(x)).relu())


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("by", ["data", "view"])
def test_two_parameters_on_one_memory_are_refused_and_left_alone(by: str, device: str) -> None:
    model, base = TiedByData(64, device, by=by), TiedByData(16, by="copy")
    saved = t1.prescribe(TiedByData(64, by="copy"), base=base)
    before = copy.deepcopy(model.state_dict())
    for source in (base, saved):
        for call in (lambda s: t1.prescribe(model, base=s), rates(model)):
            with pytest.raises(
                PrescriptionError, match=r"model\.head\.weight = model\.emb\.weight"
            ):
                call(source)
    if device == "cpu":
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def rates(model: nn.Module) -> Callable[..., torch.optim.Optimizer]:
    return lambda source: t1.parametrize(model, base=source, lr=0.1)


@pytest.mark.parametrize("by", ["itself", "copy"])
def test_the_cures_of_the_message_are_accepted(by: str) -> None:
    assert t1.parametrize(TiedByData(64, by=by), base=TiedByData(16, by=by), lr=0.1)


@pytest.mark.parametrize("columns", [False, True])
def test_views_of_one_buffer_side_by_side_are_as_tensors_of_their_own(*, columns: bool) -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(8, 64), nn.Linear(64, 64)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
    plain = copy.deepcopy(model)
    if columns:
        parts = torch.cat([first.weight, second.weight], 1).detach().split([8, 64], 1)
    else:
        flat = torch.cat([first.weight.flatten(), second.weight.flatten()]).detach()
        parts = [part.view(64, -1) for part in flat.split([512, 4096])]
    first.weight, second.weight = (nn.Parameter(part) for part in parts)
    base = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU())
    for one in (model, plain):
        t1.parametrize(one, base=base, lr=0.1)
    torch.testing.assert_close(second.weight, plain.get_parameter("2.weight"))


def test_overlaps_are_those_of_index_sets() -> None:
    torch.manual_seed(0)
    flat = torch.zeros(60)
    for _ in range(50):
        size, stride = torch.randint(1, 4, (2, 2)).tolist(), torch.randint(0, 7, (2, 2)).tolist()
        start = torch.randint(0, 20, (2,)).tolist()
        views = [flat.as_strided(size[i], stride[i], start[i]) for i in (0, 1)]
        indices = [
            {start[i] + a * stride[i][0] + b * stride[i][1]
             for a in range(size[i][0]) for b in range(size[i][1])}
            for i in (0, 1)
        ]  # fmt: skip
        pairs = overlaps({"a": views[0], "b": views[1]})
        assert bool(pairs) == bool(indices[0] & indices[1])
