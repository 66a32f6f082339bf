"""Code to paste that trains by a recipe, in a plain loop and in other people's trainers."""

from thetaone.errors import InputError
from thetaone.records._training import TrainingLoop

TRAINERS = ("loop", "transformers", "lightning", "fsdp")
_IMPORTS = {
    "loop": "import itertools\n\nimport torch", "transformers": "import transformers",
    "lightning": "import lightning", "fsdp": "from torch.distributed.fsdp import fully_shard",
}  # fmt: skip


def snippet(
    loop: TrainingLoop, trainer: str, path: str, *, n_steps: int, rematerialized: bool
) -> str:
    """Code that builds the optimizer of a recipe and trains with it.

    Args:
        loop: What a step does beside the optimizer's update.
        trainer: One of ``TRAINERS``.
        path: Of the recipe.
        n_steps: Steps of the training [count].
        rematerialized: Whether the recipe has a memory schedule.

    Raises:
        InputError: Another trainer.
    """
    if trainer not in TRAINERS:
        raise InputError(f"trainer={trainer!r}: choose {', '.join(TRAINERS)}")
    body = {"loop": _loop, "transformers": _transformers, "lightning": _lightning, "fsdp": _fsdp}
    head = [_IMPORTS[trainer], "import thetaone as t1", "", f'recipe = t1.Recipe.load("{path}")']
    if rematerialized and trainer != "fsdp":
        head.append("recipe.rematerialize(model)  # in place")
    return "\n".join([*head, *body[trainer](loop, n_steps)])


def _build(loop: TrainingLoop) -> list[str]:
    if loop.schedule == "constant":
        return ["optimizer = recipe.optimizer(model)"]
    return ["optimizer, scheduler = recipe.optimizer_and_scheduler(model)"]


def _loop(loop: TrainingLoop, n_steps: int) -> list[str]:
    lines = [*_build(loop), f"for batch in itertools.islice(batches, {n_steps}):"]
    lines.append("    optimizer.zero_grad()")
    indent, part, value = " " * 4, "batch", "value"
    if loop.accumulate > 1:
        lines.append(f"    for part in split(batch, {loop.accumulate}):")
        indent, part, value = " " * 8, "part", f"(value / {loop.accumulate})"
    deeper = ""
    if loop.precision == "bf16":
        lines.append(f"{indent}with torch.autocast(device, torch.bfloat16):")
        deeper = " " * 4
    lines += [f"{indent}{deeper}value = loss(model, {part})", f"{indent}{value}.backward()"]
    if loop.clip is not None:
        lines.append(f"    torch.nn.utils.clip_grad_norm_(model.parameters(), {loop.clip})")
    lines.append("    optimizer.step()")
    if loop.schedule != "constant":
        lines.append("    scheduler.step()")
    return lines


def _transformers(loop: TrainingLoop, n_steps: int) -> list[str]:
    arguments = ["...", f"max_steps={n_steps}"]
    arguments.append(f"max_grad_norm={0.0 if loop.clip is None else loop.clip}")
    arguments += ["bf16=True"] if loop.precision == "bf16" else []
    if loop.accumulate > 1:
        arguments.append(f"gradient_accumulation_steps={loop.accumulate}")
    return [
        "trainer = transformers.Trainer(",
        f"    model, transformers.TrainingArguments({', '.join(arguments)}),",
        "    optimizers=recipe.optimizer_and_scheduler(model), train_dataset=...,",
        ")",
        "trainer.train()",
    ]


def _lightning(loop: TrainingLoop, n_steps: int) -> list[str]:
    arguments = [f"max_steps={n_steps}"]
    arguments += [f"gradient_clip_val={loop.clip}"] if loop.clip is not None else []
    arguments += ['precision="bf16-mixed"'] if loop.precision == "bf16" else []
    arguments += [f"accumulate_grad_batches={loop.accumulate}"] if loop.accumulate > 1 else []
    return [
        "", "class Module(lightning.LightningModule):", "    def configure_optimizers(self):",
        "        return recipe.configure_optimizers(self.model)", "",
        f"trainer = lightning.Trainer({', '.join([*arguments, '...'])})",
    ]  # fmt: skip


def _fsdp(loop: TrainingLoop, n_steps: int) -> list[str]:
    return [
        "for block in model.layers:", "    fully_shard(block)", "fully_shard(model)",
        f"{_build(loop)[0]}  # names are kept, so the recipe still fits",
        f"# {n_steps} steps as in the loop; where the model fits on one device, all of it at once:",
        "# torchrun --nproc-per-node 8 -m thetaone train recipe.json",
    ]  # fmt: skip
