"""How surfaces look: colour words, muted structure colours and solid textures evaluated at the hit point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Rgb = tuple[float, float, float]

COLOURS: dict[str, Rgb] = {
    "red": (0.82, 0.05, 0.07),
    "orange": (0.98, 0.48, 0.04),
    "yellow": (0.97, 0.88, 0.10),
    "green": (0.08, 0.58, 0.14),
    "cyan": (0.12, 0.80, 0.85),
    "blue": (0.08, 0.20, 0.85),
    "purple": (0.46, 0.12, 0.68),
    "pink": (0.98, 0.55, 0.78),
    "white": (0.95, 0.95, 0.95),
    "black": (0.15, 0.15, 0.16),
}
"""Object colours (sRGB), far apart under shading: brown is left out because it is orange in the shade."""

MUTED: dict[str, Rgb] = {
    "beige": (0.76, 0.68, 0.55),
    "brown": (0.50, 0.36, 0.25),
    "grey": (0.55, 0.56, 0.58),
    "olive": (0.50, 0.52, 0.40),
    "slate": (0.38, 0.44, 0.50),
    "tan": (0.66, 0.54, 0.40),
}
"""Structure colours (sRGB): desaturated, so that an object's colour word is never a structure's."""


@dataclass(frozen=True)
class Surface:
    """A colour word with a solid texture that mixes `base` and `accent` (sRGB) with a period of `scale_m` metres."""

    colour: str
    base: Rgb
    accent: Rgb
    pattern: str = "plain"
    scale_m: float = 0.05
    shine: float = 0.1

    def albedo(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        """Linear-light reflectance at points of the body's frame (metres)."""
        base, accent = _linear(self.base), _linear(self.accent)
        if self.pattern == "plain":
            return np.broadcast_to(base, points.shape)
        mix = _MIXES[self.pattern](points / self.scale_m)[:, None]
        return base + (accent - base) * mix


def object_surface(rng: np.random.Generator, colour: str, textured: bool, patterns: tuple[str, ...]) -> Surface:
    """A surface that stays true to its colour word: the accent is a lighter or darker tone of the base."""
    base = np.array(COLOURS[colour])
    tone = 0.62 * base if base.mean() > 0.3 else base + 0.2
    pattern = str(rng.choice(list(patterns))) if textured else "plain"
    scale = float(rng.uniform(0.022, 0.035))
    return Surface(colour, COLOURS[colour], _rgb(tone), pattern, scale, float(rng.uniform(0.03, 0.12)))


def structure_surface(rng: np.random.Generator, patterns: tuple[str, ...], scale_m: tuple[float, float]) -> Surface:
    """A muted surface with one of `patterns` and a period drawn from `scale_m` (metres)."""
    colour = str(rng.choice(list(MUTED)))
    base = np.clip(np.array(MUTED[colour]) + rng.uniform(-0.06, 0.06), 0, 1)
    accent = base * rng.uniform(0.7, 0.9)
    pattern = str(rng.choice(list(patterns)))
    return Surface(colour, _rgb(base), _rgb(accent), pattern, float(rng.uniform(*scale_m)), 0.03)


def _rgb(values: np.ndarray) -> Rgb:
    return (float(values[0]), float(values[1]), float(values[2]))


def _linear(colour: Rgb) -> np.ndarray:
    """The renderer encodes with a square root: a gamma of 2."""
    return np.array(colour) ** 2


def _checker(p: np.ndarray) -> np.ndarray:
    """The offset keeps cell borders off the faces of centred bodies."""
    return np.floor(p + 0.37).sum(axis=1) % 2


def _stripes(p: np.ndarray) -> np.ndarray:
    return np.floor(p[:, 0] + 0.5 * p[:, 2] + 0.37) % 2


def _wood(p: np.ndarray) -> np.ndarray:
    waves = p[:, 0] + 0.5 * np.sin(0.35 * p[:, 1] + 0.5) + 0.2 * np.sin(1.1 * p[:, 1] + 2.1 * p[:, 0]) + 0.7 * p[:, 2]
    return 0.5 + 0.5 * np.sin(2 * np.pi * waves) * (0.7 + 0.3 * np.sin(0.8 * p[:, 0]))


def _speckle(p: np.ndarray) -> np.ndarray:
    cell = np.floor(2 * p + 0.37)
    noise = np.sin(cell[:, 0] * 127.1 + cell[:, 1] * 311.7 + cell[:, 2] * 74.7) * 43758.5453
    return np.where(noise - np.floor(noise) > 0.7, 1.0, 0.0)


def _dots(p: np.ndarray) -> np.ndarray:
    """Balls in a lattice: round wherever a surface cuts them."""
    away = p + 0.37 - np.floor(p + 0.37) - 0.5
    return np.where((away**2).sum(axis=1) < 0.4**2, 1.0, 0.0)


def _zigzag(p: np.ndarray) -> np.ndarray:
    along = p[:, 1] + 0.5 * p[:, 2]
    return np.floor(p[:, 0] + np.abs(along - np.floor(along) - 0.5) + 0.37) % 2


def _rings(p: np.ndarray) -> np.ndarray:
    """Shells about the body's centre."""
    return np.floor(np.sqrt((p**2).sum(axis=1)) + 0.37) % 2


_MIXES = {
    "checker": _checker,
    "stripes": _stripes,
    "wood": _wood,
    "speckle": _speckle,
    "dots": _dots,
    "zigzag": _zigzag,
    "rings": _rings,
}
PATTERNS = ("plain", *_MIXES)
OBJECT_PATTERNS = ("checker", "stripes", "speckle")
"""Those of textured objects in training scenes; structures have these, "plain" and "wood"."""
NEW_PATTERNS = ("dots", "zigzag", "rings")
"""What no training scene shows."""
