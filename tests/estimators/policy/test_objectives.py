"""Named objectives of group policy losses against exact enumeration, and TRL's beside ours."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import thetaone as t1
from thetaone.errors import EstimatorError, InputError
from thetaone.estimators.policy import (
    GroupAdvantages,
    ObjectiveSettings,
    audit,
    gradient_noise,
    group_advantages,
    group_policy_loss,
    kl_term,
    objective_of,
    standardized_multiplier,
)
from thetaone.estimators.policy.objectives import _token_loss
from thetaone.estimators.policy.objectives._toy import (
    MASK,
    expected_gradient,
    named_gradient,
    token_log_probs,
    toy,
)
from thetaone.records import ObjectiveAudit

TOY = toy()
BANDIT = torch.tensor([0.3, -0.5, 0.8, 0.1, -1.0], dtype=torch.float64)
REFERENCE = torch.tensor([-0.2, 0.4, 0.1, 0.6, 0.0], dtype=torch.float64)


def gradient_of(objective: Callable[[Tensor], Tensor]) -> Tensor:
    logits = BANDIT.clone().requires_grad_()
    return torch.autograd.grad(objective(logits), logits)[0]


def kl(first: Tensor, second: Tensor) -> Tensor:
    return (first.softmax(0) * (first.log_softmax(0) - second.log_softmax(0))).sum()


REVERSE = gradient_of(lambda logits: kl(logits, REFERENCE))
FORWARD = gradient_of(lambda logits: kl(REFERENCE, logits))
HALF_SQUARE = gradient_of(
    lambda logits: (
        logits.softmax(0) * (logits.log_softmax(0) - REFERENCE.log_softmax(0)) ** 2 / 2
    ).sum()
)
TRUTHS: dict[tuple[str, str, bool], Tensor] = {
    ("k1", "loss", False): torch.zeros(5, dtype=torch.float64),
    ("k2", "loss", False): REVERSE,
    ("k3", "loss", False): FORWARD,
    ("k1", "reward", False): REVERSE,
    ("k2", "reward", False): HALF_SQUARE - REVERSE,
    ("k3", "reward", False): REVERSE - FORWARD,
    ("k1", "loss", True): REVERSE,
    ("k2", "loss", True): HALF_SQUARE,
    ("k3", "loss", True): REVERSE,
}


def mean_gradient_of_the_term(kind: Any, place: Any, weighted: bool) -> Tensor:
    """E over one sampled token of the gradient that the term gives."""
    total = torch.zeros(5, dtype=torch.float64)
    for outcome, chance in enumerate(BANDIT.softmax(0)):
        logits = BANDIT.clone().requires_grad_()
        log_prob = logits.log_softmax(0)[outcome].view(1, 1)
        reference = REFERENCE.log_softmax(0)[outcome].view(1, 1)
        term = kl_term(log_prob, reference, kind=kind, place=place, weighted=weighted).values
        surrogate = term if place == "loss" else term * log_prob
        total += chance * torch.autograd.grad(surrogate.sum(), logits)[0]
    return total


@pytest.mark.parametrize(("kind", "place", "weighted"), list(TRUTHS))
def test_the_truth_table_of_the_kls(kind: str, place: str, weighted: bool) -> None:
    found = mean_gradient_of_the_term(kind, place, weighted)
    torch.testing.assert_close(found, TRUTHS[kind, place, weighted], atol=1e-12, rtol=0)


def test_k2_in_the_reward_is_far_from_the_kl() -> None:
    off = mean_gradient_of_the_term("k2", "reward", False) - REVERSE
    assert float(off.abs().max()) > 0.05


def all_settings() -> list[ObjectiveSettings]:
    kls: list[dict[str, Any]] = [{}] + [
        {"kl_kind": kind, "kl_place": place, "kl_weighted": weighted, "kl_coefficient": 0.3}
        for kind in ("k1", "k2", "k3")
        for place, weighted in (("loss", False), ("loss", True), ("reward", False))
    ]
    return [
        ObjectiveSettings(
            advantage=advantage, aggregation=aggregation, group_size=2,
            epsilon=1e-4 if advantage == "group-std" else 0.0, entropy_weight=0.2, **kl_options,
        )
        for advantage in ("none", "leave-one-out", "mean", "group-std")
        for aggregation in ("sequence-sum", "sequence-mean", "constant", "token-mean")
        for kl_options in kls
    ]  # fmt: skip


@pytest.mark.parametrize(
    "settings_of", [lambda: all_settings()[::5], pytest.param(all_settings, marks=pytest.mark.slow)]
)
def test_every_named_objective_is_exact_when_it_says_so_and_only_then(
    settings_of: Callable[[], list[ObjectiveSettings]],
) -> None:
    for settings in settings_of():
        off = expected_gradient(settings, TOY) - named_gradient(settings, TOY)
        exact = objective_of(settings).exact
        assert (float(off.abs().max()) < 1e-12) == exact, settings


@pytest.mark.parametrize("group_size", [2, 3, 5])
@pytest.mark.parametrize("kind", ["leave-one-out", "mean", "group-std", "none"])
def test_groups_of_several_sizes(kind: Any, group_size: int) -> None:
    settings = ObjectiveSettings(advantage=kind, group_size=group_size)
    found, named = expected_gradient(settings, TOY), named_gradient(settings, TOY)
    torch.testing.assert_close(found, named, atol=1e-12, rtol=0)


def test_what_std_multiplies_the_gradient_with() -> None:
    table = [standardized_multiplier(p, 8) for p in (0.5, 0.1, 0.02)]
    assert table == pytest.approx([1.74, 2.18, 2.41], abs=0.005)
    for size, limit in ((4, 1.50), (16, 3.75), (64, 7.88)):  # p → 0: √G (1 − 1/G)
        assert standardized_multiplier(1e-9, size) == pytest.approx(limit, abs=0.01)
        assert limit == pytest.approx(math.sqrt(size) * (1 - 1 / size), abs=0.01)
    assert standardized_multiplier(0.3, 400) == pytest.approx(
        standardized_multiplier(0.3, math.inf),
        rel=0.01,
    )
    assert standardized_multiplier(0.02, math.inf) == pytest.approx(7.14, abs=0.01)


# planted faults: a loss that claims E[R] (or E[R] − β·KL) and ascends something else


def expected_of(loss: Callable[[Tensor, Tensor], Tensor], group_size: int) -> Tensor:
    """E over groups of minus the gradient of a loss of (log-probabilities, rewards)."""
    chances = token_log_probs(TOY.logits, torch.arange(4)).sum(1).exp()
    total = torch.zeros_like(TOY.logits)
    for chosen in itertools.product(range(4), repeat=group_size):
        index = torch.tensor(chosen)
        logits = TOY.logits.clone().requires_grad_()
        value = loss(token_log_probs(logits, index), index)
        total -= float(chances[index].prod()) * torch.autograd.grad(value, logits)[0]
    return total


def claimed(
    log_probs: Tensor, index: Tensor, *, values: GroupAdvantages | None = None, **options: Any
) -> Tensor:
    made = values or group_advantages(TOY.rewards[index][None])
    defaults: dict[str, Any] = {"aggregation": "sequence-sum"}
    return group_policy_loss(log_probs, made, MASK[index], **defaults | options).value


def own_mean(log_probs: Tensor, index: Tensor) -> Tensor:
    return claimed(log_probs, index, values=group_advantages(TOY.rewards[index][None], "mean"))


def over_std(log_probs: Tensor, index: Tensor) -> Tensor:
    return claimed(log_probs, index, values=group_advantages(TOY.rewards[index][None], "group-std"))


def over_length(log_probs: Tensor, index: Tensor) -> Tensor:
    return claimed(log_probs, index, aggregation="sequence-mean")


def kl_loss(kind: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(log_probs: Tensor, index: Tensor) -> Tensor:
        reference = token_log_probs(TOY.reference_logits, index)
        term = kl_term(log_probs, reference, kind=kind, place="loss")
        return claimed(log_probs, index, kl=term, kl_coefficient=0.3)

    return loss


PLAIN = ObjectiveSettings(group_size=2)
WITH_KL = replace(PLAIN, kl_kind="k1", kl_place="reward", kl_coefficient=0.3)
FAULTS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], ObjectiveSettings]] = {
    "k1 loss": (kl_loss("k1"), WITH_KL),
    "k3 loss": (kl_loss("k3"), WITH_KL),
    "÷std": (over_std, PLAIN),
    "own mean": (own_mean, PLAIN),
    "÷length": (over_length, PLAIN),
}


@pytest.mark.parametrize("name", list(FAULTS))
def test_a_planted_fault_fails(name: str) -> None:
    loss, intended = FAULTS[name]
    assert objective_of(intended).exact
    truth = named_gradient(intended, TOY)
    off = (expected_of(loss, 2) - truth).norm() / truth.norm()
    assert float(off) > 0.02
    if intended is PLAIN:
        sound = (expected_of(claimed, 2) - truth).norm() / truth.norm()
        assert float(sound) < 1e-12


def test_a_group_of_one_is_named() -> None:
    with pytest.raises(EstimatorError, match=r"groups of 1: kind='leave-one-out' compares"):
        group_advantages(torch.ones(4, 1))
    assert objective_of(ObjectiveSettings(group_size=1)).formula == "0"
    assert group_advantages(torch.ones(4, 1), "none").values.tolist() == [[1.0]] * 4


def test_names_and_formulas() -> None:
    def formula(**settings: Any) -> str:
        return objective_of(ObjectiveSettings(**settings)).formula

    assert formula() == "E[R]"
    assert formula(advantage="mean", group_size=4) == "3/4·E[R]"
    assert formula(advantage="group-std", group_size=8) == "C_8(p)"
    assert formula(aggregation="sequence-mean") == "E[(R − E R)/|o|]"
    assert formula(aggregation="constant") == "E[R/L]"
    beta: dict[str, Any] = {"kl_coefficient": 0.1}
    assert formula(kl_kind="k1", kl_place="reward", **beta) == "E[R] − 0.1·KL(π‖ρ)"
    assert formula(kl_kind="k1", kl_place="loss", **beta) == "E[R] − 0"
    assert "KL(ρ‖π)" in formula(kl_kind="k3", kl_place="loss", **beta)
    assert "E[1/|o|]" in formula(kl_kind="k1", kl_place="loss", aggregation="sequence-mean", **beta)
    grpo = objective_of(ObjectiveSettings(advantage="group-std"))
    assert "arcsin" in grpo.name
    assert not objective_of(ObjectiveSettings(updates_per_batch=4)).exact


def test_degenerate_groups_are_named() -> None:
    made = group_advantages(torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), "group-std")
    assert made.degenerate.tolist() == [False, True, True]
    assert made.values[1:].abs().max() == 0
    assert "2 of 3 groups have equal rewards, first group 1" in made.warning


def test_effective_samples_fall_off_policy() -> None:
    made = group_advantages(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    log_probs = torch.zeros(4, 2, requires_grad=True)
    mask = torch.ones(4, 2, dtype=torch.bool)
    assert group_policy_loss(log_probs, made, mask).effective_samples == pytest.approx(4)
    old = torch.tensor([[0.0, -3.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    weights = torch.tensor([math.exp(3), 1, 1, 1])
    expected = float(weights.sum() ** 2 / (weights**2).sum())
    found = group_policy_loss(log_probs, made, mask, old_log_probs=old).effective_samples
    assert found == pytest.approx(expected, rel=1e-5)


def test_the_ratio_is_clipped_where_it_would_help_itself() -> None:
    made = group_advantages(torch.tensor([[1.0, 0.0]]))
    mask = torch.ones(2, 1, dtype=torch.bool)
    for shift, gradient in ((0.5, [0.0, 0.0]), (0.0, [-0.5, 0.5])):
        log_probs = torch.tensor([[shift], [-shift]], requires_grad=True)
        loss = group_policy_loss(
            log_probs, made, mask, old_log_probs=torch.zeros(2, 1), clip=(0.2, 0.2)
        )
        (found,) = torch.autograd.grad(loss.value, log_probs)
        assert found.flatten().tolist() == pytest.approx(gradient)


def test_the_noise_of_a_gradient_against_its_definition() -> None:
    g = torch.Generator().manual_seed(0)
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    rows = torch.randn(6, 3, generator=g, dtype=torch.float64) + 1
    found = gradient_noise(rows @ theta, [theta])
    mean, variance = rows.mean(0), rows.var(0).sum()
    assert found.norm == pytest.approx(float(mean.norm()))
    assert found.stderr == pytest.approx(float((variance / 6).sqrt()))
    signal = float((mean**2).sum() - variance / 6)
    assert found.noise_scale == pytest.approx(float(variance) / signal)
    with pytest.raises(EstimatorError, match="losses of at least 2 groups"):
        gradient_noise((rows @ theta)[:1], [theta])


def test_shapes_that_would_broadcast() -> None:
    made = group_advantages(torch.tensor([[1.0, 0.0]]))
    mask = torch.ones(2, 3, dtype=torch.bool)
    good = torch.zeros(2, 3, requires_grad=True)
    with pytest.raises(EstimatorError, match=r"log_probs has shape \(2, 1\); expected \(2, 3\)"):
        group_policy_loss(good[:, :1], made, mask)
    with pytest.raises(EstimatorError, match=r"mask is torch.float32"):
        group_policy_loss(good, made, mask.float())
    with pytest.raises(EstimatorError, match="a completion has no token"):
        group_policy_loss(good, made, torch.tensor([[True] * 3, [False] * 3]))
    with pytest.raises(EstimatorError, match=r"expected \[groups, completions a group\]"):
        group_advantages(torch.ones(4))
    with pytest.raises(EstimatorError, match="would broadcast"):
        kl_term(good, torch.zeros(2, 1))
    with pytest.raises(EstimatorError, match="kl has place='reward'"):
        group_policy_loss(good, made, mask, kl=kl_term(good, good.detach()), kl_coefficient=0.1)
    with pytest.raises(InputError, match="aggregation='median'"):
        ObjectiveSettings(aggregation="median")  # pyright: ignore[reportArgumentType]


# the audit


def test_rloo_is_what_it_is_meant_to_be() -> None:
    found = audit({"beta": 0.05, "num_generations": 4}, trainer="rloo")
    assert found.formula == "E[R] − 0.05·KL(π‖ρ)"
    assert found.exact
    assert found.intended
    assert found.toy_error < 1e-12
    assert found.toy_cosine == pytest.approx(1, abs=1e-12)


def test_grpos_defaults_are_named_with_what_to_change() -> None:
    found = audit({}, trainer="grpo")
    assert found.formula == "C_8(p)/E|o|"
    assert not found.exact
    changes = {change.setting: change.to for change in found.changes}
    assert changes == {"scale_rewards": "none", "loss_type": "dr_grpo"}
    repaired = audit({"num_generations": 8} | changes, trainer="grpo")
    assert repaired.formula == "7/8·E[R/L]"
    assert repaired.intended
    assert repaired.toy_error < 1e-12
    assert repaired.toy_cosine == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "formula", "to_change"),
    [
        ({"loss_type": "grpo", "scale_rewards": "none"}, "7/8·E[(R − E R)/|o|]", {"loss_type"}),
        (
            {"beta": 0.1, "loss_type": "dr_grpo", "scale_rewards": False},
            "7/8·E[R/L] − 0.1·Σ_t KL(π‖ρ)/L in the states visited, whose law is held fixed", set(),
        ),
        (
            {
                "algorithm": {"adv_estimator": "grpo", "norm_adv_by_std_in_grpo": False},
                "actor_rollout_ref": {
                    "rollout": {"n": 4},
                    "actor": {"loss_agg_mode": "seq-mean-token-sum", "ppo_mini_batch_size": 1024},
                },
            },
            "3/4·E[R]", set(),
        ),
        (
            {"algorithm": {"adv_estimator": "rloo"}, "actor_rollout_ref": {"rollout": {"n": 1}}},
            "E[R/E|o|]",
            {"actor_rollout_ref.rollout.n", "actor_rollout_ref.actor.loss_agg_mode"},
        ),
    ],
)  # fmt: skip
def test_formulas_of_trainers(options: dict[str, Any], formula: str, to_change: set[str]) -> None:
    found = audit(options)
    assert found.formula == formula
    assert {change.setting for change in found.changes} == to_change


def test_settings_that_nobody_has() -> None:
    with pytest.raises(InputError, match=r"cannot be told from their names \(lr\)"):
        audit({"lr": 1.0})
    with pytest.raises(InputError, match="loss_type='median' is not known here; known: grpo"):
        audit({"loss_type": "median"})
    with pytest.raises(
        InputError, match="adv_estimator='gae': what it ascends depends on a critic"
    ):
        audit({"algorithm": {}})
    both = {
        "algorithm": {"adv_estimator": "grpo", "use_kl_in_reward": True},
        "actor_rollout_ref": {"rollout": {"n": 4}, "actor": {"use_kl_loss": True}},
    }
    with pytest.raises(InputError, match="both on: audit one at a time"):
        audit(both)
    with pytest.raises(InputError, match="args is a int"):
        audit(3)


def test_a_file_and_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from thetaone.cli.main import main

    path = tmp_path / "config.yaml"
    path.write_text("beta: 0.05\nnum_generations: 4\nnormalize_advantages: false\n")
    assert audit(path).trainer == "TRL RLOOTrainer"
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["audit", str(path), "--json"])
    again = ObjectiveAudit.from_json(capsys.readouterr().out)
    assert again == t1.estimators.policy.audit(path)
    text = str(again)
    assert "E[R] − 0.05·KL(π‖ρ)" in text
    assert "nothing to change" in text
    path.write_text("- 1\n")
    with pytest.raises(InputError, match="holds a list; expected settings by name"):
        audit(path)
    path.write_text("a: [1\n")
    with pytest.raises(InputError, match="is not YAML"):
        audit(path)
    with pytest.raises(InputError, match=r"cannot be read: .*No such file"):
        audit(tmp_path / "other.yaml")


# TRL's own losses


def trl_gradient(
    trainer: Any, loss_type: str, index: Tensor, made: Tensor, **options: Any
) -> Tensor:
    """Gradient of TRL's loss on one group of the toy, by the logits."""
    logits = TOY.logits.clone().requires_grad_()
    mask = MASK[index].long()
    log_probs = token_log_probs(logits, index)
    reference = token_log_probs(TOY.reference_logits, index)
    beta = options.pop("beta", 0.0)
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x,
        gather_for_metrics=lambda x: x, sync_gradients=True,
    )  # fmt: skip
    stand_in = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *a, **k: (
            log_probs, torch.zeros_like(log_probs), None,
        ),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="token", beta=beta, loss_type=loss_type, epsilon_low=0.2,
        epsilon_high=0.2, use_vllm=False, accelerator=accelerator, max_completion_length=3,
        current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
        model=SimpleNamespace(training=True),
        args=SimpleNamespace(delta=None, steps_per_generation=1, **options),
        _metrics={"train": __import__("collections").defaultdict(list)},
    )  # fmt: skip
    inputs = {
        "prompt_ids": mask[:, :1], "prompt_mask": mask[:, :1], "completion_ids": mask,
        "completion_mask": mask, "advantages": made, "ref_per_token_logps": reference,
        "old_logps": (log_probs * mask).sum(1).detach(), "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    loss = trainer._compute_loss(stand_in, None, inputs)
    return torch.autograd.grad(loss, logits)[0]


def ours(index: Tensor, made: GroupAdvantages, aggregation: Any, **kl_options: Any) -> Tensor:
    logits = TOY.logits.clone().requires_grad_()
    log_probs = token_log_probs(logits, index)
    beta = kl_options.pop("beta", 0.0)
    term = None
    if beta:
        reference = token_log_probs(TOY.reference_logits, index)
        term = kl_term(log_probs, reference, kind="k3", place="loss", **kl_options)
    loss = group_policy_loss(
        log_probs, made, MASK[index], aggregation=aggregation, kl=term, kl_coefficient=beta
    )
    return torch.autograd.grad(loss.value, logits)[0]


@pytest.mark.parametrize(
    ("loss_type", "aggregation"),
    [("grpo", "sequence-mean"), ("bnpo", "token-mean"), ("dapo", "token-mean"),
     ("dr_grpo", "constant"), ("luspo", "sequence-sum")],
)  # fmt: skip
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.slow  # TRL takes ten seconds to load
@pytest.mark.filterwarnings("ignore")
def test_trls_loss_is_the_one_that_the_audit_names(
    loss_type: str, aggregation: str, weighted: bool
) -> None:
    trl = pytest.importorskip("trl")
    for chosen in ((0, 1, 3), (2, 2, 0), (1, 0, 2)):
        index = torch.tensor(chosen)
        made = group_advantages(TOY.rewards[index][None], "group-std")
        theirs = trl_gradient(
            trl.GRPOTrainer, loss_type, index, made.values[0], beta=0.3,
            use_bias_correction_kl=weighted,
        )  # fmt: skip
        mine = ours(index, made, aggregation, beta=0.3, weighted=weighted)
        torch.testing.assert_close(theirs, mine, atol=1e-12, rtol=0)


@pytest.mark.slow  # TRL takes ten seconds to load
@pytest.mark.filterwarnings("ignore")
def test_trls_rloo_loss_too() -> None:
    trl = pytest.importorskip("trl")
    index = torch.tensor([0, 2, 3, 1])
    made = group_advantages(TOY.rewards[index][None])
    theirs = trl_gradient(trl.RLOOTrainer, "", index, made.values[0])
    torch.testing.assert_close(theirs, ours(index, made, "sequence-sum"), atol=1e-12, rtol=0)


@pytest.mark.slow  # TRL takes ten seconds to load
@pytest.mark.filterwarnings("ignore")
def test_trls_configs_are_read(tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    grpo = audit(trl.GRPOConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True))
    assert grpo.formula == audit({}, trainer="grpo").formula
    rloo = audit(trl.RLOOConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, beta=0.1))
    assert rloo.formula == "E[R] − 0.1·KL(π‖ρ)"


