"""Further spellings: right by the probe under every optimizer, or refused by name."""

import pytest
import torch

import thetaone as t1
from tests.parametrization.zoo import attention_models, layer_models
from tests.parametrization.zoo.probe import INIT, RATES, inputs, slopes
from thetaone.records import Rule

MODELS = {**attention_models.MODELS, **layer_models.MODELS}
BAND = 0.15
# below 0: initial logits and scores fall as r^-1/2, and with them what their initial weights make
# of changes before them, and what SGD does through them at first
EARLY = 1.0
FEW = {("cross, module", "Adam"), ("NCF", "SGD"), ("towers clip", "Adam")}

FUNCTION, NO_LAYER = "of a function of its entries", "can be moved into no layer before it"
PRODUCT, AS_THEY_ARE = "sums products of two features", "features as they are"
REFUSED = {
    "linear attention, unnormalized grow": PRODUCT,
    "DLRM": PRODUCT,
    "DLRM sum": PRODUCT,
    "FM": AS_THEY_ARE,
    "towers l2": AS_THEY_ARE,
    "towers cdist": AS_THEY_ARE,
    "towers pairwise": AS_THEY_ARE,
    "old orthogonal": FUNCTION,
    "normalized standardized": FUNCTION,
    "normalized softmax": FUNCTION,
    "normalized tanh": FUNCTION,
    "tied auto": NO_LAYER,
    "tied auto deep": NO_LAYER,
    "memory tied": NO_LAYER,
    "StyleGAN2": "used by convolution",
}
# features behind a latent, or made by a product of two, start as r^-1/2; SGD through both as r^-1
SMALL_AT_FIRST = {
    "VAE", "VAE fused", "latent", "Mamba", "Mamba fixed rank", "LoRA frozen", "hyper", "mqa",
}  # fmt: skip
# weights per sample, a mixture of both scales: no width here is wide enough for their exponents
UNSETTLED = {"fast weights", "norm scale", "norm sphere"}
# falls that fade with width; under Muon a mixture's sum at step 4 (0.2 over six seeds)
NEARLY = {
    "bahdanau": 0.2, "bahdanau, raw v": 0.2, "gqa fused rotary complex grow": 0.2,
    "gqa fused rotary half grow": 0.2, "einsum heads grow": 0.2, "towers vdot": 0.2,
    "towers sum of product": 0.2, "MoE loop": 0.25, "MLA fixed": 0.2,
}  # fmt: skip
DIVERGES_AT_THE_BASE = {"towers vdot", "towers sum of product"}  # under SGD at the common rate
# which tokens an expert sees is the router's first draw, another at each width: the experts are
# taken as one, over more seeds (expert by expert, of two seeds, their exponents are -0.4 to 0.24)
ALIKE = {"MoE loop": r"(?<=experts\.)\d+|(?<=gelu )\d+"}
SEEDS = {"MoE loop": 6}
SAME = {"MoE index_add": "MoE loop"}  # what an expert sees there differs from width to width


def wrong_sizes(name: str, optimizer: str) -> dict[str, float]:
    """Exponents outside their bands."""
    make, kind = MODELS[name]
    slower = 2**-6 if optimizer == "SGD" and name in DIVERGES_AT_THE_BASE else 1.0
    seeds, alike = SEEDS.get(name, 2), ALIKE.get(name, "")
    exponents, fixed = slopes(make, kind, optimizer, slower=slower, seeds=seeds, alike=alike)
    wrong: dict[str, float] = {}
    for (what, when), exponent in exponents.items():
        small = what in fixed or (name in SMALL_AT_FIRST if when == INIT else optimizer == "SGD")
        band = NEARLY.get(name, BAND)
        low = -EARLY if small else -band
        if name in SMALL_AT_FIRST and when != INIT:
            low -= 0.5
        if not low <= exponent <= band:
            wrong[f"{what}, {when}"] = round(exponent, 2)
    return wrong


def rules(name: str, optimizer: str) -> tuple[Rule, ...]:
    make, kind = MODELS[name]
    torch.manual_seed(0)
    return t1.prescribe(
        make(128), base=lambda: make(64), sample=inputs(kind), optimizer=optimizer
    ).rules


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        pytest.param(name, optimizer, marks=() if (name, optimizer) in FEW else pytest.mark.slow)
        for name in MODELS
        if name not in UNSETTLED
        for optimizer in RATES
    ],
)
def test_prescribed_right_or_refused_by_name(name: str, optimizer: str) -> None:
    if name in REFUSED:
        with pytest.raises(t1.ThetaOneError, match=REFUSED[name]):
            wrong_sizes(name, optimizer)
        return
    if name in SAME:
        assert rules(name, optimizer) == rules(SAME[name], optimizer)
        return
    assert wrong_sizes(name, optimizer) == {}
