"""Inputs of one forward pass: a user's, or guessed from a model's first layer or its config.

Only the shape of the computation is read from such a pass, never its values; a wrong guess fails.
"""

import contextlib
import functools
import itertools
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from thetaone.errors import blamed_on_task
from thetaone.records import Task

Sample = Any  # a tensor, a tuple of arguments, a mapping of keywords, or a callable of the model

_TRIED = 3  # layers, of which a model's first need not be the first that its pass takes
_SIDES = (32, 224, 16)  # of images and signals, tried in this order


@dataclass(frozen=True)
class FirstBatch:
    """A task's loss on its first batch, as a sample; inputs are guessed where it fails."""

    task: Task


def passes(model: nn.Module, sample: Sample = None) -> Iterator[Callable[[nn.Module], Any]]:
    """Ways to run a model: with the user's sample, else with guesses, likeliest first."""
    if isinstance(sample, FirstBatch):
        task = sample.task
        with blamed_on_task("task.batches(0)"), _generators_kept():  # none, where the task has none
            first = list(itertools.islice(task.batches(0), 1))
        yield from (functools.partial(_loss, task, batch) for batch in first)
    if sample is None or isinstance(sample, FirstBatch):
        yield from (_call(guess) for guess in guesses(model))
    elif callable(sample) and not isinstance(sample, (nn.Module, Tensor)):
        yield sample
    else:
        yield _call(sample)


@contextlib.contextmanager
def _generators_kept() -> Iterator[None]:
    """Leave torch's, NumPy's and Python's global generators where they were.

    A prescription is made once and kept: what it draws must not move the batches of the first
    training alone.
    """
    numpy, python = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        with torch.random.fork_rng():
            yield
    finally:
        np.random.set_state(numpy)  # noqa: NPY002
        random.setstate(python)


def _loss(task: Task, batch: Any, model: nn.Module) -> Tensor:
    return task.loss(model, batch)


def guesses(model: nn.Module) -> Iterator[Any]:
    """Inputs to try, likeliest first: a tensor, a tuple of them, or a mapping of keywords.

    Examples:
        >>> [guess.shape for guess in guesses(nn.Linear(4, 2))][:2]
        [torch.Size([2, 4]), torch.Size([2, 3, 4])]
    """
    entries = [(m, p) for m in model.modules() for p in m.parameters(recurse=False)]
    if not entries:
        return
    yield from _hugging_face(model, entries[0][1])
    yield from _of_several(model, entries[0][1])
    layers = [entry for entry in entries if type(entry[0]).__module__.startswith("torch.nn")]
    first_of_module = {id(m): (m, p) for m, p in reversed([*entries[:1], *layers])}
    for module, parameter in list(reversed(first_of_module.values()))[:_TRIED]:
        yield from _of_layer(module, parameter)


def _of_layer(module: nn.Module, parameter: Tensor) -> Iterator[Tensor]:
    """What one layer takes, alone, in a sequence, or as an image."""
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        for shape in ((2, 3), (3,), (2,)):
            yield torch.zeros(shape, dtype=torch.long, device=parameter.device)
        return
    axes = len(getattr(module, "kernel_size", ()))
    for features in _features(module, parameter):
        shapes: list[tuple[int, ...]] = [(2, features), (2, 3, features), (2, features, 8, 8)]
        for shape in [(2, features, *[side] * axes) for side in _SIDES] if axes else shapes:
            yield _noise(shape, parameter)


def _of_several(model: nn.Module, parameter: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """What torch's own modules of several inputs take."""
    if isinstance(model, nn.Bilinear):
        yield tuple(_noise((2, n), parameter) for n in (model.in1_features, model.in2_features))
    count = {nn.MultiheadAttention: 3, nn.Transformer: 2, nn.TransformerDecoderLayer: 2}
    if type(model) in count:
        yield (_noise((2, 3, _features(model, parameter)[0]), parameter),) * count[type(model)]


def _noise(shape: tuple[int, ...], like: Tensor) -> Tensor:
    dtype = like.dtype if like.dtype.is_floating_point else torch.get_default_dtype()
    with torch.random.fork_rng():
        return torch.randn(shape, device=like.device, dtype=dtype)


def _call(sample: Any) -> Callable[[nn.Module], Any]:
    if isinstance(sample, Mapping):
        return lambda model: model(**sample)
    arguments = sample if isinstance(sample, (tuple, list)) else (sample,)
    return lambda model: model(*arguments)


def _hugging_face(model: nn.Module, parameter: Tensor) -> Iterator[dict[str, Tensor]]:
    """What a ``PreTrainedModel`` calls its main input, at the size its config names."""
    dummies, config = getattr(model, "dummy_inputs", None), getattr(model, "config", None)
    if not isinstance(dummies, Mapping) or config is None:
        return
    inputs = {k: v.to(parameter.device) for k, v in dummies.items() if isinstance(v, Tensor)}
    name = getattr(model, "main_input_name", "input_ids")
    if name == "pixel_values":
        side = getattr(config, "image_size", _SIDES[0])
        sides = tuple(side) if isinstance(side, (tuple, list)) else (side, side)
        inputs = {name: parameter.new_zeros(1, getattr(config, "num_channels", 3), *sides)}
    elif name == "input_features":
        length = 2 * int(getattr(config, "max_source_positions", _SIDES[0]))
        ids = torch.zeros(1, 2, dtype=torch.long, device=parameter.device)
        features = parameter.new_zeros(1, int(getattr(config, "num_mel_bins", 80)), length)
        inputs = {name: features, "decoder_input_ids": ids}
    yield inputs


def _features(module: nn.Module, parameter: Tensor) -> list[int]:
    for name in (
        "in_features",
        "in_channels",
        "input_size",
        "embed_dim",
        "d_model",
        "num_features",
    ):
        value = getattr(module, name, None)
        if isinstance(value, int):
            return [value]
    return list(dict.fromkeys(parameter.shape[::-1])) or [1]
