"""Pictures become the numbers that the manifest says, whatever kind of file they are; a bad one is named."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from quantbuild.datasets import image_folder, pictures
from quantbuild.datasets.samples import load
from quantbuild.errors import StepError

# Red, green, blue and grey quarters of 8 × 8 pixels each: large enough to survive JPEG.
QUARTERS = np.zeros((16, 16, 3), np.uint8)
QUARTERS[:8, :8], QUARTERS[:8, 8:], QUARTERS[8:, :8], QUARTERS[8:, 8:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 128


def opened(root: Path, preprocess: dict[str, Any] | None = None, **options: Any) -> Any:
    given = {"path": "photos", **({"preprocess": preprocess} if preprocess else {}), **options}
    samples, _ = load({"loader": "image_folder", "options": given, "samples": None, "seed": 0, "name": "photos"}, root)
    return samples


def only(root: Path, name: str, picture: Image.Image, preprocess: dict[str, Any] | None = None, **how: Any) -> Any:
    """The one sample of a folder that holds one picture."""
    (root / "photos").mkdir()
    picture.save(root / "photos" / name, **how)
    return opened(root, preprocess)[0][""]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def classes(root: Path) -> Path:
    for name, value in (("dog", 20), ("cat", 10), ("emu", 30)):
        for number in range(2):
            (root / "photos" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 4), (value + number, 0, 0)).save(root / "photos" / name / f"{number}.png")
    return root


def test_class_subfolders_are_numbered_in_sorted_order(classes: Path) -> None:
    samples = opened(classes)
    assert samples.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [samples[index][""][0, 0, 0, 0] for index in range(6)] == [10, 11, 20, 21, 30, 31]
    assert samples.slices is None


def test_a_labels_file_gives_labels_and_slices(classes: Path) -> None:
    (classes / "labels.csv").write_text("path,label,slice\ndog/1.png,7,night\n\ncat/0.png,3,day\n")
    samples = opened(classes, labels="labels.csv")
    assert samples.labels.tolist() == [7, 3]
    assert samples.labels.dtype == np.int64
    assert samples.slices == ["night", "day"]
    assert samples[0][""][0, 0, 0, 0] == 21


@pytest.mark.parametrize(
    ("texts", "labels"), [("3 7", [3, 7]), ("0.5 1", [0.5, 1.0]), ("cat 1", ["cat", "1"]), (" ", None)]
)
def test_labels_are_numbers_where_all_are(classes: Path, texts: str, labels: list[Any] | None) -> None:
    first, second = texts.split(" ")
    (classes / "labels.csv").write_text(f"path,label\ncat/0.png,{first}\ncat/1.png,{second}\n")
    found = opened(classes, labels="labels.csv").labels
    assert (None if found is None else found.tolist()) == labels


def test_labels_are_known_without_reading_a_picture(classes: Path) -> None:
    for file in (classes / "photos").rglob("*.png"):
        file.write_bytes(b"no picture")
    assert opened(classes).labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_pictures_without_subfolders_have_no_labels(root: Path) -> None:
    only(root, "b.png", Image.new("RGB", (4, 4)))
    assert opened(root).labels is None


def test_the_inputs_are_the_folder_and_the_labels_file_unless_inside(classes: Path) -> None:
    def files(**more: Any) -> list[str]:
        return image_folder.files(image_folder.Options(path="photos", **more), classes)

    assert files() == ["photos"]
    assert files(labels="labels.csv") == ["photos", "labels.csv"]
    (classes / "photos" / "labels.csv").write_text("path,label\ncat/0.png,1\n")
    assert files(labels="labels.csv") == ["photos"]
    assert opened(classes, labels="labels.csv").labels.tolist() == [1]


def test_pixels_are_rgb_from_0_to_255_as_float32(root: Path) -> None:
    sample = only(root, "a.png", Image.fromarray(QUARTERS))
    assert sample.dtype == np.float32
    assert np.array_equal(sample, QUARTERS[None].astype(np.float32))


def test_preprocessing_is_pixel_minus_mean_over_std(root: Path) -> None:
    how = {"mean": [123.675, 116.28, 103.53], "std": [58.4, 57.12, 57.38]}
    sample = only(root, "a.png", Image.fromarray(QUARTERS), how)
    expected = (QUARTERS[None].astype(np.float32) - np.float32(how["mean"])) / np.float32(how["std"])
    assert np.array_equal(sample, expected)


def test_the_shorter_side_is_resized_then_the_middle_is_cut_out(root: Path) -> None:
    wide = Image.fromarray(np.tile(np.arange(60, dtype=np.uint8)[None, :, None], (20, 1, 3)))
    sample = only(root, "a.png", wide, {"resize": 10, "crop": 8, "interpolation": "nearest"})
    assert sample.shape == (1, 8, 8, 3)
    # 60 × 20 → 30 × 10, of which columns 11 to 18: pixels 22 to 37, every other one.
    assert sample[0, 0, :, 0].tolist() == list(range(23, 38, 2))


@pytest.mark.parametrize(("size", "expected"), [((30, 20), (10, 15)), ((20, 33), (16, 10)), ((7, 7), (10, 10))])
def test_the_longer_side_keeps_the_proportion(root: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert only(root, "a.png", Image.new("RGB", size), {"resize": 10}).shape == (1, *expected, 3)


def test_both_sides_can_be_given_as_height_and_width(root: Path) -> None:
    assert only(root, "a.png", Image.new("RGB", (30, 20)), {"resize": [6, 8], "crop": [4, 2]}).shape == (1, 4, 2, 3)


@pytest.mark.parametrize("name", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_interpolation_is_pillows(root: Path, name: str) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    sample = only(root, "a.png", picture, {"resize": 17, "interpolation": name})
    assert np.array_equal(sample[0], np.asarray(picture.resize((17, 17), Image.Resampling[name.upper()])))


def test_layout_and_dtype(root: Path) -> None:
    sample = only(root, "a.png", Image.fromarray(QUARTERS), {"layout": "NCHW", "dtype": "uint8"})
    assert (sample.shape, sample.dtype) == ((1, 3, 16, 16), np.uint8)
    assert sample[0, :, 0, 0].tolist() == [255, 0, 0]
    signed = opened(root, {"mean": 128, "dtype": "int8"})[0][""]
    assert signed[0, 0, 0].tolist() == [127, -128, -128]


def test_a_whole_number_type_that_would_round_is_refused(root: Path) -> None:
    with pytest.raises(StepError, match=r"photos/a\.png: .* is not all uint8; set dtype"):
        only(root, "a.png", Image.fromarray(QUARTERS), {"std": 255, "dtype": "uint8"})


GREY = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))


def test_grey_is_the_same_in_every_channel(root: Path) -> None:
    sample = only(root, "a.png", GREY)
    assert all(np.array_equal(sample[0, ..., channel], np.asarray(GREY)) for channel in range(3))


def test_one_channel_is_luma(root: Path) -> None:
    sample = only(root, "a.png", Image.fromarray(QUARTERS), {"channels": 1})
    assert sample.shape == (1, 16, 16, 1)
    # ITU-R 601: 0.299 R, 0.587 G, 0.114 B
    assert sample[0, [0, 0, 8, 8], [0, 8, 0, 8], 0].tolist() == [76, 150, 29, 128]


def test_a_palette_is_looked_up_before_resizing(root: Path) -> None:
    palette = Image.fromarray(QUARTERS).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample = only(root, "a.png", palette, {"resize": 8}, transparency=0)
    expected = Image.fromarray(QUARTERS).resize((8, 8), Image.Resampling.BILINEAR)
    assert np.array_equal(sample[0], np.asarray(expected))


def test_one_bit_is_black_and_white(root: Path) -> None:
    sample = only(root, "a.png", Image.fromarray(np.eye(8, dtype=bool)))
    assert np.array_equal(sample[0, ..., 1], np.eye(8) * 255)


def test_colours_behind_transparency_are_taken_as_stored(root: Path) -> None:
    alpha = np.dstack([QUARTERS, np.full((16, 16), 3, np.uint8)])
    assert np.array_equal(only(root, "a.png", Image.fromarray(alpha))[0], QUARTERS)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_of_sixteen_bits_the_upper_eight_are_taken(root: Path, suffix: str) -> None:
    values = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    sample = only(root, f"a.{suffix}", Image.fromarray(values))
    assert np.array_equal(sample[0, ..., 2], values >> 8)


def test_thirty_two_bits_are_refused(root: Path) -> None:
    with pytest.raises(StepError, match=r"photos/a\.tif: has 32 bits a sample"):
        only(root, "a.tif", Image.fromarray(np.ones((4, 4), np.float32)))


def test_cmyk_is_turned_into_rgb(root: Path) -> None:
    sample = only(root, "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=100)
    assert np.abs(sample[0] - np.array([255, 0, 0])).max() <= 2


def test_a_picture_is_turned_upright(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # taken with the camera turned: rotate clockwise to show
    sample = only(root, "a.png", Image.fromarray(QUARTERS), exif=exif.tobytes())
    assert np.array_equal(sample[0], np.rot90(QUARTERS, -1))


def test_of_several_frames_the_first_is_taken(root: Path) -> None:
    frames = [Image.new("RGB", (4, 4), (value, 0, 0)) for value in (9, 200)]
    assert only(root, "a.gif", frames[0], save_all=True, append_images=frames[1:])[0, 0, 0, 0] == 9


@pytest.mark.parametrize("suffix", [suffix for suffix in pictures.SUFFIXES if suffix not in (".pbm", ".jfif")])
def test_every_format_named_is_read(root: Path, suffix: str) -> None:
    sample = only(root, f"a{suffix}", Image.new("RGB", (16, 16), (200, 100, 50)))
    assert np.abs(sample[0, 8, 8] - [200, 100, 50]).max() <= 2 or suffix in (".gif", ".pgm")


def test_what_an_interpreter_would_have_to_run_is_no_picture(root: Path) -> None:
    Image.new("RGB", (16, 16)).save(root / "a.eps")
    (root / "photos").mkdir()
    (root / "a.eps").rename(root / "photos" / "a.png")
    with pytest.raises(StepError, match="it is of no known format"):
        opened(root)[0]


def jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is empty"),
        (b"hello, this is text", "it is of no known format"),
        (jpeg()[:-900], "image file is truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, ""),
    ],
    ids=["empty", "text", "truncated", "damaged"],
)
def test_a_corrupt_picture_is_named(root: Path, content: bytes, problem: str) -> None:
    (root / "photos").mkdir()
    (root / "photos" / "bad.jpg").write_bytes(content)
    samples = opened(root)
    with pytest.raises(
        StepError, match=rf"^photos/bad\.jpg: cannot be read as a picture \(.*{problem}.*\); repair"
    ) as e:
        samples[0]
    assert str(root) not in str(e.value)


def test_a_picture_smaller_than_its_crop_is_refused(root: Path) -> None:
    with pytest.raises(StepError, match=r"photos/a\.png: is 16 × 16 pixels where crop asks for 20 × 20; set resize"):
        only(root, "a.png", Image.fromarray(QUARTERS), {"crop": 20})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\n", "begins with file,label; begin it with path,label"),
        ("", "begins with nothing"),
        ("path,label\ncat/9.png,1\n", 'line 2: "cat/9.png" is no file in photos; write it relative to that folder'),
        ("path,label\n../secret.png,1\n", "line 2: .* is no file in photos"),
        ("path,label\ncat/0.png,1\ncat/1.png,\n", "line 3: has no label while others have one"),
        ("path,label\ncat/0.png,1,2\n", "line 2: has 3 columns of 2"),
        ("path,label,slice\ncat/0.png,1,\n", "line 2: has no slice"),
        ("path,label\n", "holds no sample"),
    ],
)
def test_a_labels_file_that_cannot_serve_is_refused(classes: Path, content: str, message: str) -> None:
    (classes / "labels.csv").write_text(content)
    (classes / "secret.png").write_bytes(b"")
    with pytest.raises(StepError, match=message):
        opened(classes, labels="labels.csv")


def test_what_is_no_picture_by_its_name_is_not_passed_over(classes: Path) -> None:
    (classes / "photos" / "cat" / ".thumbnails").mkdir()
    for hidden in (".DS_Store", ".thumbnails/0.png"):
        (classes / "photos" / "cat" / hidden).write_bytes(b"")
    assert len(opened(classes)) == 6
    (classes / "photos" / "cat" / "notes.txt").write_text("")
    with pytest.raises(StepError, match=r"photos/cat/notes\.txt: is no picture by its name"):
        opened(classes)


def test_a_picture_beside_class_subfolders_is_refused(classes: Path) -> None:
    (classes / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(StepError, match=r"photos/a\.png: lies beside class subfolders"):
        opened(classes)


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ({"mean": [1, 2]}, "mean: has 2 numbers; give one, or 3"),
        ({"std": [1, 0, 1]}, "std: is 0"),
        (
            {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
            "std: is below 1.*; multiply mean and std by 255",
        ),
        ({"interpolation": "cubic"}, "cubic"),
        ({"resize": 0}, "1"),
    ],
)
def test_preprocessing_that_makes_no_sense_is_refused_in_the_manifest(preprocess: Any, message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"path": "photos", "preprocess": preprocess}, image_folder.Options)


def test_a_folder_that_a_link_leads_to_is_read_as_it_is_digested(classes: Path) -> None:
    (classes / "photos" / "cat").rename(classes / "elsewhere")
    (classes / "photos" / "cat").mkdir()
    (classes / "photos" / "cat" / "more").symlink_to(classes / "elsewhere")
    assert opened(classes).labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_colours_that_pillow_cannot_convert_are_refused_with_the_file(root: Path) -> None:
    with pytest.raises(
        StepError, match=r"photos/a\.tif: has colours of kind LAB, which Pillow makes no L of; save it as"
    ):
        only(root, "a.tif", Image.new("LAB", (4, 4)), {"channels": 1})
