"""Colours by role, for light and dark paper, safe for colour-blind readers.

The categorical ones are Okabe and Ito's blue and vermilion family, darkened on light paper and
lightened on dark paper to keep at least 3:1 against it. Widths use one ramp (w0 … w7) whose
lightness is monotone, so that order survives in grey: the widest stands out most.
"""

LIGHT: dict[str, str] = {
    "paper": "#fffefb",
    "ink": "#1c1e21",
    "muted": "#62676e",
    "grid": "#e4e3de",
    "strip": "#eef1ea",
    "mup": "#0a5fa8",
    "sp": "#b8470b",
    "good": "#1b6e4b",
    "bad": "#b8280b",
    "budget": "#8a1f6a",
    "forward": "#6aa7d8",
    "recompute": "#d98a1f",
    "backward": "#7d8794",
    "w0": "#b8821f",
    "w1": "#b96a2c",
    "w2": "#ba5a4a",
    "w3": "#a44765",
    "w4": "#873c7a",
    "w5": "#673584",
    "w6": "#462f80",
    "w7": "#26266e",
}

DARK: dict[str, str] = {
    "paper": "#15171a",
    "ink": "#e8e6e1",
    "muted": "#9aa0a8",
    "grid": "#2c3036",
    "strip": "#20262a",
    "mup": "#6cb4ee",
    "sp": "#f08c4a",
    "good": "#5cc295",
    "bad": "#ff7a5c",
    "budget": "#e58acb",
    "forward": "#4a86b8",
    "recompute": "#e0a03f",
    "backward": "#828b97",
    "w0": "#7461b8",
    "w1": "#8f63bd",
    "w2": "#ad67b8",
    "w3": "#c96fa8",
    "w4": "#de7f92",
    "w5": "#ec967d",
    "w6": "#f5b270",
    "w7": "#fbd27a",
}

THEMES: dict[str, dict[str, str]] = {"light": LIGHT, "dark": DARK}

N_RAMP = 8


def ramp(index: int, count: int) -> str:
    """Role of the ``index``-th of ``count`` ordered series: the last is the strongest.

    Examples:
        >>> [ramp(i, 3) for i in range(3)]
        ['w0', 'w4', 'w7']
    """
    return f"w{round(index * (N_RAMP - 1) / max(count - 1, 1) + 1e-9) if count > 1 else N_RAMP - 1}"
