from pathlib import Path

import numpy as np
import pytest
import torch

from thetaone.cli.main import main
from thetaone.errors import InputError
from thetaone.estimators import make_environments
from thetaone.records import PolicyRun
from thetaone.studies import ActorCriticSettings, train_actor_critic, train_policy


def test_command_prints_a_curve_and_writes_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, picture = tmp_path / "run.json", tmp_path / "curve.png"
    line = f"policy cartpole --env-steps 6000 --width 16 --output {path} --plot {picture}".split()
    with pytest.raises(SystemExit, match=r"^0$"):
        main(line)
    printed = capsys.readouterr().out
    run = PolicyRun.from_json(path)
    assert f"{run.last_mean():.1f}" in printed
    assert run.env_steps <= 6000
    assert sum(run.returns) <= run.env_steps  # waiting environments are paid for too
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("policy pong", "gymnasium cannot make 'pong'"),
        ("policy Pendulum-v1 --env-steps 100", "env_steps=100: the first 16 episodes took 3200"),
        ("policy Blackjack-v1", "it has no time limit of its own"),
        ("policy cartpole --lr 0", "lr=0.0: must be a positive number"),
        ("policy cartpole --width 0", "width=0"),
        ("policy cartpole --width 99999", "width=99999: the hidden layers of a policy"),
        (f"policy Acrobot-v1 --width 1{'0' * 40}", "need whole numbers"),
        ("policy Acrobot-v1 --lr nan", "lr=nan: need a rate above 0"),
        ("policy Acrobot-v1 --discount 1.5", "discount=1.5: need a factor above 0, at most 1"),
        ("policy cartpole --env-steps 3", "env_steps=3: the first 16 episodes took"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(line.split())
    assert message in capsys.readouterr().err


def test_same_seed_same_returns() -> None:
    runs = [train_policy(seed=seed, env_steps=3000, width=16).returns for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_infinite_rate() -> None:
    with pytest.raises(InputError, match="lr=inf"):
        train_policy(lr=float("inf"))


@pytest.mark.slow
def test_cartpole_is_solved_by_four_seeds_of_five() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        runs = [train_policy(seed=seed) for seed in range(5)]
    finally:
        torch.set_num_threads(threads)
    assert all(run.env_steps <= 300_000 for run in runs)
    assert sum(run.last_mean() >= 475 for run in runs) >= 4


def test_any_environment_by_its_id_reproducibly() -> None:
    settings = ActorCriticSettings(width=8, passes=1)
    runs = [
        train_actor_critic(name, seed=seed, env_steps=steps, settings=settings).returns
        for name, steps in (("Pendulum-v1", 6400), ("Acrobot-v1", 9000))
        for seed in (0, 0, 1)
    ]
    for first, same, other in (runs[:3], runs[3:]):
        assert first == same
        assert first != other


def test_actions_of_arrays_are_rescaled_and_clipped() -> None:
    environments = make_environments("Pendulum-v1", 2)  # torques of ±2
    environments.reset(seed=0)
    inner = [env.unwrapped for env in environments.envs]
    environments.step(np.array([[0.5], [3.0]], dtype=np.float32))
    assert [env.last_u for env in inner] == [1.0, 2.0]
