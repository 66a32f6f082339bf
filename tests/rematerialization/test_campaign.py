"""A small part of the randomized campaign; ``make campaign`` runs all of it."""

import pytest

from tests.rematerialization.campaign import episode


@pytest.mark.parametrize("seed", range(6))
def test_no_step_is_wrong_whatever_happens(seed: int) -> None:
    outcome = episode(seed)
    assert not outcome.wrong, str(outcome)
    assert outcome.steps or outcome.refused
