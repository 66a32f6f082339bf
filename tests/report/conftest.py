"""A transfer's result made up from formulas, with the shapes and sizes of a real one."""

import math
import random

import pytest

from thetaone.records import (
    ALIGNMENT,
    FEATURE_UPDATE,
    UPDATE_NORM,
    WEIGHT_NORM,
    Chain,
    CoordinateCheck,
    Cost,
    DirectSweepCost,
    Drift,
    EngineDecision,
    Frontier,
    FrontierPoint,
    GradientComparison,
    GroupRate,
    LawResult,
    LayerVerdict,
    LevelVerdict,
    MemoryAccount,
    OptimizerChoice,
    Optimum,
    PowerLaw,
    Prescription,
    Recipe,
    Region,
    Rule,
    Schedule,
    Stage,
    Standing,
    SweepResult,
    TargetMemory,
    Timeline,
    TrainingLoop,
    TransferResult,
    Trial,
    TrialSpec,
)

WIDTHS = (32, 64, 128)
LOG2_LRS = tuple(range(-12, -2))
VERTICES = {"mup": (-6.40, -6.54, -6.62), "sp": (-6.40, -7.53, -8.91)}
MIB = 2**20
N_STEPS = 100


def make_sweep(parametrization: str) -> SweepResult:
    draw = random.Random(7)
    vertices = VERTICES[parametrization]
    trials: list[Trial] = []
    optima: dict[int, Optimum] = {}
    for index, width in enumerate(WIDTHS):
        best = 2.62 - 0.11 * index * (1.0 if parametrization == "mup" else 0.55)
        for log2_lr in LOG2_LRS:
            for seed in (0, 1):
                octaves = log2_lr - vertices[index]
                loss = best + 0.045 * octaves**2 / (1 + 0.07 * abs(octaves)) + draw.gauss(0, 0.012)
                diverged = octaves > 3.6
                trials.append(
                    make_trial(parametrization, width, 2.0**log2_lr, seed, loss, diverged)
                )
        half = 0.09 + 0.02 * index
        optima[width] = Optimum(
            log2_lr=vertices[index],
            stderr=half / 2,
            interval=(vertices[index] - half, vertices[index] + half),
            loss=best,
        )
    octaves = vertices[-1] - vertices[0]
    return SweepResult(
        task="lm",
        parametrization=parametrization,
        optimizer="AdamW",
        base_width=32,
        trials=tuple(trials),
        engine=EngineDecision(
            engine="processes", n_processes=2, reason="two one-thread processes were 1.9× faster"
        ),
        optima=optima,
        drift=Drift(
            octaves=octaves,
            stderr=0.07,
            interval=(octaves - 0.14, octaves + 0.14),
            from_width=32,
            to_width=128,
        ),
        penalties={32: 0.0, 64: 0.0008, 128: 0.0021} if parametrization == "mup" else {64: 0.11},
        n_trained=60,
        n_reused=0,
        wall_seconds=44.0,
    )


def make_trial(
    parametrization: str, width: int, lr: float, seed: int, loss: float, diverged: bool
) -> Trial:
    draw = random.Random(seed)
    curve = [loss + (4.62 - loss) * math.exp(-step / 14) for step in range(N_STEPS)]
    noisy = [value + draw.gauss(0, 0.02) for value in curve]
    return Trial(
        spec=TrialSpec(rule=parametrization, width=width, lr=lr, seed=seed, n_steps=N_STEPS),
        losses=(*noisy[:12], math.nan) if diverged else tuple(noisy),
        status="diverged" if diverged else "finished",
        reason="loss is nan" if diverged else "",
        n_parameters=26 * width * width + 300 * width,
        cost_flops=6e6 * width * width,
        wall_seconds=0.4,
    )


