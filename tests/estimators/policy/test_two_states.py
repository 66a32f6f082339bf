"""The policy gradient against a closed form: exact over every group of episodes, and sampled."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor
from torch import distributions as D

from tests.estimators.policy import two_states as mdp
from tests.estimators.policy.two_states import DISCOUNT, THETA, TwoStates
from thetaone.errors import EstimatorError, InputError
from thetaone.estimators import Episodes, collect_episodes
from thetaone.estimators.policy import _baselines as baselines
from thetaone.estimators.policy import _loss as loss
from thetaone.estimators.policy import _returns as returns
from thetaone.estimators.policy import clipped_ratio_loss, generalized_advantages

GROUPS = [(3, 2), (2, 3)]  # (horizon, episodes): 144 and 216 groups, truncated ones among them

Loss = Callable[[Tensor, Episodes], Tensor]


def expected_gradient(horizon: int, n_episodes: int, make_loss: Loss) -> Tensor:
    """E ĝ: the gradient of each possible group, weighted with the group's probability."""
    total, mass = torch.zeros(2, dtype=torch.float64), 0.0
    for probability, episodes in mdp.all_groups(horizon, n_episodes):
        total -= probability * mdp.gradient_of(lambda theta, e=episodes: make_loss(theta, e))
        mass += probability
    assert mass == pytest.approx(1, abs=1e-12)
    return total


def with_time_limit(theta: Tensor, episodes: Episodes) -> Tensor:
    return loss.policy_gradient_loss(
        mdp.policy(theta), episodes, discount=DISCOUNT, after_truncation=0.0
    )


def bootstrapped(theta: Tensor, episodes: Episodes) -> Tensor:
    tail = torch.stack(mdp.values(THETA))[episodes.last_observations[:, 0].long().clamp(min=0)]
    return loss.policy_gradient_loss(
        mdp.policy(theta), episodes, discount=DISCOUNT, after_truncation=tail
    )


def truth_of_horizon(horizon: int) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64)
    return mdp.gradient_of(lambda theta: mdp.objective_of_horizon(theta, horizon, (zero, zero)))


def truth_of_first_decisions(horizon: int) -> Tensor:
    tail = mdp.values(THETA)
    return mdp.gradient_of(lambda theta: mdp.objective_of_horizon(theta, horizon, tail))


def own_return_in_the_baseline(returns_tk: Tensor, alive_tk: Tensor) -> Tensor:
    alive = alive_tk.to(returns_tk.dtype)
    return (returns_tk * alive).sum(1, keepdim=True) / alive.sum(1, keepdim=True)


def test_two_truths_agree() -> None:
    by_theorem = mdp.gradient_by_the_theorem(THETA)
    assert torch.allclose(mdp.gradient_of(mdp.objective), by_theorem, atol=1e-13, rtol=0)
    assert by_theorem.abs().min() > 0.05
    # the objective itself is the limit of its horizons, and a true tail changes nothing
    v = mdp.values(THETA)
    for tail, steps, tolerance in ((torch.zeros(2), 400, 1e-12), (torch.stack(v), 3, 1e-12)):
        value = mdp.objective_of_horizon(THETA, steps, (tail[0].double(), tail[1].double()))
        assert float(value - mdp.objective(THETA)) == pytest.approx(0, abs=tolerance)


