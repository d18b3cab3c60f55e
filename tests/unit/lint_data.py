"""Sample sets for the lint's tests: the shipped examples' own pictures, and what people do to such by mistake."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbuild.lint.facts import SetFacts
from quantbuild.lint.findings import Finding
from quantbuild.lint.fingerprint import Fingerprint, Port

EXAMPLES = Path(__file__).parents[2] / "examples"
Pictures = NDArray[np.float32]


@cache
def example(name: str) -> tuple[Pictures, Pictures]:
    """The calibration and the evaluation pictures of a shipped example, [n, h, w, 1] from 0 to 1."""
    with np.load(EXAMPLES / name / f"{name}.npz") as arrays:
        if name == "digits":
            return arrays["x_calibration"], arrays["x_test"]
        return tuple((arrays[key] / 255).astype(np.float32) for key in ("x_train", "x_test"))  # type: ignore[return-value]


def noise(pictures: Pictures) -> Pictures:
    return np.random.default_rng(0).random(pictures.shape, np.float32)


def normal_noise(pictures: Pictures) -> Pictures:
    return np.random.default_rng(0).standard_normal(pictures.shape, np.float32)


def byte_noise(pictures: Pictures) -> Pictures:
    return (np.random.default_rng(0).integers(0, 256, pictures.shape) / 255).astype(np.float32)


def zeros(pictures: Pictures) -> Pictures:
    return np.zeros_like(pictures)


WRONG_SCALES: dict[str, Callable[[Pictures], Pictures]] = {
    "0 to 255": lambda x: x * 255,
    "-1 to 1": lambda x: x * 2 - 1,
    "divided twice": lambda x: x / 255,
    "by mean and std": lambda x: (x - np.float32(0.1307)) / np.float32(0.3081),
}


def facts_of(*inputs: NDArray[Any], name: str = "calibration", names: tuple[str, ...] = ("image",)) -> SetFacts:
    """The facts of a set whose inputs are given as [n, ...] each; a sample has a batch axis of 1."""
    ports = [Port(each, (1, *array.shape[1:]), array.dtype) for each, array in zip(names, inputs, strict=True)]
    fingerprint = Fingerprint(name, ports, len(inputs[0]))
    for number in range(len(inputs[0])):
        fingerprint.add(number, {each: array[number : number + 1] for each, array in zip(names, inputs, strict=True)})
    return fingerprint.facts()


def summary(found: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.rule, finding.severity) for finding in found]


def serious(found: list[Finding]) -> list[tuple[str, str]]:
    return [pair for pair in summary(found) if pair[1] != "info"]


def colour_pictures(count: int = 80, size: int = 32, seed: int = 0) -> Pictures:
    """Made-up scenes: smooth light, some edges, a warm cast that differs from scene to scene; [n, size, size, 3]."""
    chance = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    found = []
    for _ in range(count):
        light = sum(chance.normal() * np.cos(chance.uniform(0, 9) * x + chance.uniform(0, 9) * y) for _ in range(4))
        edge = (chance.uniform(0, 1) * x + chance.uniform(0, 1) * y > chance.uniform(0.2, 0.9)) * chance.normal()
        cast = np.array([0.08, 0.0, -0.08]) + chance.normal(size=3) * 0.05
        scene = 0.5 + 0.15 * (light + edge)[..., None] + cast + chance.normal(size=(size, size, 3)) * 0.01
        found.append(np.clip(scene, 0, 1))
    return np.stack(found).astype(np.float32)
