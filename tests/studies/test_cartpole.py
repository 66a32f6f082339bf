from itertools import islice

import pytest
import torch

from thetaone.errors import InputError
from thetaone.studies import cartpole
from thetaone.tasks.load import check_loss, load_task


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