@pytest.mark.parametrize(("horizon", "n_episodes"), GROUPS)
@pytest.mark.parametrize("living", [True, False], ids=["mean of the living", "ended count as 0"])
def test_time_limit_in_the_objective_is_exact(
    horizon: int, n_episodes: int, living: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not living:
        monkeypatch.setattr(
            loss, "per_time_leave_one_out", lambda g, _: baselines.per_time_leave_one_out(g)
        )
    found = expected_gradient(horizon, n_episodes, with_time_limit)
    assert torch.allclose(found, truth_of_horizon(horizon), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("horizon", "n_episodes"), GROUPS)
def test_bootstrap_with_the_true_value_is_exact_for_the_decisions_seen(
    horizon: int, n_episodes: int
) -> None:
    found = expected_gradient(horizon, n_episodes, bootstrapped)
    assert torch.allclose(found, truth_of_first_decisions(horizon), atol=1e-12, rtol=0)
    # ∇J = that + γ^H E[∇V(s_H)], what the docstring says is missing
    rest = sum(
        DISCOUNT**horizon * p.probability * mdp.gradient_of(lambda th, s=p.last: mdp.values(th)[s])
        for p in mdp.paths(horizon)
        if p.truncated
    )
    assert torch.allclose(found + rest, mdp.gradient_by_the_theorem(THETA), atol=1e-12, rtol=0)


def test_faults_are_seen_by_enumeration(monkeypatch: pytest.MonkeyPatch) -> None:
    horizon, n_episodes = 3, 2
    truth, first = truth_of_horizon(horizon), truth_of_first_decisions(horizon)

    def distance(make_loss: Loss, to: Tensor) -> float:
        found = expected_gradient(horizon, n_episodes, make_loss)
        return float((found - to).norm() / to.norm())

    assert distance(with_time_limit, first) > 0.05  # truncated treated as terminated

    def without_discount(theta: Tensor, episodes: Episodes) -> Tensor:
        return loss.policy_gradient_loss(mdp.policy(theta), episodes, after_truncation=0.0)

    assert distance(without_discount, truth) > 0.05
    with monkeypatch.context() as patch:  # rewards discounted, but not the weight of later states
        patch.setattr(loss, "discount_weights", lambda r, _: torch.ones_like(r[:, :1]))
        assert distance(with_time_limit, truth) > 0.05
    with monkeypatch.context() as patch:
        patch.setattr(loss, "per_time_leave_one_out", own_return_in_the_baseline)
        assert distance(with_time_limit, truth) > 0.05


def test_dropping_truncated_episodes_selects_by_outcome() -> None:
    kept = [path for path in mdp.paths(3) if not path.truncated]
    mass = sum(path.probability for path in kept)
    total = torch.zeros(2, dtype=torch.float64)
    for one in kept:
        for other in kept:
            weight = one.probability * other.probability / mass**2
            episodes = mdp.side_by_side((one, other))
            total -= weight * mdp.gradient_of(lambda th, e=episodes: with_time_limit(th, e))
    truth = mdp.gradient_by_the_theorem(THETA)
    assert float((total - truth).norm() / truth.norm()) > 0.05


HORIZON = 8
N_BATCHES, N_EPISODES = 1500, 3
FAULT = 1 / 3  # the planted bias, relative: 1/K of an own return in the baseline


def sampled(mode: AutoresetMode) -> list[Episodes]:
    environments = TwoStates(N_EPISODES, HORIZON, mode)
    generator = torch.Generator().manual_seed(1)
    return [
        collect_episodes(
            environments, mdp.policy(THETA), seed=seed, generator=generator, max_steps=HORIZON
        )
        for seed in range(N_BATCHES)
    ]


def gradients(batches: list[Episodes], make_loss: Loss) -> Tensor:
    return torch.stack([
        -mdp.gradient_of(lambda theta, e=episodes: make_loss(theta, e)) for episodes in batches
    ])  # fmt: skip


def z_scores(rows: Tensor, truth: Tensor) -> Tensor:
    stderr = rows.std(0) / len(rows) ** 0.5
    assert 5 * float(stderr.norm()) < FAULT * float(truth.norm()), "the test is too weak"
    return (rows.mean(0) - truth) / stderr


@pytest.mark.slow
@pytest.mark.statistical
def test_sampled_gradient_agrees_and_faults_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, first = truth_of_horizon(HORIZON), truth_of_first_decisions(HORIZON)
    batches = sampled(AutoresetMode.NEXT_STEP)
    rows = gradients(batches, with_time_limit)
    assert z_scores(rows, truth).abs().max() <= 4.5
    assert z_scores(rows, first).abs().max() > 4.5  # truncated treated as terminated
    assert z_scores(gradients(batches, bootstrapped), first).abs().max() <= 4.5
    monkeypatch.setattr(loss, "per_time_leave_one_out", own_return_in_the_baseline)
    assert z_scores(gradients(batches, with_time_limit), truth).abs().max() > 4.5


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.value)
def test_every_autoreset_mode_gives_the_same_transitions(mode: AutoresetMode) -> None:
    generator = torch.Generator().manual_seed(0)
    episodes = collect_episodes(
        TwoStates(6, 5, mode), mdp.policy(THETA), seed=3, generator=generator, max_steps=5
    )
    states, actions = episodes.observations[..., 0].long(), episodes.actions.long()
    ends = []
    for k, length in enumerate(episodes.lengths.tolist()):
        for t in range(length):
            state, action = int(states[t, k]), int(actions[t, k])
            assert float(episodes.rewards[t, k]) == mdp.REWARD[state][action]
            after = mdp.NEXT[state][action]
            if t + 1 < length:
                assert int(states[t + 1, k]) == after  # no transition from one episode to another
            else:
                ends.append(after)
                assert bool(episodes.truncated[k]) == (after >= 0)
                assert int(episodes.last_observations[k, 0]) == max(after, 0)
    assert -1 in ends
    assert episodes.rewards[~episodes.alive].abs().sum() == 0