LAYERS = (
    ("embed", "input", 0.01, 0.02),
    ("blocks.0.attention.query", "hidden", -0.02, 0.92),
    ("blocks.0.attention.value", "hidden", 0.03, 0.95),
    ("blocks.0.mlp.up", "hidden", 0.01, 0.98),
    ("blocks.0.mlp.down", "hidden", -0.01, 1.03),
    ("blocks.1.attention.query", "hidden", 0.02, 0.93),
    ("blocks.1.attention.value", "hidden", -0.03, 0.99),
    ("blocks.1.mlp.up", "hidden", 0.00, 1.01),
    ("blocks.1.mlp.down", "hidden", 0.02, 1.05),
    ("norm", "vector", 0.01, 0.01),
    ("head", "output", 0.02, 0.97),
)


def make_check(parametrization: str) -> CoordinateCheck:
    sizes = (32, 64, 128, 256)
    rows: list[LayerVerdict] = []
    for index, (layer, role, mup, sp) in enumerate(LAYERS):
        exponent = mup if parametrization == "mup" else sp
        for quantity in (FEATURE_UPDATE, WEIGHT_NORM, UPDATE_NORM, ALIGNMENT):
            slope = exponent if quantity == FEATURE_UPDATE else 0.01
            passed = abs(slope) < 0.25
            level = 0.05 * 1.25**index
            values = tuple(
                tuple(level * (1 + 0.04 * seed) * (size / 32) ** slope for size in sizes)
                for seed in range(2)
            )
            law = PowerLaw(
                exponent=slope,
                stderr=0.02,
                interval=(slope - 0.05, slope + 0.05),
                prefactor=level,
                n_points=8,
            )
            rows.append(
                LayerVerdict(
                    layer=layer,
                    role=role,
                    quantity=quantity,
                    step=3,
                    law=law,
                    band=(-0.1, 0.1),
                    values=values,
                    answer="holds" if passed else "fails",
                    cause="" if passed else "the learning rate does not fall with fan-in",
                )
            )
    return CoordinateCheck(
        task="lm",
        parametrization=parametrization,
        optimizer="AdamW",
        lr=2**-6.4,
        sizes=sizes,
        steps=(1, 3),
        seeds=2,
        rows=tuple(rows),
    )


