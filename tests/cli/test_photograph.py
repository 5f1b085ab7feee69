"""A photograph keeps what it is: channels, depth, every value outside the hole; turned upright."""

import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile  # scikit-image brings it
from PIL import Image, ImageOps

from helpers.photos import chunk, draw_photo, png
from ssl_bench.errors import DataError
from ssl_bench.pictures.photograph import Photograph, read_photograph

WIDTH, HEIGHT = 40, 33
ORIENTATION = 0x0112  # the EXIF tag
EIGHT: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "grey": (lambda rgb: rgb.convert("L"), "L"),  # and the mode that it is read in
    "bilevel": (lambda rgb: rgb.convert("1"), "L"),
    "grey-alpha": (lambda rgb: with_alpha(rgb.convert("L")), "LA"),
    "rgb": (lambda rgb: rgb, "RGB"),
    "rgba": (lambda rgb: with_alpha(rgb), "RGBA"),
    "palette": (lambda rgb: rgb.quantize(64), "RGB"),
    "transparent palette": (lambda rgb: transparent(rgb.quantize(8), bytes([0, 128])), "RGBA"),
    "transparent grey": (lambda rgb: transparent(rgb.convert("L"), 128), "LA"),
    "transparent colour": (lambda rgb: transparent(rgb, rgb.getpixel((3, 4))), "RGBA"),
}
CHANNELS = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # a PNG's colour type, by channels
DEPTHS = [np.uint8, np.uint16]


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def transparent(image: Image.Image, what: object) -> Image.Image:
    """Carries no alpha, but the colour or the colours that are none."""
    image.info["transparency"] = what
    return image


def drawn(channels: int, depth: type = np.uint16, seed: int = 0) -> np.ndarray:
    shape = HEIGHT, WIDTH, channels
    return np.random.default_rng(seed).integers(0, np.iinfo(depth).max + 1, shape, depth)