def test_a_sequence_ratio_is_one_ratio_a_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    index = torch.tensor([0, 2])
    made = group_advantages(TOY.rewards[index][None])
    logits = TOY.logits.clone().requires_grad_()
    log_probs = token_log_probs(logits, index)
    old = log_probs.detach() - torch.tensor([[0.1], [0.05]], dtype=torch.float64) * MASK[index]
    loss = _token_loss.group_policy_loss(
        log_probs, made, MASK[index], old_log_probs=old, sequence_ratio=True,
        aggregation="sequence-sum",
    )  # fmt: skip
    ratio = ((log_probs - old) * MASK[index]).sum(1).exp()
    expected = -(ratio * made.values[0]).mean()
    assert loss.value.item() == pytest.approx(expected.item(), abs=1e-14)
    for found, truth in zip(
        torch.autograd.grad(loss.value, logits, retain_graph=True),
        torch.autograd.grad(expected, logits), strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(found, truth, atol=1e-14, rtol=0)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_kl_behind_the_end_has_no_gradient(kind: Any, weighted: bool) -> None:
    log_probs = torch.tensor([[-1.0, -math.inf], [-2.0, math.nan]], requires_grad=True)
    term = kl_term(
        log_probs, torch.full((2, 2), -1.5), kind=kind, place="loss", weighted=weighted
    )  # fmt: skip
    assert not torch.isfinite(term.values[:, 1]).any()  # it is not hidden inside a completion
    (gradient,) = torch.autograd.grad(term.values[:, 0].sum(), log_probs)
    assert gradient[:, 1].tolist() == [0.0, 0.0]
