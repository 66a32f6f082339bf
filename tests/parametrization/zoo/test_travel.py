"""Tied and deep models of the zoo: saved here, loaded by a process that has no thetaone."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import thetaone as t1
from tests.parametrization.zoo.models import LENGTH, RESIDUALS, VOCABULARY, ZOO, Deep
from thetaone.errors import InputError

HERE = Path(__file__).parent
NARROW, WIDE = 64, 128
IN_NO_WEIGHT = "tied by module, no norm"
TIED = [name for name, entry in ZOO.items() if name.startswith("tied") and not entry.refused]
GROWING = [name for name in ZOO if "heads grow" in name]
PLAIN: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    **{
        name: (lambda n=name: ZOO[n].make(NARROW), lambda n=name: ZOO[n].make(WIDE))
        for name in (*TIED, *GROWING)
    },
    **{
        f"deep, {residual}": (
            lambda r=residual: Deep(NARROW, 2, r), lambda r=residual: Deep(WIDE, 4, r)
        )
        for residual in RESIDUALS
    },
}  # fmt: skip

LOAD = """
import sys, torch
sys.modules["thetaone"] = None
sys.path.insert(0, sys.argv[1])
from models import Deep, ZOO
torch.use_deterministic_algorithms(True)
for name, (state, x, logits) in torch.load(sys.argv[2]).items():
    kind, _, residual = name.partition(", ")
    torch.manual_seed(1)
    model = Deep(128, 4, residual) if kind == "deep" else ZOO[name].make(128)
    model.load_state_dict(state)
    with torch.no_grad():
        gap = float((model.eval()(x) - logits).abs().max() / logits.abs().max())
    assert gap < 1e-5, f"{name}: {gap}"
    print(name)
"""


def trained(name: str) -> tuple[nn.Module, torch.Tensor]:
    """A model after a few steps under its prescription, and inputs."""
    torch.manual_seed(0)
    base, make = PLAIN[name]
    model = make()
    x = torch.randint(VOCABULARY, (3, LENGTH), generator=torch.Generator().manual_seed(0))
    if name.startswith("deep"):
        x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    optimizer = t1.parametrize(model, base=base, lr=2**-7, sample=(x,))
    for _ in range(3):
        optimizer.zero_grad()
        out = model(x).flatten(0, -2)
        F.cross_entropy(out, torch.arange(len(out)) % out.shape[-1]).backward()
        optimizer.step()
    return model.eval(), x


@pytest.mark.slow
def test_weights_travel_to_where_there_is_no_thetaone(tmp_path: Path) -> None:
    kept: dict[str, tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]] = {}
    for name in PLAIN:
        model, x = trained(name)
        with torch.no_grad():
            logits = model(x)
        if name == IN_NO_WEIGHT:
            with pytest.raises(InputError, match="shares its weight with an embedding"):
                t1.export(model)
            continue
        kept[name] = (t1.export(model).state_dict(), x, logits)
    torch.save(kept, tmp_path / "kept.pt")
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, str(HERE), str(tmp_path / "kept.pt")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    assert loaded.stdout.splitlines() == list(kept)
