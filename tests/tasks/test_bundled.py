import sys
from itertools import islice

import pytest
import torch
from torch import nn

from thetaone.errors import InputError, MissingExtraError
from thetaone.records import check_loss
from thetaone.tasks import digits, lm, load_task


@pytest.mark.parametrize("name", ["lm", "digits"])
def test_batches_depend_on_the_seed_alone(name: str) -> None:
    task = load_task(name)
    flat = [
        torch.cat([torch.as_tensor(part).flatten().float() for part in islice(task.batches(s), 3)])
        if name == "lm"
        else torch.cat([images.flatten() for images, _ in islice(task.batches(s), 3)])
        for s in (0, 0, 1)
    ]
    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])


@pytest.mark.parametrize("name", ["lm", "digits"])
def test_training_lowers_the_validation_loss(name: str) -> None:
    task = load_task(name)
    torch.manual_seed(0)
    model = task.model(32)
    assert task.evaluate is not None
    before = task.evaluate(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=2.0**-6)
    for batch in islice(task.batches(0), 30):
        optimizer.zero_grad()
        check_loss(task.loss(model, batch), where=name).backward()
        optimizer.step()
    assert task.evaluate(model) < 0.8 * before


def test_lm_starts_near_the_uniform_guess_and_sees_only_the_past() -> None:
    torch.manual_seed(0)
    model = lm.model(64)
    tokens = next(lm.batches(0))
    assert lm.loss(model, tokens).item() == pytest.approx(4.57, abs=0.4)  # log 97
    changed = tokens.clone()
    changed[:, 40] = (changed[:, 40] + 1) % lm.N_CHARACTERS
    with torch.no_grad():
        difference = (model(tokens[:, :-1]) - model(changed[:, :-1])).abs().amax(dim=(0, 2))
    assert difference[:40].max() == 0
    assert difference[40:].min() > 0


def test_lm_text_is_english_in_known_characters() -> None:
    tokens = torch.cat([batch.flatten() for batch in islice(lm.batches(0), 20)])
    assert tokens.min() >= 0
    assert tokens.max() < lm.N_CHARACTERS
    share_of_e = (tokens == ord("e") - 31).float().mean()
    assert 0.05 < share_of_e < 0.12


def test_lm_blocks_are_a_list_and_heads_grow_with_width() -> None:
    model = lm.model(48, depth=3)
    assert isinstance(model.blocks, nn.ModuleList)
    assert [type(block).__name__ for block in model.blocks] == ["Attention", "Perceptron"] * 3
    assert model(torch.zeros(2, lm.CONTEXT, dtype=torch.long)).shape == (2, lm.CONTEXT, 97)


@pytest.mark.parametrize(("width", "advice"), [(40, "nearest that is: 32"), (0, "16"), (7, "16")])
def test_lm_width_must_be_a_multiple_of_the_head_size(width: int, advice: str) -> None:
    with pytest.raises(InputError, match=f"width={width} .*head size 16.*{advice}"):
        lm.model(width)


def test_depth_and_width_below_one() -> None:
    with pytest.raises(InputError, match="depth=0 of task lm"):
        lm.model(32, depth=0)
    with pytest.raises(InputError, match="width=0, depth=1 of task digits"):
        digits.model(0)


def test_digits_without_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    digits._digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.*\[examples\]'"):
        next(digits.batches(0))


def test_lm_at_width_256_needs_rematerialization_in_64_mebibytes() -> None:
    model = lm.model(256)
    state = 4 * sum(p.numel() * p.element_size() for p in model.parameters())
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = lm.loss(model, next(lm.batches(0)))
    mebibyte = 2**20
    assert loss.isfinite()
    assert state < (64 - 8) * mebibyte
    assert state + sum(kept.values()) > 72 * mebibyte
