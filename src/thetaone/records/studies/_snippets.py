"""Code to paste that trains by a recipe, in a plain loop and in other people's trainers."""

from thetaone.errors import InputError
from thetaone.records._training import TrainingLoop

TRAINERS = ("loop", "transformers", "lightning", "fsdp")


def snippet(loop: TrainingLoop, trainer: str, path: str, *, rematerialized: bool) -> str:
    """Code that builds the optimizer of a recipe and trains with it.

    Args:
        loop: What a step does beside the optimizer's update.
        trainer: One of ``TRAINERS``.
        path: Of the recipe.
        rematerialized: Whether the recipe has a memory schedule.

    Raises:
        InputError: Another trainer.
    """
    if trainer not in TRAINERS:
        raise InputError(f"trainer={trainer!r}: choose {', '.join(TRAINERS)}")
    run = "run" if rematerialized and trainer != "fsdp" else "model"
    body = {"loop": _loop, "transformers": _transformers, "lightning": _lightning, "fsdp": _fsdp}
    head = ["import thetaone as t1", "", f'recipe = t1.Recipe.load("{path}")']
    return "\n".join([*head, *body[trainer](loop, run)])


def _build(loop: TrainingLoop, run: str) -> list[str]:
    lines = ["optimizer = recipe.optimizer(model)"]
    if loop.schedule != "constant":
        lines.append("scheduler = recipe.scheduler(optimizer)")
    if run != "model":
        lines.append(f"{run} = recipe.rematerialize(model)")
    return lines


def _loop(loop: TrainingLoop, run: str) -> list[str]:
    lines = [*_build(loop, run), "for batch in batches:", "    optimizer.zero_grad()"]
    indent, part, value = " " * 4, "batch", "value"
    if loop.accumulate > 1:
        lines.append(f"    for part in split(batch, {loop.accumulate}):")
        indent, part, value = " " * 8, "part", f"(value / {loop.accumulate})"
    deeper = ""
    if loop.precision == "bf16":
        lines.append(f"{indent}with torch.autocast(device, torch.bfloat16):")
        deeper = " " * 4
    lines += [f"{indent}{deeper}value = loss({run}, {part})", f"{indent}{value}.backward()"]
    if loop.clip is not None:
        lines.append(f"    torch.nn.utils.clip_grad_norm_(model.parameters(), {loop.clip})")
    lines.append("    optimizer.step()")
    if loop.schedule != "constant":
        lines.append("    scheduler.step()")
    return lines


def _arguments(loop: TrainingLoop) -> str:
    arguments = ["..."]
    arguments += [f"max_grad_norm={0.0 if loop.clip is None else loop.clip}"]
    arguments += ["bf16=True"] if loop.precision == "bf16" else []
    if loop.accumulate > 1:
        arguments.append(f"gradient_accumulation_steps={loop.accumulate}")
    return ", ".join(arguments)


def _transformers(loop: TrainingLoop, run: str) -> list[str]:
    scheduler = "recipe.scheduler(optimizer)"
    if loop.schedule == "constant":
        scheduler = "torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)"
    return [
        "optimizer = recipe.optimizer(model)",
        "trainer = transformers.Trainer(",
        "    recipe.rematerialize(model)," if run != "model" else "    model,",
        f"    transformers.TrainingArguments({_arguments(loop)}),",
        f"    optimizers=(optimizer, {scheduler}), train_dataset=...,",
        ")",
        "trainer.train()",
    ]


def _lightning(loop: TrainingLoop, run: str) -> list[str]:
    lines = ["", "class Module(lightning.LightningModule):", "    def configure_optimizers(self):"]
    lines.append("        optimizer = recipe.optimizer(self.model)")
    if loop.schedule == "constant":
        lines.append("        return optimizer")
    else:
        lines.append("        scheduler = recipe.scheduler(optimizer)")
        lines.append('        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]')
    arguments = [f"gradient_clip_val={loop.clip}"] if loop.clip is not None else []
    arguments += ['precision="bf16-mixed"'] if loop.precision == "bf16" else []
    arguments += [f"accumulate_grad_batches={loop.accumulate}"] if loop.accumulate > 1 else []
    return [*lines, "", f"trainer = lightning.Trainer({', '.join([*arguments, '...'])})"]


def _fsdp(loop: TrainingLoop, run: str) -> list[str]:
    lines = ["for block in model.layers:", "    fully_shard(block)", "fully_shard(model)"]
    lines.append("optimizer = recipe.optimizer(model)  # names are kept, so the recipe still fits")
    if loop.schedule != "constant":
        lines.append("scheduler = recipe.scheduler(optimizer)")
    return lines
