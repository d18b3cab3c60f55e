"""Rules about one set of samples by itself: constant, doubled or too few samples, noise, classes that are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from quantbuild.lint.facts import InputFacts, SetFacts
from quantbuild.lint.findings import Finding, Severity, numbers_text

FEW, SOME = 50, 100
"""MobileNetV2's accuracy varied by 4.0 points from draw to draw of 10 calibration pictures, by 1.6 of 100."""
NEIGHBOURS_APART = 0.1
"""Correlation of neighbouring pixels below which there is no picture. Noise of 10 pictures of 8 × 8 gives 0.04 at
most, the 8 × 8 digits 0.37, photographs of textures 0.2 and more unless every pixel but a few is thrown away."""
LIKE_A_GENERATOR = 0.06
"""Distance from a uniform or normal distribution up to which values look drawn from one. Noise of 640 values gives
0.05 at most (Kolmogorov's bound at 5 %), digits and clothes 0.4."""
MANY = 0.1
"""Share of the samples from which an oddity of single samples is a warning."""
TELLING_ELEMENTS = 64
"""A sample of fewer integers may well come twice."""


def findings(facts: SetFacts) -> list[Finding]:
    """Return what is wrong with a set whatever it is for."""
    found = [finding for each in facts.inputs for finding in (*_constant(facts, each), *_noise(facts, each))]
    return [*found, *_duplicates(facts)]


def few_samples(facts: SetFacts) -> list[Finding]:
    """Return whether there are too few samples to calibrate on."""
    if facts.samples >= SOME:
        return []
    message = (
        f"{facts.dataset}: ranges are taken from {facts.samples} samples, and depend on which ones; "
        f"give it {SOME} or more"
    )
    severity: Severity = "warning" if facts.samples < FEW else "info"
    figures = {"samples": facts.samples}
    return [Finding(rule="few_samples", severity=severity, subject=facts.dataset, message=message, figures=figures)]


def missing_classes(facts: SetFacts, labels: list[int], classes: int) -> list[Finding]:
    """Return whether most classes are missing, as in the head of a sorted set; `labels` are those calibrated on."""
    found = len(set(labels))
    # How many of them a fair draw of so many samples would have.
    expected = classes * (1 - (1 - 1 / classes) ** len(labels))
    if classes < 2 or found > expected / 2:
        return []
    message = (
        f"{facts.dataset}: its {len(labels)} samples are of {found} of the model's {classes} classes, as at the "
        "beginning of a sorted set; draw them from all of it"
    )
    figures = {"classes": classes, "found": found, "expected": expected}
    return [Finding(rule="labels", severity="warning", subject=facts.dataset, message=message, figures=figures)]


def can_repeat(facts: SetFacts) -> bool:
    """Whether two samples may be the same by chance: a few integers, such as a category."""
    return all(each.kind == "integers" and _elements(each) < TELLING_ELEMENTS for each in facts.inputs)


def _constant(facts: SetFacts, each: InputFacts) -> Iterator[Finding]:
    """All constant is ruin where the model sees nothing else; one input of many may be so (a mask, a first state)."""
    share = len(each.constant) / facts.samples
    if not each.constant or _elements(each) < 2 or each.kind == "integers":
        return
    what = "nothing but zeros" if len(each.zero) == len(each.constant) else "one value throughout"
    if share == 1:
        alone = len(facts.inputs) == 1
        severity: Severity = "error" if alone else "warning"
        problem = f'input "{each.name}" holds {what} in every sample'
    else:
        severity = "warning" if share >= MANY else "info"
        count = f"{len(each.constant)} of {facts.samples} samples"
        problem = f'input "{each.name}" holds {what} in {count} ({numbers_text(list(each.constant))})'
    message = f"{facts.dataset}: {problem}; look at how the samples are read"
    figures = {"input": each.name, "share": share, "samples": list(each.constant[:20])}
    yield Finding(rule="constant", severity=severity, subject=facts.dataset, message=message, figures=figures)


def _noise(facts: SetFacts, each: InputFacts) -> Iterator[Finding]:
    image = each.image
    if image is None or not each.std or max(abs(image.down), abs(image.across)) >= NEIGHBOURS_APART:
        return
    uniform, normal = each.from_uniform or 0.0, each.from_normal or 0.0
    drawn = "uniform" if uniform <= LIKE_A_GENERATOR else "normal" if normal <= LIKE_A_GENERATOR else None
    looks = f" and its values are {drawn}ly distributed" if drawn else ""
    message = (
        f'{facts.dataset}: input "{each.name}" looks like random noise: neighbouring pixels have nothing in common '
        f"(correlation {image.down:.2f} down, {image.across:.2f} across){looks}; give it real samples, read in the "
        "model's layout"
    )
    figures = {
        "input": each.name, "down": image.down, "across": image.across, "from_uniform": uniform, "from_normal": normal,
    }  # fmt: skip
    severity: Severity = "error" if drawn else "warning"
    yield Finding(rule="noise", severity=severity, subject=facts.dataset, message=message, figures=figures)


def _duplicates(facts: SetFacts) -> Iterator[Finding]:
    counted, samples = Counter(facts.digests), len(facts.digests)
    repeated = samples - len(counted)
    if repeated == 0 or can_repeat(facts):
        return
    share = repeated / samples
    first: dict[str, int] = {}
    pairs = []
    for number, found in zip(facts.numbers, facts.digests, strict=True):
        if found in first:
            pairs.append([first[found], number])
        else:
            first[found] = number
    if len(counted) == 1:
        problem = f"all its {samples} samples are the same one"
        severity: Severity = "error"
    else:
        shown = ", ".join(f"{one} and {other}" for one, other in pairs[:3])
        problem = f"{repeated} of {samples} samples are doubles of others ({shown})"
        severity = "warning" if share >= MANY else "info"
    message = f"{facts.dataset}: {problem}; remove the doubles"
    figures = {"repeated": repeated, "share": share, "pairs": pairs[:20]}
    yield Finding(rule="duplicates", severity=severity, subject=facts.dataset, message=message, figures=figures)


def _elements(each: InputFacts) -> int:
    count = 1
    for size in each.shape:
        count *= size
    return count
