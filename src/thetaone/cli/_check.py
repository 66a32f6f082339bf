"""``thetaone check``: does every layer keep its size while the model grows?"""

import typer

from thetaone.cli import _options as o
from thetaone.cli import _results as r


def check(
    task: o.Task,
    widths: o.Widths = None,
    depths: o.Depths = None,
    lr: o.Lr = None,
    target: o.Target = None,
    base: o.Base = None,
    optimizer: o.Optimizer = None,
    weight_decay: o.WeightDecay = None,
    beta2: o.Beta2 = None,
    option: o.Option = None,
    choice: o.Choice = None,
    schedule: o.Schedule = None,
    clip: o.Clip = None,
    precision: o.Precision = None,
    accumulate: o.Accumulate = None,
    steps: o.Steps = None,
    parametrization: o.Parametrization = "mup",
    seeds: o.Seeds = None,
    as_json: r.Json = False,
    output: r.Output = None,
    report: r.Report = None,
    config: o.Config = None,
) -> None:
    """Train a few steps at each width (or depth) and judge every layer; exit 1 when one fails."""
    from thetaone.studies import coordinate_check

    verdict = coordinate_check(
        task, widths=o.integers(widths, "--widths"),
        depths=o.integers(depths, "--depths") or (), lr=lr, target=target, base_width=base,
        optimizer=optimizer, parametrization=parametrization, schedule=schedule, clip=clip,
        precision=precision, accumulate=accumulate, training_steps=steps,
        seeds=o.integers(seeds, "--seeds") or 3,
        **o.prescription_choices(choice), **o.optimizer_options(weight_decay, beta2, option),
    )  # fmt: skip
    r.show(verdict, as_json=as_json, output=output)
    r.draw_page(verdict, report, quiet=as_json)
    if not verdict.passed:
        raise typer.Exit(1)