def make_prescription() -> Prescription:
    rules = [Rule(name="embed.weight", role="input", shape=(97, 256), base_shape=(97, 32),
                  fan_in=1, fan_out=256, init_std=1.0, why="constant: input weights")]  # fmt: skip
    for block in range(4):
        for name, shape in (("attention.query", (256, 256)), ("mlp.up", (1024, 256))):
            rules.append(
                Rule(
                    name=f"blocks.{block}.{name}.weight",
                    role="hidden",
                    shape=shape,
                    base_shape=(shape[0] // 8, 32),
                    fan_in=256,
                    fan_out=shape[0],
                    base_fan_in=32,
                    init_std=0.0625,
                    init_factor=8**-0.5,
                    lr_factor=0.125,
                    decay_factor=8.0,
                    why="hidden: learning rate ∝ 1/fan_in",
                )
            )
    rules.append(Rule(name="head.weight", role="output", shape=(97, 256), base_shape=(97, 32),
                      fan_in=256, fan_out=97, base_fan_in=32, init_std=0.02, lr_factor=0.125,
                      why="output: init ∝ 1/fan_in, learning rate ∝ 1/fan_in"))  # fmt: skip
    return Prescription(optimizer="AdamW", rules=tuple(rules))


def make_memory() -> TargetMemory:
    stage = Stage(name="block", forward_seconds=0.012, backward_seconds=0.022,
                  output_bytes=MIB // 2, tape_bytes=8 * MIB)  # fmt: skip
    chain = Chain(
        input_bytes=MIB // 2,
        stages=tuple(stage.model_copy(update={"name": f"blocks.{i}"}) for i in range(6)),
    )
    timeline = make_timeline(chain)
    peak = max(timeline.live_bytes)
    seconds = timeline.starts[-1] + timeline.seconds[-1]
    points = tuple(
        FrontierPoint(
            label="optimal",
            total_seconds=0.204 + 0.012 * extra,
            peak_bytes=int((50 - 8.4 * extra) * MIB) if extra < 6 else int(7 * MIB),
            forwards=6 + extra,
            loads=min(extra, 2),
        )
        for extra in range(8)
        if extra != 6
    )
    chosen = FrontierPoint(
        label="chosen", total_seconds=seconds, peak_bytes=peak, forwards=9, loads=1
    )
    policies = tuple(
        FrontierPoint(
            label=label,
            total_seconds=0.204 + 0.012 * n,
            peak_bytes=b * MIB,
            forwards=6 + n,
            loads=n,
        )
        for label, n, b in (
            ("checkpoint_sequential 2", 3, 33), ("checkpoint_sequential 3", 4, 26),
            ("every block", 6, 14),
        )
    )  # fmt: skip
    schedule = Schedule(
        length=6, regions=(Region(start=0, stop=3),), total_seconds=seconds, peak_bytes=peak,
        forwards=9, loads=1, policy="optimal persistent", budget_bytes=31 * MIB,
    )  # fmt: skip
    account = MemoryAccount(
        budget_bytes=64 * MIB,
        weights_bytes=7 * MIB,
        gradients_bytes=7 * MIB,
        optimizer_bytes=14 * MIB,
        outside_bytes=5 * MIB,
        activation_budget_bytes=31 * MIB,
        predicted_peak_bytes=33 * MIB + peak,
        measured_peak_bytes=33 * MIB + peak - 200_000,
        store_all_bytes=83 * MIB,
    )
    return TargetMemory(
        task="text",
        width=256,
        chain=chain,
        frontier=Frontier(
            points=points,
            policies=policies,
            store_all_bytes=50 * MIB,
            floor_bytes=int(7 * MIB),
            chosen=chosen,
        ),
        schedule=schedule,
        cost=Cost(
            total_seconds=seconds,
            peak_bytes=peak,
            forwards=9,
            loads=1,
            peak_stage="blocks.3",
            timeline=timeline,
        ),
        weight_bytes=7 * MIB,
        gradient_bytes=7 * MIB,
        optimizer_bytes=14 * MIB,
        account=account,
        gradients=GradientComparison(n_tensors=28, n_equal=28, largest_difference=0.0),
    )


def make_timeline(chain: Chain) -> Timeline:
    """Blocks 0-2 without a tape, then run again when the backward reaches them."""
    order = [("forward", i) for i in range(3)] + [("tape", i) for i in range(3, 6)]
    order += [("backward", i) for i in (5, 4, 3)] + [("tape", i) for i in range(3)]
    order += [("backward", i) for i in (2, 1, 0)]
    starts, seconds, live, now, held = [], [], [], 0.0, 0.0
    for operation, stage in order:
        cost = chain.stages[stage]
        backward = operation == "backward"
        took = cost.backward_seconds if backward else cost.forward_seconds
        held += {"forward": 0.0, "tape": cost.tape_bytes, "backward": 0.0}[operation]
        starts.append(now)
        seconds.append(took)
        live.append(int(held + cost.output_bytes * (2 if backward else 1)))
        held -= cost.tape_bytes if backward else 0.0
        now += took
    return Timeline(
        operations=tuple(operation for operation, _ in order),
        stages=tuple(stage for _, stage in order),
        starts=tuple(starts),
        seconds=tuple(seconds),
        live_bytes=tuple(live),
    )


def make_laws() -> tuple[LawResult, ...]:
    entries = (
        ("feature-init", "E‖Wx‖²_RMS, d1=64", 64.0, 64.21, 0.31),
        ("feature-init", "E‖Wx‖²_RMS, d1=256", 256.0, 254.9, 0.9),
        ("sign-step", "E‖sign(g xᵀ)x‖²_RMS, d1=64", 2630.8, 2641.0, 9.0),
        ("score-function", "∇E x², µ=1", 2.0, 2.006, 0.008),
        ("pathwise", "∇E x², µ=1", 2.0, 1.9992, 0.0011),
        ("rematerialization", "forwards of 10 layers, keep every 5", 20.0, 20.0, 0.0),
    )
    return tuple(
        LawResult(name=name, title=name, quantity=quantity, predicted=predicted,
                  measured=measured, stderr=stderr, passed=True)
        for name, quantity, predicted, measured, stderr in entries
    )  # fmt: skip


def make_levels() -> tuple[LevelVerdict, ...]:
    """Two that hold, one undecided."""
    entries: tuple[tuple[str, float, float, float, float, Standing], ...] = (
        ("µP is as good as SP at its best", 2.41, 2.52, 0.01, 0.0252, "holds"),
        ("wider is better near the best rate", 2.60, 2.62, 0.015, 0.0, "undecided"),
        ("the target is better than its widest proxy", 2.31, 2.40, 0.01, 0.0, "holds"),
    )
    return tuple(
        LevelVerdict(
            claim=claim, what="width 128", against="SP", loss=loss, reference=reference,
            difference=loss - reference, stderr=stderr,
            interval=(loss - reference - 3 * stderr, loss - reference + 3 * stderr),
            tolerance=tolerance, verdict=verdict, advice="" if verdict == "holds" else "add seeds",
        )
        for claim, loss, reference, stderr, tolerance, verdict in entries
    )  # fmt: skip


def make_recipe() -> Recipe:
    """Plain AdamW with a schedule and clipping."""
    rules = tuple(
        rule.model_copy(update={"init_factor": 1.0, "lr_factor": 1.0, "decay_factor": 1.0})
        for rule in make_prescription().rules
    )
    return Recipe(
        task="lm", reference="lm", width=256, n_steps=N_STEPS, lr=2**-6.4,
        lr_interval=(2**-6.6, 2**-6.2), base_width=256,
        optimizers={"rest": OptimizerChoice(name="AdamW", options={"weight_decay": 0.1})},
        prescription=Prescription(optimizer="AdamW", rules=rules),
        groups=(
            GroupRate(
                optimizer="AdamW", lr=2**-6.4, options={"weight_decay": 0.1},
                n_parameters=1_731_937, parameters=("embed.weight", "blocks.*.mlp.up.weight"),
            ),
        ),
        loop=TrainingLoop(schedule="warmup-cosine:0.1", clip=1.0),
    )  # fmt: skip


def make_result() -> TransferResult:
    mup, sp = make_sweep("mup"), make_sweep("sp")
    target = make_trial("mup", 256, mup.best_lr, 0, 2.31, False)
    return TransferResult(
        task="lm",
        optimizer="AdamW",
        command="thetaone transfer lm --widths 32,64,128 --target 256 --memory 64MiB --report out/",
        base_width=32,
        target_width=256,
        chosen_lr=mup.best_lr,
        mup=mup,
        sp=sp,
        check_mup=make_check("mup"),
        check_sp=make_check("sp"),
        prescription=make_prescription(),
        levels=make_levels(),
        recipe=make_recipe(),
        memory=make_memory(),
        target=target,
        evaluation=2.347,
        cost=DirectSweepCost(
            transfer_seconds=44.0,
            transfer_flops=1.2e12,
            direct_seconds=612.0,
            direct_flops=2.6e13,
            n_trials=20,
        ),
        laws=make_laws(),
        environment={"torch": "2.13.0+cpu", "python": "3.12.3", "cpu": "2 cores, 1 thread a trial"},
        wall_seconds=151.3,
        started="2026-11-24T04:00:00+00:00",
    )


@pytest.fixture(scope="session")
def result() -> TransferResult:
    return make_result()
