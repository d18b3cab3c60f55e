"""The rules by name: what each looks at. A model can silence one with ``lint_ignore``."""

from __future__ import annotations

from typing import Literal, get_args

Rule = Literal[
    "bimodal",
    "channel_order",
    "coarse_step",
    "constant",
    "constant_output",
    "duplicates",
    "few_samples",
    "first_layers",
    "guessing",
    "labels",
    "layout",
    "noise",
    "overlap",
    "range",
    "saturated_output",
    "uneven_channels",
    "unstable",
]

RULES: tuple[str, ...] = get_args(Rule)

MEANING = {
    "bimodal": "No tensor is driven much further by some calibration samples than by the others.",
    "channel_order": "Channels of the calibration and the evaluation set are in one order.",
    "coarse_step": "An int8 step over a tensor's range is small beside its usual values.",
    "constant": "Samples are not constant.",
    "constant_output": "Every output depends on the sample.",
    "duplicates": "No sample is there twice.",
    "few_samples": "There are enough calibration samples.",
    "first_layers": "Inputs are not scaled already that the model scales itself.",
    "guessing": "float32 itself is right more often than guessing would be.",
    "labels": "The calibration samples are of most of the model's classes.",
    "layout": "Pictures of the calibration and the evaluation set have one layout.",
    "noise": "Pictures are no random noise.",
    "overlap": "No calibration sample is in the evaluation set.",
    "range": "Inputs of the calibration and the evaluation set have one scale.",
    "saturated_output": "Outputs are not cut off at the ends of their integer range.",
    "uneven_channels": "No channel of a tensor is far louder than most of its others.",
    "unstable": "Two halves of the calibration samples give similar ranges.",
}
