"""The zoo: right by the probe under every optimizer, or refused by name; nothing in silence."""

import pytest
import torch

import thetaone as t1
from tests.parametrization.zoo import attention_models, layer_models
from tests.parametrization.zoo.models import ZOO
from tests.parametrization.zoo.probe import INIT, RATES, inputs, slopes
from thetaone.records import Rule

pytestmark = [  # torch's own, of the models
    pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]
MODELS = {
    **{name: (entry.make, "tokens" if entry.tokens else "features") for name, entry in ZOO.items()},
    **attention_models.MODELS,
    **layer_models.MODELS,
}
BAND = 0.15
# below 0: initial logits and scores fall as r^-1/2, and with them what their initial weights make
# of changes before them
EARLY = 1.0
FEW = {
    ("cross, module", "Adam"), ("NCF", "SGD"), ("towers clip", "Adam"), ("graph score", "AdamW"),
    ("attention, fused, heads grow", "AdamW"), ("tied by function", "Muon+AdamW"),
    ("raw, product and sum", "SGD"),
}  # fmt: skip

FUNCTION, NO_LAYER = "of a function of its entries", "can be moved into no layer before it"
PRODUCT, AS_THEY_ARE = "sums products of two features", "features as they are"
REFUSED = {
    **{name: entry.refused for name, entry in ZOO.items() if entry.refused},
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
    "norm scale": "divides features by their norm, which makes each 1 at the base and 0.7071 at",
    "norm sphere": "divides features by their norm",
}
# features behind a latent, or made by a product of two, start as r^-1/2; SGD through both as r^-1
SMALL_AT_FIRST = {
    "VAE", "VAE fused", "latent", "Mamba", "Mamba fixed rank", "LoRA frozen", "LoRA, merged",
    "LoRA, beside", "bottleneck", "mqa",
}  # fmt: skip
# under SGD, what scores that start as r^-1/2 do to changes before and behind them at first
FALL_UNDER_SGD = SMALL_AT_FIRST | {
    "DiT", "MLA fixed", "MoE bmm", "MoE dict", "MoE einsum", "MoE list", "MoE vmap",
    "attention, cosine, heads grow", "attention, einsum, heads grow",
    "attention, own scale, heads grow", "attention, plain, heads grow",
    "attention, sdpa, heads grow", "attention, tensor scale, heads grow", "bahdanau",
    "bahdanau, raw v", "cross, by hand", "einsum heads grow", "gqa einsum, grow",
    "gqa expand, grow", "gqa gqa, grow", "gqa qk norm grow", "gqa repeat_interleave, grow",
    "input skip", "mixer", "mqa grow", "perceiver", "relative, scaled", "relative, scaled grow",
    "relative, unscaled grow", "tied by function", "tied by matmul", "tied by module",
    "tied by module, no norm", "towers scaled dot",
}  # fmt: skip
# entries of a matrix that a layer makes start as r^-1/2, where they change as r^-1
MATRICES = {("fast weights", "gen"), ("hyper", "gen")}
NO_HIDDEN = {"NCF", "LoRA frozen", "hyper", "memory", "memory tied", "fast weights", "bottleneck"}
SEEDS = {"MLA fixed": 6}  # of two seeds its exponents scatter by 0.06 around -0.11
DIVERGES_AT_THE_BASE = {"towers vdot", "towers sum of product"}  # under SGD at the common rate


def wrong_sizes(name: str, optimizer: str) -> dict[str, float]:
    """Exponents outside their bands."""
    make, kind = MODELS[name]
    slower = 2**-6 if optimizer == "SGD" and name in DIVERGES_AT_THE_BASE else 1.0
    exponents, fixed = slopes(make, kind, optimizer, slower=slower, seeds=SEEDS.get(name, 2))
    wrong: dict[str, float] = {}
    for (what, when), exponent in exponents.items():
        exponent -= 0.5 if (name, what) in MATRICES and when == INIT else 0.0
        falls = optimizer == "SGD" and name in FALL_UNDER_SGD
        small = what in fixed or (name in SMALL_AT_FIRST if when == INIT else falls)
        low = -EARLY if small else -BAND
        if name in SMALL_AT_FIRST and when != INIT:
            low -= 0.5
        if not low <= exponent <= BAND:
            wrong[f"{what}, {when}"] = round(exponent, 2)
    return wrong


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        pytest.param(name, optimizer, marks=() if (name, optimizer) in FEW else pytest.mark.slow)
        for name in MODELS
        for optimizer in RATES
    ],
)
def test_prescribed_right_or_refused_by_name(name: str, optimizer: str) -> None:
    if name in REFUSED:
        with pytest.raises(t1.ThetaOneError, match=REFUSED[name]):
            wrong_sizes(name, optimizer)
        return
    if optimizer == "Muon+AdamW" and name in NO_HIDDEN:
        with pytest.raises(t1.ThetaOneError, match="names role 'hidden', which no parameter has"):
            wrong_sizes(name, optimizer)
        return
    assert wrong_sizes(name, optimizer) == {}


def test_rows_that_a_router_chooses_are_no_features_of_the_router() -> None:
    """Experts called on their tokens alone have the rules of experts called on all."""

    def rules(name: str) -> tuple[Rule, ...]:
        make, kind = MODELS[name]
        torch.manual_seed(0)
        target, base = make(128), make(64)
        return t1.prescribe(target, base=base, sample=inputs(kind), optimizer="SGD").rules

    assert rules("MoE index_add") == rules("MoE hit") == rules("MoE loop")
