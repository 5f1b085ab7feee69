"""Decoding: photographs that a camera turned, and more than 8 bits a channel."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

from helpers.photos import draw_photo
from helpers.voc_folders import make_year, refused
from ssl_bench import catalogue
from ssl_bench.data.store.squares import open_store
from ssl_bench.data.store.whole import open_whole
from ssl_bench.errors import DataError

ORIENTATION = 0x0112  # the EXIF tag

pytestmark = pytest.mark.usefixtures("cache")  # its own for each test


def whole(folder: Path) -> np.ndarray:
    """The only image of a folder, uint8 (H, W, 3)."""
    dataset = catalogue.dataset(f"folder:{folder}")
    store = open_whole(dataset, "train", "classification", None, 1000, workers=0)
    return store.images(slice(None))[0].permute(1, 2, 0).numpy()


def square(folder: Path) -> np.ndarray:
    """The same as it is stored for crops of 32 px, uint8 (36, 36, 3)."""
    dataset = catalogue.dataset(f"folder:{folder}")
    return np.array(open_store(dataset, "train", 32, workers=0).pixels[0])


def tagged(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


# ---- orientation
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_of_a_folder_is_turned_upright(tmp_path, orientation, suffix):
    """As Pillow turns it, before the square is cut: sides of 80 and 60 px."""
    path = tmp_path / f"photo.{suffix}"
    draw_photo(5, 80, 60).save(path, exif=tagged(orientation))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    assert expected.shape == ((60, 80, 3) if orientation < 5 else (80, 60, 3))
    np.testing.assert_array_equal(whole(tmp_path), expected)
    draw_photo(5, 80, 60).save(path)
    assert np.array_equal(whole(tmp_path), np.asarray(expected)) == (orientation == 1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_square_is_cut_from_the_upright_photograph(tmp_path: Path, orientation: int) -> None:
    for name in ("turned", "upright"):
        (tmp_path / name).mkdir()
    path = tmp_path / "turned" / "photo.png"
    draw_photo(5, 83, 60).save(path, exif=tagged(orientation))  # 83: the margins differ
    with Image.open(path) as image:
        ImageOps.exif_transpose(image).save(tmp_path / "upright" / "photo.png", exif=b"")
    np.testing.assert_array_equal(square(tmp_path / "turned"), square(tmp_path / "upright"))


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, orientation: int) -> None:
    photo = draw_photo(5, 80, 60)
    photo.save(tmp_path / "photo.png", exif=tagged(orientation))
    np.testing.assert_array_equal(whole(tmp_path), photo)


def test_voc_is_read_as_it_lies_in_the_file(tmp_path: Path) -> None:
    """Its boxes and masks are in pixels of the file, whatever EXIF says."""
    year = make_year(tmp_path / "VOC2007")
    path = year / "JPEGImages" / "000001.jpg"
    draw_photo(5, 80, 60).save(path, exif=tagged(6))
    dataset = catalogue.dataset(f"voc:{year}")
    store = open_whole(dataset, "train", "detection", None, 1000, workers=0)
    assert store.sizes[0].tolist() == [60, 80]
    with Image.open(path) as image:
        pixels = store.images(np.array([0]))[0].permute(1, 2, 0)
        np.testing.assert_array_equal(pixels, image.convert("RGB"))


@pytest.mark.filterwarnings("ignore:::PIL")  # Pillow warns of some damage
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_damaged_exif_never_gets_past_the_decoder(tmp_path: Path, kind: str) -> None:
    """Wrong bytes in the block give an image or a DataError that names the file."""
    exif = tagged(6)
    exif[0x0131], exif[0x011A] = "software", 72.0
    block, random = exif.tobytes(), np.random.default_rng(0)
    path = tmp_path / f"damaged.{kind}"
    path.touch()
    split = catalogue.dataset(f"folder:{tmp_path}").split("train")
    shapes, messages = set(), []
    for _ in range(200):
        damaged = bytearray(block)
        for place in random.integers(len(b"Exif\0\0"), len(block), random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        draw_photo(3, 40, 30).save(path, exif=bytes(damaged))
        try:
            shapes.add(split.whole(0)[0].shape)
        except DataError as error:
            messages.append(str(error))
    assert shapes == {(40, 30, 3), (30, 40, 3)}  # turned, and where the tag is gone, not
    assert all(str(path) in message for message in messages)


# ---- more than 8 bits
def shades() -> np.ndarray:
    """float64 (72, 72) from 0 to 1."""
    return np.linspace(0, 1, 72 * 72).reshape(72, 72)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bit_grey_keeps_its_shades(tmp_path: Path, suffix: str) -> None:
    """Scanners and microscopes write them; cut at 255 they would be a white sheet."""
    values = np.round(shades() * 65535).astype(np.uint16)
    path = tmp_path / f"image.{suffix}"
    if suffix == "pgm":
        path.write_bytes(b"P5 72 72 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(path)
    pixels = whole(tmp_path)
    assert np.abs(pixels - (shades() * 255)[..., None]).max() <= 1
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_colour_keeps_its_shades(tmp_path: Path, suffix: str) -> None:
    colours = np.stack([shades(), 1 - shades(), shades() ** 2], 2)
    values = np.round(colours * 65535).astype(np.uint16)
    if suffix == "png":
        (tmp_path / "image.png").write_bytes(sixteen_bit_png(values))
    else:
        tifffile.imwrite(tmp_path / "image.tif", values, photometric="rgb")
    assert np.abs(whole(tmp_path) - colours * 255).max() <= 1


def sixteen_bit_png(values: np.ndarray) -> bytes:
    """Pillow writes none of colours: each row behind a zero, for no filter."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_scan_whose_white_is_zero(tmp_path: Path, dtype: type) -> None:
    values = np.round((1 - shades()) * np.iinfo(dtype).max).astype(dtype)
    tifffile.imwrite(tmp_path / "image.tif", values, photometric="miniswhite")
    assert np.abs(whole(tmp_path) - (shades() * 255)[..., None]).max() <= 1


def test_twelve_bits_of_a_microscope(tmp_path: Path) -> None:
    """As such files lie: two numbers in three bytes."""
    values = np.round(shades() * 4095).astype(np.uint16)
    first, second = values.reshape(-1, 2).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    tags = [(256, 72), (257, 72), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1),
            (278, 72), (279, packed.size)]  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    head += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    assert len(head) == 122
    (tmp_path / "image.tif").write_bytes(head + packed.astype(np.uint8).tobytes())
    expected = (values.astype(int) * 255 // 4095)[..., None].repeat(3, 2)
    np.testing.assert_array_equal(whole(tmp_path), expected)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (shades().astype(np.float32), "floats"),
        (shades().astype(np.float32) * 255, "floats"),
        (np.full((72, 72), np.nan, np.float32), "floats"),
        ((shades() * 4e9).astype(np.uint32), "32-bit or signed"),
        ((shades() * 255).astype(np.int32), "32-bit or signed"),
        ((shades() * 32767).astype(np.int16), "32-bit or signed"),
    ],
)
def test_numbers_without_a_white_are_refused(tmp_path, values, reason):
    """Made 8 bits by cutting they would be a black sheet or a white one."""
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, values)
    refused(DataError, lambda: whole(tmp_path), path, reason, "white", "--skip-bad-images")
