"""Every optimizer at a rate of its own, to fit exponents over widths."""

from typing import Any

import torch
from pytorch_optimizer import Lion, SignSGD

WIDTHS = (64, 128, 256, 512, 1024, 2048)
STEPS = (1, 3, 8)
SET_UPS: list[tuple[Any, float, dict[str, Any]]] = [
    (torch.optim.SGD, 0.1, {}),
    (torch.optim.SGD, 0.05, {"momentum": 0.9, "nesterov": True}),
    (SignSGD, 2**-10, {}),
    (Lion, 2**-10, {}),
    (torch.optim.Adam, 2**-9, {}),
    (torch.optim.AdamW, 2**-9, {"weight_decay": 0.1}),
    (torch.optim.NAdam, 2**-9, {}),
    (torch.optim.Adamax, 2**-9, {}),
    (torch.optim.RMSprop, 2**-11, {}),
    (torch.optim.Adagrad, 2**-9, {"initial_accumulator_value": 1e-5}),
    (torch.optim.Adafactor, 2**-5, {}),
    # its first five steps are momentum SGD, whose size is not that of the rest: judged after them
    (torch.optim.RAdam, 2**-5, {"steps": (8,)}),
    (torch.optim.Muon, 2**-5, {}),
    (torch.optim.Muon, 2**-7, {"adjust_lr_fn": "match_rms_adamw"}),
]
