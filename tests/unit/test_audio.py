"""Sound files become the numbers that the manifest says; a bad one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from quantbuild.datasets import audio
from quantbuild.datasets.samples import load
from quantbuild.errors import StepError

RATE = 8000
TONE = np.sin(np.arange(RATE // 2) * 2 * np.pi * 440 / RATE).astype(np.float32) * 0.5


def opened(root: Path, **options: Any) -> Any:
    given = {"path": "clips", "sample_rate": RATE, **options}
    samples, _ = load({"loader": "audio", "options": given, "samples": None, "seed": 0, "name": "speech"}, root)
    return samples


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, values in (("yes", TONE), ("no", -TONE)):
        (tmp_path / "clips" / name).mkdir(parents=True)
        soundfile.write(tmp_path / "clips" / name / "a.wav", values, RATE, subtype="FLOAT")
    return tmp_path


def test_class_subfolders_are_numbered_in_sorted_order(root: Path) -> None:
    samples = opened(root)
    assert samples.labels.tolist() == [0, 1]
    assert samples[1][""].dtype == np.float32
    assert np.array_equal(samples[1][""], TONE[None])


def test_a_labels_file_gives_labels_and_slices(root: Path) -> None:
    (root / "labels.csv").write_text("path,label,slice\nyes/a.wav,4,loud\n")
    samples = opened(root, labels="labels.csv")
    assert (samples.labels.tolist(), samples.slices) == ([4], ["loud"])
    assert audio.files(audio.Options(path="clips", labels="labels.csv", sample_rate=1), root) == ["clips", "labels.csv"]


def test_the_channel_axis_is_an_option(root: Path) -> None:
    assert opened(root, channel_axis=True)[0][""].shape == (1, len(TONE), 1)


@pytest.mark.parametrize(("seconds", "length"), [(0.25, RATE // 4), (1.0, RATE)])
def test_a_clip_is_cut_or_padded_to_its_duration(root: Path, seconds: float, length: int) -> None:
    clip = opened(root, duration_seconds=seconds)[1][""]
    assert clip.shape == (1, length)
    kept = min(length, len(TONE))
    assert np.array_equal(clip[0, :kept], TONE[:kept])
    assert not clip[0, kept:].any()


def test_another_rate_is_an_error_unless_it_may_be_resampled(root: Path) -> None:
    with pytest.raises(StepError, match=r"clips/no/a\.wav: has 8000 Hz, sample_rate is 16000; .*resample = true"):
        opened(root, sample_rate=16000)[0]
    clip = opened(root, sample_rate=16000, resample=True)[1][""][0]
    expected = np.sin(np.arange(RATE) * 2 * np.pi * 440 / 16000) * 0.5
    assert len(clip) == RATE
    assert np.abs(clip[500:-500] - expected[500:-500]).max() < 0.002


def test_channels_are_averaged_only_when_asked(root: Path) -> None:
    soundfile.write(root / "clips" / "no" / "a.wav", np.stack([TONE, TONE / 2], axis=1), RATE, subtype="FLOAT")
    with pytest.raises(StepError, match=r"clips/no/a\.wav: has 2 channels; set mono = true"):
        opened(root)[0]
    assert np.allclose(opened(root, mono=True)[0][""][0], TONE * 0.75)
    assert opened(root, channel_axis=True)[0][""].shape == (1, len(TONE), 2)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_U8", "ULAW"])
def test_full_scale_is_one_whatever_the_coding(root: Path, subtype: str) -> None:
    soundfile.write(root / "clips" / "no" / "a.wav", TONE, RATE, subtype=subtype)
    assert np.abs(opened(root)[0][""][0] - TONE).max() < 0.02


@pytest.mark.parametrize("content", [b"", b"RIFF no sound", b"RIFF\x24\0\0\0WAVEfmt "])
def test_a_corrupt_file_is_named(root: Path, content: bytes) -> None:
    (root / "clips" / "no" / "a.wav").write_bytes(content)
    with pytest.raises(
        StepError, match=r"^clips/no/a\.wav: cannot be read as sound \(.+\); repair or remove it"
    ) as found:
        opened(root)[0]
    assert str(root) not in str(found.value)


def test_a_file_without_sound_is_named(root: Path) -> None:
    soundfile.write(root / "clips" / "no" / "a.wav", TONE[:0], RATE)
    with pytest.raises(StepError, match=r"clips/no/a\.wav: holds no sound"):
        opened(root)[0]


def test_what_is_no_sound_by_its_name_is_refused(root: Path) -> None:
    (root / "clips" / "no" / "b.mp3").write_bytes(b"")
    with pytest.raises(StepError, match=r"clips/no/b\.mp3: is no sound file .\.wav or \.flac. by its name"):
        opened(root)


def test_a_file_that_cannot_be_opened_is_told_with_the_systems_word(root: Path) -> None:
    samples = opened(root)
    (root / "clips" / "no" / "a.wav").unlink()
    (root / "clips" / "no" / "a.wav").mkdir()
    with pytest.raises(
        StepError, match=r"^clips/no/a\.wav: cannot be read as sound \(Is a directory\); repair or remove it"
    ):
        samples[0]