def test_truncation_must_be_explained() -> None:
    episodes = mdp.side_by_side((mdp.paths(2)[0], mdp.paths(2)[0]))
    with pytest.raises(ValueError, match=r"2 of 2 episodes were truncated.*after_truncation=0\.0"):
        returns.rewards_to_go(episodes)


def test_value_is_the_return_and_entropy_leaves_it_alone() -> None:
    episodes = mdp.side_by_side(tuple(mdp.paths(3)[:4]))
    parameter = THETA.clone().requires_grad_()
    plain, bonus = (
        loss.policy_gradient_loss(
            mdp.policy(parameter), episodes, discount=DISCOUNT, after_truncation=0.0,
            entropy_weight=weight,
        )
        for weight in (0.0, 0.5)
    )  # fmt: skip
    assert plain.item() == pytest.approx(-float(episodes.returns(DISCOUNT).mean()), abs=1e-12)
    assert bonus.item() == pytest.approx(plain.item(), abs=1e-12)
    weights = torch.tensor([DISCOUNT**t for t in range(3)], dtype=torch.float64)[:, None]
    entropy = mdp.policy(parameter)(episodes.observations).entropy()
    mean_entropy = (weights * entropy * episodes.alive).sum() / 4
    (expected,) = torch.autograd.grad(-0.5 * mean_entropy, parameter)
    (found,) = torch.autograd.grad(bonus - plain, parameter)
    assert torch.allclose(found, expected, atol=1e-12, rtol=0)


def test_the_second_derivative_is_exact_too() -> None:
    # E of the loss's Hessian over every group is the Hessian of J_H, baselines included
    horizon, n_episodes = 3, 2
    zero = torch.zeros((), dtype=torch.float64)
    truth: Any = torch.autograd.functional.hessian(
        lambda theta: mdp.objective_of_horizon(theta, horizon, (zero, zero)), THETA
    )
    total = torch.zeros(2, 2, dtype=torch.float64)
    for probability, episodes in mdp.all_groups(horizon, n_episodes):
        second: Any = torch.autograd.functional.hessian(
            lambda theta, e=episodes: with_time_limit(theta, e), THETA
        )
        total -= probability * second
    assert float(truth.abs().max()) > 0.03
    assert torch.allclose(total, truth, atol=1e-12, rtol=0)


def test_the_second_derivative_of_an_entropy_bonus_is_refused() -> None:
    _, episodes = next(iter(mdp.all_groups(3, 2)))
    theta = THETA.clone().requires_grad_()
    value = loss.policy_gradient_loss(
        mdp.policy(theta), episodes, after_truncation=0.0, entropy_weight=0.1
    )
    (first,) = torch.autograd.grad(value, theta, create_graph=True)
    with pytest.raises(EstimatorError, match=r"entropy_weight.*first derivatives only"):
        torch.autograd.grad(first.sum(), theta)


def one_step(actions: Tensor, **changes: Tensor) -> Episodes:
    k = actions.shape[1]
    parts: dict[str, Any] = {
        "observations": torch.zeros(1, k, 3), "actions": actions, "rewards": torch.ones(1, k),
        "alive": torch.ones(1, k, dtype=torch.bool), "truncated": torch.zeros(k, dtype=torch.bool),
        "last_observations": torch.zeros(k, 3),
    } | changes  # fmt: skip
    return Episodes(**parts)


