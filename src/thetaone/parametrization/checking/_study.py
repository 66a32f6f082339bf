"""The trainings of a coordinate check, and what is expected of each."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from thetaone.errors import PrescriptionError, TaskError
from thetaone.parametrization._names import place, stacks_of
from thetaone.parametrization.applying import Parametrization, parametrize, prescribe
from thetaone.parametrization.checking._descent import MakeDescent, fuse, gradient_followers
from thetaone.parametrization.checking._observe import Observation, train_and_observe
from thetaone.parametrization.checking._recorder import SHIFT, Moment
from thetaone.parametrization.checking._sizes import Sizes
from thetaone.parametrization.checking._slack import folded_features, small_logits
from thetaone.parametrization.checking.verdict import (
    ALIGNED_NORM,
    Band,
    Context,
    Key,
    Layer,
    expected_size,
    factor_exponents,
    judge,
    widened,
)
from thetaone.parametrization.reading import FirstBatch, parameters_of, read_branches
from thetaone.records import (
    CLIPPING,
    FEATURE_UPDATE,
    OWN_UPDATE,
    UPDATE_NORM,
    WEIGHT_NORM,
    LayerVerdict,
    Prescription,
)

GRADIENTS = "(gradients)"  # of the whole model, as clipping takes them
_MOVES = (FEATURE_UPDATE, UPDATE_NORM, ALIGNED_NORM, OWN_UPDATE)
_FEW_ENTRIES = 8


class Study:
    """Trains models of every size, seed after seed, and keeps measured over expected sizes.

    Args:
        sizes: What is compared.
        models: One of every size, to be read.
        reference: ``mup``: prescribes what is expected.
        judged: Builds the optimizers.
        lr: Learning rate at the base.
        steps: Steps at which everything is measured, ascending [count].
        bands: Exponents that count as Θ(1), by quantity.
        first: Seeds to begin with; further ones go on from the largest.
        descend: Makes what takes the steps; ``None``: backward and the optimizer's update.

    Attributes:
        seeds: Tried so far [count].
    """

    def __init__(
        self,
        sizes: Sizes,
        models: Sequence[nn.Module],
        reference: Parametrization,
        judged: Parametrization,
        *,
        lr: float,
        steps: Sequence[int],
        bands: Mapping[str, Band],
        first: Sequence[int] = (),
        descend: MakeDescent | None = None,
    ) -> None:
        self._first, self._descend = tuple(first), descend
        self.sizes, self.judged, self.lr, self.steps = sizes, judged, lr, steps
        self.bands = bands
        self.seeds = 0
        self._left_out: dict[int, TaskError] = {}
        self._base = reference.base
        self._reference = reference
        self._options = {"sample": FirstBatch(sizes.task), **reference.options}
        self._refusal = ""
        self._values: dict[Key, dict[tuple[int, int], float]] = defaultdict(dict)
        self._layers: dict[str, Layer] = {}
        self._order: dict[Moment, None] = {}
        self._silent: dict[str, None] = {}
        self._makers: dict[str, str] = {}
        self._zero_initial = False
        self._stacks = self._read_stacks(models)
        if sizes.depths and self._base is not None:  # factors in the base's own code count as its
            branches = read_branches(models[0], self._options["sample"])
            self._base = self._base.model_copy(update={"branches": branches})
        self._prescriptions = [self._prescribe(model) for model in models]
        self._slack: dict[str, Band] | None = None

    def train(self, seeds: int) -> None:
        """Train until so many seeds are done at every size.

        A seed at which the task raises is left out; the others answer without it.

        Raises:
            TaskError: The task raises at every seed.
        """
        indices = range(len(self.sizes.values))
        for done in range(self.seeds, seeds):
            try:
                trained = [self._observe(self._seed(done), index) for index in indices]
            except TaskError as error:
                self._left_out[done] = error
                continue
            for index, (observation, followers) in zip(indices, trained, strict=True):
                self._enter(observation, index, done, followers)
                self._enter_clipping(observation, index, done, followers)
        self.seeds = seeds
        if not self.trained:
            raise next(iter(self._left_out.values()))

    @property
    def trained(self) -> int:
        """Seeds that answer: of those tried, what is not left out [count]."""
        return self.seeds - len(self._left_out)

    def _observe(self, seed: int, index: int) -> tuple[Observation, frozenset[str]]:
        """What one training shows, and the parameters whose steps follow the gradient."""
        torch.manual_seed(seed)
        model = self.sizes.model(index)
        optimizer = self._optimizer(model, index)
        if self._slack is None:
            self._slack = self._read_slack(model, seed)
        followers = gradient_followers(model, optimizer)
        observation = train_and_observe(
            model, optimizer, self.sizes.task, seed=seed, steps=self.steps, descend=self._descend
        )
        return observation, followers

    def _seed(self, done: int) -> int:
        """Seed of the training after so many."""
        if done < len(self._first):
            return self._first[done]
        return max(self._first, default=-1) + 1 + done - len(self._first)

    def rows(self) -> tuple[LayerVerdict, ...]:
        """The verdicts on what was trained so far."""
        indices = range(len(self.sizes.values))
        seeds = [done for done in range(self.seeds) if done not in self._left_out]
        complete = {
            key: [[values[seed, index] for index in indices] for seed in seeds]
            for key, values in self._values.items()
            if len(values) == len(indices) * len(seeds)
        }
        logits = self._small_logits()
        context = Context(
            order=[layer for layer, _ in self._order],
            roles={layer: self._role(layer) for layer, _ in self._order},
            slack={at: one for at, one in (self._slack or {}).items() if at not in logits},
            early=self._early_exponents("early_factor") | logits,
            early_inputs=self._early_exponents("early_input"),
            makers=self._makers,
            few=self._few(),
            shifts=frozenset(n for n, one in self._layers.items() if one.kind == SHIFT),
            zero_initial=self._zero_initial,
            axis=self.sizes.axis,
            label=self.judged.label,
            bands=self.bands,
        )
        return judge(complete, self.sizes.values, context)

    def notes(self) -> tuple[str, ...]:
        """What was not judged, and why."""
        notes: list[str] = []
        if self._refusal:
            notes.append(
                "Sizes are expected to be Θ(1) throughout, for prescribe refuses this model: "
                + self._refusal
            )
        notes += [
            f"Seed {self._seed(done)} is left out: {error}"
            for done, error in self._left_out.items()
        ]
        if self._silent:
            notes.append(f"Not judged, the loss does not depend on it: {', '.join(self._silent)}")
        partial: dict[tuple[int, ...], dict[str, None]] = defaultdict(dict)
        for (layer, _, _), values in self._values.items():
            indices = sorted({index for _, index in values})
            if len(indices) < len(self.sizes.values):
                partial[tuple(indices)][layer] = None
        for indices, layers in partial.items():
            at = ", ".join(str(self.sizes.values[index]) for index in indices)
            notes.append(f"Not judged, exists at {self.sizes.axis} {at} only: {', '.join(layers)}")
        return (*notes, *self._notes_on_gaps())

    def _notes_on_gaps(self) -> list[str]:
        """The rows of every size that some training lacks, by what lacks them."""
        sizes, gaps = self.sizes, defaultdict[str, dict[str, None]](dict)
        every = [(seed, index) for seed in range(self.seeds) for index in range(len(sizes.values))]
        for (layer, quantity, _), values in self._values.items():
            if len({index for _, index in values}) < len(sizes.values):
                continue  # told by size
            where = ", ".join(
                f"{sizes.axis} {sizes.values[index]} with seed {self._seed(seed)}"
                for seed, index in every
                if (seed, index) not in values
            )
            if where:
                gaps[where][f"{layer} {quantity}"] = None
        return [f"Not judged, not seen at {at}: {', '.join(rows)}" for at, rows in gaps.items()]

    def _prescribe(self, model: nn.Module) -> Prescription | None:
        reference = self._reference
        try:
            return prescribe(model, base=self._base, optimizer=reference.optimizer, **self._options)
        except PrescriptionError as error:
            if self.judged.label == "mup" and self.judged.builder is None:
                raise
            self._refusal = str(error)
            return None

    def _optimizer(self, model: nn.Module, index: int) -> torch.optim.Optimizer:
        prescription = self._prescriptions[index]
        if self.judged.base is None or prescription is None:
            optimizer = self.judged(model, self.sizes.width(index), self.lr)
        else:
            optimizer = parametrize(
                model, base=prescription, optimizer=self.judged.optimizer, lr=self.lr,
                **self.judged.options,
            )  # fmt: skip
        if self.judged.builder is None:
            fuse(optimizer)
        return optimizer

    def _enter_clipping(
        self, seen: Observation, index: int, seed: int, followers: frozenset[str]
    ) -> None:
        """Enter the share that clipping left, where steps shrink with it."""
        if self._descend is None or self._descend.loop.clip is None or not followers:
            return
        for step, taken in seen.taken.items():
            if taken.rate:
                self._values[GRADIENTS, CLIPPING, step][seed, index] = taken.kept

    def _enter(self, seen: Observation, index: int, seed: int, followers: frozenset[str]) -> None:
        prescription = self._prescriptions[index]
        rules = {rule.name: rule for rule in prescription.rules} if prescription else {}
        trained = frozenset[str]().union(*(layer.names for layer in seen.layers.values()))
        squares: dict[Key, list[float]] = defaultdict(list)
        for key, value in seen.values.items():
            layer = seen.layers.get(key[0], Layer())
            expected = expected_size(layer, key[1], rules)
            if key[1] in _MOVES and (layer.names or trained) <= followers:
                expected *= seen.taken[key[2]].kept
            if expected == 0:  # not judged; where no decay is prescribed, any is a choice
                continue
            spot = place(key[0], self._stacks)
            if spot.endswith("*"):  # of the stream, which a block puts out, the last block's
                squares[spot, key[1], key[2]] = []
            squares[spot, key[1], key[2]].append((value / expected) ** 2)
            self._zero_initial |= layer.fans[0] > 1 and key[1] == WEIGHT_NORM and value == 0
        for key, of_blocks in squares.items():
            self._values[key][seed, index] = math.sqrt(sum(of_blocks) / len(of_blocks))
        for label, again in seen.order:
            self._order.setdefault((place(label, self._stacks), again))
        for label, layer in seen.layers.items():
            self._layers[place(label, self._stacks)] = layer
        self._silent |= dict.fromkeys(seen.silent)
        for label, maker in seen.makers.items():
            self._makers[place(label, self._stacks)] = place(maker, self._stacks)

    def _role(self, layer: str) -> str:
        names = self._layers.get(layer, Layer()).names
        last = self._prescriptions[-1]
        if last is None:
            return ""
        return next((rule.role for rule in last.rules if rule.name in names), "")

    def _read_stacks(self, models: Sequence[nn.Module]) -> frozenset[str]:
        if not self.sizes.depths:
            return frozenset()
        return stacks_of(parameters_of(models[-1]), parameters_of(models[0]))

    def _small_logits(self) -> dict[str, float]:
        smallest, largest = self._prescriptions[0], self._prescriptions[-1]
        if smallest is None or largest is None:
            return {}
        labels = [label for label, _ in self._order]
        return small_logits(labels, smallest, largest, growth=self._growth, stacks=self._stacks)

    def _few(self) -> frozenset[str]:
        """Vectors of few entries: their first steps cancel, or add up, by the chance of signs."""
        largest = self._prescriptions[-1]
        rules = {} if largest is None else {rule.name: rule for rule in largest.rules}
        small = {name for name, rule in rules.items() if math.prod(rule.shape) <= _FEW_ENTRIES}
        return frozenset(
            label for label, layer in self._layers.items() if layer.names and layer.names <= small
        )

    def _early_exponents(self, factor: str) -> dict[str, float]:
        """Exponents of a factor on first updates, by layer, where all its parameters have one."""
        smallest, largest = self._prescriptions[0], self._prescriptions[-1]
        if smallest is None or largest is None:
            return {}
        exponents = factor_exponents(factor, smallest, largest, self._growth)
        return {
            label: min(exponents[name] for name in layer.names)
            for label, layer in self._layers.items()
            if layer.names and layer.names <= exponents.keys()
        }

    def _read_slack(self, model: nn.Module, seed: int) -> dict[str, Band]:
        smallest, largest = self._prescriptions[0], self._prescriptions[-1]
        if smallest is None or largest is None:
            return {}
        folded = folded_features(
            model, self.sizes.task, smallest, largest,
            seed=seed, growth=self._growth, stacks=self._stacks,
        )  # fmt: skip
        for spot, factor in largest.outputs.items():
            folded[spot].append(math.log(factor) / math.log(self._growth))
        return {label: widened(exponents) for label, exponents in folded.items()}

    @property
    def _growth(self) -> float:
        return self.sizes.values[-1] / self.sizes.values[0]