def deep(values: np.ndarray, *more: bytes) -> bytes:
    """A PNG of 16 bits, uint16 (H, W, C); Pillow writes grey ones only."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, zlib.compress(rows), *more, depth=16, colour=TYPES[channels])


def again(photograph: Photograph, folder: Path) -> np.ndarray:
    """Its values after a round through a PNG."""
    path = folder / "saved.png"
    photograph.save(path)
    with Image.open(path) as image:
        assert image.format == "PNG"
    return read_photograph(path).values


# ---- kinds
@pytest.mark.parametrize("kind", EIGHT)
def test_eight_bits_are_read_and_kept_as_they_are(tmp_path: Path, kind: str) -> None:
    make, mode = EIGHT[kind]
    image = make(draw_photo(0, WIDTH, HEIGHT))
    image.save(tmp_path / "image.png")
    photograph = read_photograph(tmp_path / "image.png")
    expected = np.asarray(image.convert(mode)).reshape(HEIGHT, WIDTH, CHANNELS[mode])
    assert photograph.values.dtype == np.uint8
    assert photograph.size == (HEIGHT, WIDTH)
    np.testing.assert_array_equal(photograph.values, expected)
    np.testing.assert_array_equal(again(photograph, tmp_path), expected)
    with Image.open(tmp_path / "saved.png") as saved:
        assert saved.mode == mode


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpegs_are_read_as_pillow_reads_them(tmp_path: Path, mode: str) -> None:
    draw_photo(0, WIDTH, HEIGHT).convert(mode).save(tmp_path / "image.jpg")
    photograph = read_photograph(tmp_path / "image.jpg")
    shown = "L" if mode == "L" else "RGB"
    with Image.open(tmp_path / "image.jpg") as image:
        expected = np.asarray(image.convert(shown)).reshape(HEIGHT, WIDTH, CHANNELS[shown])
    np.testing.assert_array_equal(photograph.values, expected)
    np.testing.assert_array_equal(again(photograph, tmp_path), expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_read_and_kept_as_they_are(tmp_path, channels, suffix):
    values, path = drawn(channels), tmp_path / f"image.{suffix}"
    if suffix == "png":
        path.write_bytes(deep(values))
    else:
        tifffile.imwrite(path, values.squeeze())
    photograph = read_photograph(path)
    assert photograph.values.dtype == np.uint16
    np.testing.assert_array_equal(photograph.values, values)
    np.testing.assert_array_equal(again(photograph, tmp_path), values)


def test_what_is_saved_is_right_for_other_programs(tmp_path: Path) -> None:
    """By OpenCV, whose order is blue, green, red, alpha."""
    values = drawn(4)
    Photograph(values).save(tmp_path / "saved.png")
    read = cv2.imread(str(tmp_path / "saved.png"), cv2.IMREAD_UNCHANGED)
    assert read is not None
    np.testing.assert_array_equal(read[..., [2, 1, 0, 3]], values)


def test_sixteen_bit_grey_with_alpha_keeps_its_values(tmp_path: Path) -> None:
    """As colours that are grey: OpenCV has no other place for the alpha."""
    values, path = drawn(2), tmp_path / "image.png"
    path.write_bytes(deep(values))
    photograph = read_photograph(path)
    for found in (photograph.values, again(photograph, tmp_path)):
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found[..., -1], values[..., 1])
        for colour in range(found.shape[2] - 1):
            np.testing.assert_array_equal(found[..., colour], values[..., 0])


def test_sixteen_bits_in_memory_are_saved_with_their_alpha(tmp_path: Path) -> None:
    values = drawn(2)
    found = again(Photograph(values), tmp_path)
    np.testing.assert_array_equal(found[..., 0], values[..., 0])
    np.testing.assert_array_equal(found[..., -1], values[..., 1])


# How else a scanner or a microscope writes 16 bits: the file of values, and their white.
WAYS: dict[str, tuple[str, int, int, Callable[[Path, np.ndarray], object]]] = {
    "10-bit PGM": ("pgm", 1, 1023, lambda path, values: netpbm(path, values, 1023)),
    "12-bit PPM": ("ppm", 3, 4095, lambda path, values: netpbm(path, values, 4095)),
    "big-endian TIFF": (
        "tif", 3, 65535, lambda path, values: tifffile.imwrite(path, values, byteorder=">")
    ),
    "planar TIFF": (
        "tif", 3, 65535,
        lambda path, values: tifffile.imwrite(
            path, np.moveaxis(values, 2, 0), photometric="rgb", planarconfig="separate"
        ),
    ),
    "TIFF whose white is 0": (
        "tif", 1, 65535,
        lambda path, values: tifffile.imwrite(
            path, 65535 - values[..., 0], photometric="miniswhite"
        ),
    ),
    "JPEG 2000": (
        "jp2", 1, 65535, lambda path, values: Image.fromarray(values[..., 0]).save(path)
    ),
}  # fmt: skip


def netpbm(path: Path, values: np.ndarray, white: int) -> None:
    kind = 5 if values.shape[2] == 1 else 6
    header = f"P{kind}\n{WIDTH} {HEIGHT}\n{white}\n".encode()
    path.write_bytes(header + values.astype(">u2").tobytes())


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_writing_sixteen_bits_is_misread(tmp_path: Path, way: str) -> None:
    """Right to half a step of 8 bits, or refused by name; never another picture in silence."""
    suffix, channels, white, write = WAYS[way]
    values = (drawn(channels).astype(np.uint32) * white // 65535).astype(np.uint16)
    write(tmp_path / f"image.{suffix}", values)
    try:
        found = read_photograph(tmp_path / f"image.{suffix}").rgb
    except DataError:
        refused(tmp_path / f"image.{suffix}")
        return
    assert np.abs(found - values / white).max() <= 0.5 / 255


# ---- filling
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_nothing_but_the_colours_of_the_hole_changes(channels: int, depth: type) -> None:
    values = drawn(channels, depth)
    before = values.copy()
    hole = np.random.default_rng(1).random((HEIGHT, WIDTH)) < 0.3
    content = np.random.default_rng(2).random((HEIGHT, WIDTH, 3), np.float32)
    filled = Photograph(values).with_hole_filled(hole, content).values
    colours = channels - (channels % 2 == 0)
    assert filled.dtype == depth
    np.testing.assert_array_equal(filled[~hole], before[~hole])
    np.testing.assert_array_equal(filled[..., colours:], before[..., colours:])
    assert (filled[hole, :colours] != before[hole, :colours]).mean() > 0.9
    np.testing.assert_array_equal(values, before)  # the photograph itself stays


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_level_that_is_put_in_comes_out(depth: type) -> None:
    """Level k of n is k / n, and back: no rounding, no order of the colours lost."""
    levels, peak = drawn(3, depth, seed=3), np.iinfo(depth).max
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    photograph = Photograph(drawn(4, depth))
    filled = photograph.with_hole_filled(everywhere, (levels / peak).astype(np.float32))
    np.testing.assert_array_equal(filled.values[..., :3], levels)
    np.testing.assert_array_equal(Photograph(levels).rgb, (levels / peak).astype(np.float32))


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("channels", [1, 2])
def test_grey_takes_pillow_s_luma(channels: int, depth: type) -> None:
    content = np.asarray(draw_photo(4, WIDTH, HEIGHT))
    everywhere = np.ones((HEIGHT, WIDTH), bool)
    photograph = Photograph(drawn(channels, depth))
    filled = photograph.with_hole_filled(everywhere, (content / 255).astype(np.float32))
    expected = np.asarray(Image.fromarray(content).convert("L")).astype(int)
    found = filled.values[..., 0] / (np.iinfo(depth).max / 255)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_contents_span_the_depth_and_stop_at_its_ends(channels: int, depth: type) -> None:
    content = np.array([-0.5, 0, 1, 1.5], np.float32).repeat(3).reshape(1, 4, 3)
    photograph = Photograph(np.full((1, 4, channels), 7, depth))
    filled = photograph.with_hole_filled(np.ones((1, 4), bool), content).values
    peak = np.iinfo(depth).max
    assert filled[0, :, 0].tolist() == [0, 0, peak, peak]
    assert filled[0, :, -1].tolist() == [0, 0, peak, peak]


# ---- upright
def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Pillow's own turning, of uint8 (H, W, C) or of the two bytes of uint16."""
    if values.dtype == np.uint16:
        halves = [turned((values >> shift).astype(np.uint8), orientation) for shift in (8, 0)]
        return halves[0].astype(np.uint16) << 8 | halves[1]
    image = Image.fromarray(values.squeeze())
    image.getexif()[ORIENTATION] = orientation
    upright = np.asarray(ImageOps.exif_transpose(image))
    return upright.reshape(*upright.shape[:2], values.shape[2])