def test_what_a_policy_returns_must_be_one_number_a_step() -> None:
    mean = torch.zeros(1, requires_grad=True)
    column = one_step(torch.zeros(1, 4, 1))
    with pytest.raises(
        EstimatorError, match=r"log_prob .* shape \(4, 1\) for 4 steps.*Independent"
    ):
        loss.policy_gradient_loss(lambda o: D.Normal(mean.expand(len(o), 1), 1.0), column)
    row = one_step(torch.zeros(1, 4))
    with pytest.raises(EstimatorError, match=r"shape \(4, 4\) for 4 steps"):
        loss.policy_gradient_loss(lambda o: D.Normal(mean.expand(len(o), 1), 1.0), row)
    wrapped = lambda o: D.Independent(D.Normal(mean.expand(len(o), 1), 1.0), 1)  # noqa: E731
    loss.policy_gradient_loss(wrapped, column).backward()
    squashed = lambda o: D.TransformedDistribution(  # noqa: E731
        wrapped(o), [D.TanhTransform(cache_size=1)]
    )
    with pytest.raises(EstimatorError, match=r"knows no entropy of Transformed.*entropy_weight=0"):
        loss.policy_gradient_loss(squashed, column, entropy_weight=0.1)
    edge = one_step(torch.ones(1, 4, 1))
    with pytest.raises(EstimatorError, match="log π of 4 of 4 actions is NaN or infinite"):
        loss.policy_gradient_loss(squashed, edge)


def test_what_lies_behind_an_end_is_not_counted() -> None:
    parts: dict[str, Any] = {
        "observations": torch.zeros(2, 2, 1), "actions": torch.zeros(2, 2),
        "alive": torch.tensor([[True, True], [False, True]]),
        "truncated": torch.zeros(2, dtype=torch.bool), "last_observations": torch.zeros(2, 1),
    }  # fmt: skip
    for padding in (0.0, 9.0, torch.nan):
        episodes = Episodes(rewards=torch.tensor([[1.0, 1.0], [padding, 1.0]]), **parts)
        assert returns.rewards_to_go(episodes).tolist() == [[1.0, 2.0], [0.0, 1.0]]
        assert episodes.returns().tolist() == [1.0, 2.0]


def test_a_column_of_values_would_broadcast() -> None:
    cut = one_step(torch.zeros(1, 4), truncated=torch.ones(4, dtype=torch.bool))
    with pytest.raises(EstimatorError, match=r"after_truncation has shape \(4, 1\).*squeeze\(-1\)"):
        returns.rewards_to_go(cut, after_truncation=torch.zeros(4, 1))
    with pytest.raises(EstimatorError, match="holds NaN or infinite"):
        returns.rewards_to_go(cut, after_truncation=torch.nan)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"alive": torch.ones(1, 4)}, "alive is torch.float"),
        ({"alive": torch.zeros(1, 4, dtype=torch.bool)}, "an episode has a first step"),
        ({"observations": torch.zeros(1, 3, 2)}, r"observations has shape \(1, 3, 2\)"),
        ({"last_observations": torch.zeros(3, 2)}, "expected one row an episode, 4 of them"),
    ],
)
def test_episodes_of_the_wrong_form(changes: dict[str, Tensor], match: str) -> None:
    with pytest.raises(InputError, match=match):
        one_step(torch.zeros(1, 4), **changes)


ARBITRARY = torch.tensor([1.7, -0.6], dtype=torch.float64)  # V of the two states, of no policy


def state_values(episodes: Episodes, table: Tensor) -> Tensor:
    return table[episodes.observations[..., 0].long().clamp(min=0)]


def with_critic(theta: Tensor, episodes: Episodes) -> Tensor:
    return loss.policy_gradient_loss(
        mdp.policy(theta), episodes, discount=DISCOUNT, after_truncation=0.0,
        baselines=state_values(episodes, ARBITRARY),
    )  # fmt: skip


