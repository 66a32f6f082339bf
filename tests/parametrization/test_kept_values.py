"""``rescale=False``: what trained values compute stays, or the call is refused with the reason."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thetaone as t1
from thetaone.errors import PrescriptionError
from thetaone.parametrization._scaling import row_factors
from thetaone.parametrization.applying._fresh import KeptValuesWarning

TOKENS = torch.randint(32, (4, 8), generator=torch.Generator().manual_seed(0))


class Fused(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb, self.norm = nn.Embedding(32, width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.last, self.head = nn.LayerNorm(width), nn.Linear(width, 32)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.emb(tokens)
        q, k, v = (
            part.unflatten(2, (2, -1)).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, 2)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.head(self.last(x + self.out(mixed)))


class Tied(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.emb, self.mid = nn.Embedding(32, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 32, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(F.gelu(self.mid(self.emb(tokens))))


def trained(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> nn.Module:
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(10):
        optimizer.zero_grad()
        F.cross_entropy(model(TOKENS).flatten(0, 1), (TOKENS * 3 + 1).flatten() % 32).backward()
        optimizer.step()
    return model


def test_factors_on_rows_leave_what_trained_values_compute() -> None:
    torch.manual_seed(0)
    model = trained(Fused(64))
    before = model(TOKENS).detach()
    t1.parametrize(model, base=Fused(16), lr=0.01, rescale=False)
    assert (
        float(row_factors(model.get_submodule("qkv"), "weight").min()) < 1
    )  # there is a factor to make up for
    torch.testing.assert_close(model(TOKENS), before)
    plain = t1.export(model)
    torch.testing.assert_close(plain(TOKENS), before)
    t1.parametrize(plain, base=Fused(16), lr=0.01, rescale=False)
    torch.testing.assert_close(plain(TOKENS), before)


def test_a_checkpoint_of_a_parametrized_model_is_resumed_exactly() -> None:
    torch.manual_seed(0)
    model, again, base = Fused(64), Fused(64), Fused(16)
    trained(model, t1.parametrize(model, base=base, lr=0.01))
    t1.parametrize(again, base=base, lr=0.01, rescale=False)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(TOKENS), model(TOKENS))


def test_a_factor_that_no_values_make_up_for_is_refused_over_trained_ones() -> None:
    torch.manual_seed(0)
    model, again, base = Tied(64), Tied(64), Tied(16)
    with torch.no_grad():
        model.mid.weight += 0.1  # of rank one, as training adds it
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        PrescriptionError, match=r"factor 0\.25 on the input of head.*looks trained"
    ):
        t1.parametrize(model, base=base, lr=0.01, rescale=False)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    model = Tied(64)  # a checkpoint of a parametrized model, loaded after the call
    trained(model, t1.parametrize(model, base=base, lr=0.01))
    with pytest.warns(KeptValuesWarning, match=r"loaded after parametrize"):
        t1.parametrize(again, base=base, lr=0.01, rescale=False)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(TOKENS), model(TOKENS))


def test_a_parametrized_model_is_read_as_the_plain_one() -> None:
    torch.manual_seed(0)
    model, base = Fused(64), Fused(16)
    plain = t1.prescribe(model, base=base)
    t1.parametrize(model, base=base, lr=0.01)
    once = copy.deepcopy(model.state_dict())
    again = {rule.name: rule for rule in t1.prescribe(model, base=base).rules}
    assert again == {rule.name: rule for rule in plain.rules}
    for rescale in (None, False):
        t1.parametrize(model, base=base, lr=0.01, rescale=rescale)
        torch.testing.assert_close(model.state_dict(), once)