def block(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif.tobytes()


def tagged(orientation: int) -> bytes:
    """The chunk of a PNG."""
    return chunk(b"eXIf", block(orientation).removeprefix(b"Exif\0\0"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_eight_bits_are_turned_as_pillow_turns_them(tmp_path: Path, orientation: int) -> None:
    for name in ("image.jpg", "image.png"):
        draw_photo(5, WIDTH, HEIGHT).save(tmp_path / name, exif=block(orientation))
        with Image.open(tmp_path / name) as image:
            lying = np.asarray(image)
            upright = np.asarray(ImageOps.exif_transpose(image))
        photograph = read_photograph(tmp_path / name)
        np.testing.assert_array_equal(photograph.values, upright)
        assert np.array_equal(upright, lying) == (orientation == 1)
        np.testing.assert_array_equal(again(photograph, tmp_path), upright)  # and not once more


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_turned_alike(tmp_path, suffix, channels, orientation):
    values, path = drawn(channels), tmp_path / f"image.{suffix}"
    if suffix == "png":
        path.write_bytes(deep(values, tagged(orientation)))
    else:
        tag = (ORIENTATION, "H", 1, orientation, True)
        tifffile.imwrite(path, values.squeeze(), extratags=[tag])
    expected = turned(values, orientation)
    assert np.array_equal(expected, values) == (orientation == 1)
    photograph = read_photograph(path)
    np.testing.assert_array_equal(photograph.values, expected)
    np.testing.assert_array_equal(again(photograph, tmp_path), expected)


# ---- refused
def refused(path: Path) -> None:
    with pytest.raises(DataError) as raised:
        read_photograph(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "--skip-bad-images" not in str(raised.value)  # which `bench inpaint` does not take


@pytest.mark.parametrize("name", ["image.jpg", "image.png", "image.tif"])
def test_text_and_nothing_are_no_image(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    for content in ("a shopping list", ""):
        path.write_text(content)
        refused(path)


@pytest.mark.filterwarnings("ignore:::PIL")  # Pillow warns of some damage before it fails
@pytest.mark.parametrize("name", ["image.jpg", "image.png", "sixteen.png", "sixteen.tif"])
def test_half_a_file_is_no_image(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "sixteen.png":
        path.write_bytes(deep(drawn(3)))
    elif name == "sixteen.tif":
        tifffile.imwrite(path, drawn(3))
    else:
        draw_photo(6).save(path)
    read_photograph(path)  # whole it is one
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_white_are_refused(tmp_path: Path, mode: str) -> None:
    draw_photo(7).convert("L").convert(mode).save(tmp_path / "image.tif")
    refused(tmp_path / "image.tif")


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_photo(8, 20, 20).save(tmp_path / "image.png")
    read_photograph(tmp_path / "image.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(tmp_path / "image.png")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "image.png")