def by_advantages(
    theta: Tensor, episodes: Episodes, *, trace: float, table: Tensor, tail: bool
) -> Tensor:
    """Σ_t γ^t A_t log π / K, with generalized advantages."""
    values = state_values(episodes, table)
    last = table[episodes.last_observations[:, 0].long().clamp(min=0)] if tail else 0.0
    advantages = generalized_advantages(episodes, values, last, discount=DISCOUNT, trace=trace)
    weights = loss.discount_weights(advantages, DISCOUNT).expand_as(advantages)
    alive = episodes.alive
    log_probs = mdp.policy(theta)(episodes.observations[alive]).log_prob(episodes.actions[alive])
    return -((weights * advantages)[alive] * log_probs).sum() / alive.shape[1]


def test_any_critic_is_a_baseline() -> None:
    found = expected_gradient(3, 2, with_critic)
    assert torch.allclose(found, truth_of_horizon(3), atol=1e-12, rtol=0)


def test_generalized_advantages_tell_truncated_from_terminated() -> None:
    def gradient(**options: Any) -> Tensor:
        return expected_gradient(3, 2, lambda th, e: by_advantages(th, e, **options))

    # λ = 1: any V, with the limit in the objective
    found = gradient(trace=1.0, table=ARBITRARY, tail=False)
    assert torch.allclose(found, truth_of_horizon(3), atol=1e-12, rtol=0)
    # any λ: the policy's true V, continued behind a cut and 0 behind an end
    true_values = torch.stack(mdp.values(THETA)).detach()
    for trace in (0.0, 0.7, 1.0):
        found = gradient(trace=trace, table=true_values, tail=True)
        assert torch.allclose(found, truth_of_first_decisions(3), atol=1e-12, rtol=0)
    wrong = gradient(trace=0.7, table=true_values, tail=False)  # a cut taken for an end
    assert float((wrong - truth_of_first_decisions(3)).norm()) > 0.01


def test_shapes_of_values_and_of_the_ratio_loss() -> None:
    cut = one_step(torch.zeros(1, 4), truncated=torch.ones(4, dtype=torch.bool))
    with pytest.raises(EstimatorError, match=r"values \(1, 4, 1\).*squeeze\(-1\)"):
        generalized_advantages(cut, torch.zeros(1, 4, 1), 0.0)
    with pytest.raises(InputError, match=r"trace=1\.5"):
        generalized_advantages(cut, torch.zeros(1, 4), 0.0, trace=1.5)
    q = D.Categorical(logits=torch.zeros(4, 2, requires_grad=True))
    with pytest.raises(EstimatorError, match=r"advantages has shape \(4, 1\); expected \(4,\)"):
        clipped_ratio_loss(q, torch.zeros(4), torch.zeros(4), torch.zeros(4, 1))


def test_the_ratio_loss_is_the_policy_gradient_at_the_old_policy() -> None:
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    q = D.Categorical(logits=logits)
    actions, advantages = torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6.0).double() - 2
    value = clipped_ratio_loss(q, actions, q.log_prob(actions).detach(), advantages)
    plain = -(advantages * q.log_prob(actions)).mean()
    found, truth = (torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (value, plain))
    torch.testing.assert_close(found, truth, atol=1e-14, rtol=0)


def test_shapes_and_numbers_that_would_spoil_a_policy_gradient() -> None:
    with pytest.raises(EstimatorError, match=r"\(2, 3, 1\): expected \[time, episode\]"):
        baselines.per_time_leave_one_out(torch.zeros(2, 3, 1))
    with pytest.raises(EstimatorError, match=r"\(2, 3\) and alive \(3, 2\)"):
        baselines.per_time_leave_one_out(torch.zeros(2, 3), torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(EstimatorError, match=r"policy returned a Tensor.*Categorical"):
        loss.log_probs_of(torch.zeros(2), torch.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"reward of step 1 of episode 0 is nan"):
        Episodes(
            observations=torch.zeros(2, 1, 1), actions=torch.zeros(2, 1),
            rewards=torch.tensor([[1.0], [torch.nan]]), alive=torch.ones(2, 1, dtype=torch.bool),
            truncated=torch.tensor([False]), last_observations=torch.zeros(1, 1),
        )  # fmt: skip


def test_baselines_do_not_read_behind_an_end() -> None:
    returns = torch.tensor([[1.0, 2.0], [torch.nan, 3.0]])
    alive = torch.tensor([[True, True], [False, True]])
    assert baselines.per_time_leave_one_out(returns, alive).tolist() == [[2.0, 1.0], [3.0, 0.0]]
