"""Step time after ``parametrize`` beside plain PyTorch's, eager and compiled."""

from typing import Any

import torch
from row import Step, interleaved, median_ms, paired_ratio, run
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

import thetaone as t1

Pair = dict[str, Step]


def gpt2(width: int, depth: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        n_embd=width, n_layer=depth, n_head=width // 64, n_positions=1024, vocab_size=8192,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def measure(device: torch.device, *, toy: bool) -> dict[str, Any]:
    width, depth, shape = (128, 2, (2, 32)) if toy else (768, 12, (8, 512))
    tokens = torch.randint(8192, shape, device=device)
    plain, ours = gpt2(width, depth).to(device), gpt2(width, depth).to(device)
    base = gpt2(64 if toy else 256, depth).to(device)
    beside = torch.optim.AdamW(plain.parameters(), lr=1e-4)
    optimizer = t1.parametrize(ours, base=base, optimizer=torch.optim.AdamW, lr=1e-4)
    figures: dict[str, Any] = {"width": width, "groups": len(optimizer.param_groups)}
    backend = "aot_eager" if toy else "inductor"  # a toy run compiles no kernels
    for mode in ("eager", backend):
        steps: Pair = {
            "plain": training_step(compiled(plain, mode), beside, tokens),
            "thetaone": training_step(compiled(ours, mode), optimizer, tokens),
        }
        seconds = interleaved(steps, device, rounds=5 if toy else 40, warmups=5)
        figures[mode] = {
            "plain_ms": median_ms(seconds["plain"]),
            "ratio": paired_ratio(seconds["thetaone"], seconds["plain"]),
        }
    return figures


def compiled(model: nn.Module, mode: str) -> Any:
    return model if mode == "eager" else torch.compile(model, backend=mode)


def training_step(model: Any, optimizer: torch.optim.Optimizer, tokens: Tensor) -> Step:
    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    run(measure)
