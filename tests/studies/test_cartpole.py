from itertools import islice
from typing import Any

import pytest
import torch

from thetaone.errors import InputError, ProfileError
from thetaone.records import FEATURE_UPDATE, check_loss
from thetaone.studies import cartpole, coordinate_check, transfer
from thetaone.tasks import load_task


def test_is_found_by_name_and_learns() -> None:
    task = load_task("cartpole")
    torch.manual_seed(0)
    model = task.model(32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    losses = []
    for batch in islice(task.batches(0), 9):
        loss = check_loss(task.loss(model, batch), where="cartpole")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert -40 < losses[0] < -10  # a random push keeps the pole up for some 20 steps
    assert losses[-1] < 2.5 * losses[0]


def test_same_seed_same_bits() -> None:
    values = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = cartpole.model(16)
        values.append(
            [cartpole.loss(model, batch).item() for batch in islice(cartpole.batches(seed), 3)]
        )
    assert values[0] == values[1]
    assert values[0] != values[2]


def test_a_batch_keeps_its_episodes_and_the_acting_is_not_watched() -> None:
    torch.manual_seed(0)
    model = cartpole.model(16)
    seen: list[torch.Size] = []
    first_layer, readout = next(iter(model.children())), list(model.children())[-1]
    first_layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    batch = next(cartpole.batches(0))
    first = cartpole.loss(model, batch)
    with torch.no_grad():
        list(readout.parameters())[1].add_(torch.tensor([5.0, -5.0]))
    assert cartpole.loss(model, batch).item() == first.item()
    assert batch.episodes is not None
    assert seen == [torch.Size([batch.episodes.n_steps, 4])] * 2


def test_width_below_one() -> None:
    with pytest.raises(InputError, match="width=0, depth=1 of task cartpole"):
        cartpole.model(0)


SMALL: dict[str, Any] = {
    "widths": [8, 16], "target": 24, "lrs": [2.0**-7, 2.0**-6, 2.0**-5], "seeds": [0],
    "steps": 2, "engine": "serial",
}  # fmt: skip


def test_transfers_without_a_memory_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thetaone.studies._job.verify_laws", list)
    result = transfer("cartpole", **SMALL)
    assert 2**-7 <= result.chosen_lr <= 2**-5
    # no two batches of episodes have one size, so no schedule made for one can run the next
    assert result.memory is None
    assert "batches of task cartpole differ in size" in result.memory_note
    assert all(-500 <= loss < 0 for loss in result.target.losses)


def test_transfer_within_bytes_is_refused() -> None:
    with pytest.raises(ProfileError, match=r"memory=1,048,576 bytes: the batches of task cartpole"):
        transfer("cartpole", memory="1MiB", **SMALL)


@pytest.mark.slow
def test_features_move_alike_at_every_width_in_mup_alone() -> None:
    checks = {
        rule: coordinate_check(
            "cartpole", widths=[64, 256, 1024], lr=2**-8, seeds=3, steps=(1, 2),
            parametrization=rule,
        )
        for rule in ("mup", "sp")
    }  # fmt: skip
    assert checks["mup"].passed
    # what comes behind the two layers, and the loss that reads them, grows with them
    assert checks["sp"].failed_layers[:2] == ("2", "4")
    assert "0" not in checks["sp"].failed_layers
    (hidden,) = (
        row.law for row in checks["sp"].rows
        if row.layer == "2" and row.quantity == FEATURE_UPDATE and row.step == 1
    )  # fmt: skip
    assert hidden is not None
    assert hidden.exponent == pytest.approx(1.0, abs=0.15)  # Adam at one rate: Θ(width)
