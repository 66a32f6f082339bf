"""Policies on Dict, MultiDiscrete and other spaces, and on the user's own environment."""

from itertools import product
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import Bernoulli, Categorical, Distribution, Independent

from thetaone.cli.main import main
from thetaone.errors import InputError, TaskError
from thetaone.estimators import collect_episodes, make_environments
from thetaone.records import PolicyRun
from thetaone.studies import ActorCriticSettings, train_actor_critic
from thetaone.studies.policies._actor import Actor, SideBySide
from thetaone.studies.policies._flat_environments import FlatEnvironments, leaves

OBSERVED = spaces.Dict(
    {
        "code": spaces.MultiDiscrete([3, 2]),
        "level": spaces.Box(-1, 1, (1,), np.float32),
        "pair": spaces.Tuple((spaces.Discrete(3, start=5), spaces.MultiBinary(2))),
    }
)
ACTED = spaces.Dict(
    {
        "bits": spaces.MultiBinary(2),
        "code": spaces.MultiDiscrete([3, 2]),
        "move": spaces.Box(-2, 4, (1,), np.float32),
        "which": spaces.Discrete(3, start=5),
    }
)


class Echo(gymnasium.Env[Any, Any]):
    """Rewards an action that repeats what was seen; keeps its actions."""

    observation_space, action_space = OBSERVED, ACTED

    def __init__(self) -> None:
        self.acted: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._draw(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.acted.append(action)
        which, bits = self.seen["pair"]
        reward = float((action["code"] == self.seen["code"]).mean()) + (action["which"] == which)
        reward += float((action["bits"] == bits).mean()) - abs(float(action["move"][0]) - 1) / 3
        return self._draw(), float(reward), False, False, {}

    def _draw(self) -> Any:
        chance = self.np_random
        self.seen = {
            "code": chance.integers([3, 2]),
            "level": chance.uniform(-1, 1, 1).astype(np.float32),
            "pair": (5 + chance.integers(3), chance.integers(0, 2, 2).astype(np.int8)),
        }
        return self.seen


def echo() -> Any:
    return gymnasium.wrappers.TimeLimit(Echo(), 20)


def test_an_observation_is_one_vector() -> None:
    environments = FlatEnvironments(make_environments(echo, 2))
    seen, _ = environments.reset(seed=3)
    assert environments.n_observed == seen.shape[1] == 3 + 2 + 1 + 3 + 2
    for row, inner in zip(seen, environments.envs, strict=True):
        raw = inner.unwrapped.seen
        code = [np.eye(n)[i] for n, i in zip((3, 2), raw["code"], strict=True)]
        which, bits = raw["pair"]
        np.testing.assert_allclose(row, [*code[0], *code[1], *raw["level"], *np.eye(3)[which - 5],
                                         *bits])  # fmt: skip


def test_a_vector_is_the_action_of_every_part() -> None:
    environments = FlatEnvironments(make_environments(echo, 2))
    environments.reset(seed=0)
    #                          bits  code  move  which
    environments.step(np.array([[0, 1, 2, 0, 0.5, 2], [1, 1, 0, 1, -7.0, 0]]))
    first, second = (inner.unwrapped.acted[-1] for inner in environments.envs)
    assert first["bits"].tolist() == [0, 1]
    assert first["code"].tolist() == [2, 0]
    assert int(first["which"]) == 5 + 2
    assert first["move"] == pytest.approx(2.5)  # half way from the middle, 1, to 4
    assert second["move"] == pytest.approx(-2)  # clipped
    assert int(second["which"]) == 5


def test_the_last_observation_is_seen_in_every_autoreset_mode() -> None:
    modes = gymnasium.vector.AutoresetMode
    lasts = []
    for mode in (modes.NEXT_STEP, modes.SAME_STEP):
        vector = gymnasium.vector.SyncVectorEnv([echo] * 2, autoreset_mode=mode)
        environments = FlatEnvironments(vector)
        actor = Actor(environments.n_observed, environments.action_leaves, 4)
        generator = torch.Generator().manual_seed(0)
        episodes = collect_episodes(environments, actor, seed=1, generator=generator)
        lasts.append(episodes.last_observations)
        assert episodes.actions.shape == (20, 2, 6)
    assert torch.equal(*lasts)


def test_joint_choices_are_a_law_with_its_entropy() -> None:
    space = spaces.Dict({"a": spaces.MultiDiscrete([3, 2]), "b": spaces.MultiBinary(1)})
    actor = Actor(2, leaves(space), 4).double()
    with torch.no_grad():
        policy = actor(torch.randn(1, 2, dtype=torch.float64))
    outcomes = torch.tensor([*product(range(3), range(2), range(2))], dtype=torch.float64)
    log_p = torch.stack([policy.log_prob(row[None])[0] for row in outcomes])
    assert float(log_p.exp().sum()) == pytest.approx(1)
    assert float(policy.entropy()[0]) == pytest.approx(float(-(log_p.exp() * log_p).sum()))
    assert policy.sample().shape == (1, 3)
    assert float(policy.sample((500,))[..., 1].max()) == 1  # never the option that it lacks


def test_side_by_side_is_the_sum_of_its_parts() -> None:
    parts: list[Distribution] = [
        Independent(Categorical(logits=torch.zeros(4, 2, 3)), 1),
        Independent(Bernoulli(logits=torch.ones(4, 1)), 1),
    ]
    joint = SideBySide(parts)
    x = joint.sample()
    expected = parts[0].log_prob(x[:, :2]) + parts[1].log_prob(x[:, 2:])
    torch.testing.assert_close(joint.log_prob(x), expected)


def test_a_dict_of_spaces_is_learned_reproducibly() -> None:
    settings = ActorCriticSettings(width=32, lr=1e-2)
    run = train_actor_critic(echo, env_steps=4500, settings=settings)
    assert run.task == "echo"
    assert run.updates[-1].mean_return > run.updates[0].mean_return + 8
    short = ActorCriticSettings(width=8, passes=1)
    first, same = (train_actor_critic(echo, env_steps=700, settings=short) for _ in range(2))
    assert first.returns == same.returns


FILE = """
import gymnasium

def make_environment():
    return gymnasium.make("CartPole-v1")
"""


def test_the_command_takes_a_file(tmp_path: Path) -> None:
    task, record = tmp_path / "balance.py", tmp_path / "run.json"
    task.write_text(FILE)
    with pytest.raises(SystemExit, match=r"^0$"):
        main(f"policy {task} --env-steps 2000 --width 8 --output {record}".split())
    run = PolicyRun.from_json(record)
    assert run.task == "balance"
    assert 0 < run.env_steps <= 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "give the path of an existing .py file"),
        ("x = 1", "has no function 'make_environment'; write: def make_environment"),
        ("def make_environment(): return 3", "make_environment returned 3: it has to return a"),
        (FILE.replace('CartPole-v1")', 'CartPole-v1").unwrapped'), "it has no time limit of its"),
    ],
)
def test_a_bad_file_is_one_line_and_code_2(
    text: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tmp_path / "mine.py"
    if text is not None:
        task.write_text(text)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["policy", str(task)])
    assert message in " ".join(capsys.readouterr().err.split())


def test_errors_have_their_types(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"existing \.py file"):
        train_actor_critic(tmp_path / "none.py")
    space = spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Text(5)})
    with pytest.raises(InputError, match=r"\['b'\] is Text.*Wrap the environment"):
        leaves(space)
