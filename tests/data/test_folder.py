"""`folder:PATH` and the decoded store: layouts, decoding, digests, what interruptions leave."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import v2

from helpers.photos import CLASSES, COUNTS, draw_photo
from ssl_bench import catalogue
from ssl_bench.data.dataset import SplitName
from ssl_bench.data.image_files import ImageFiles
from ssl_bench.data.images import fit_square
from ssl_bench.data.store.squares import ImageStore, open_store, stored_size
from ssl_bench.errors import DataError

SIZE = 64  # of the crop; 72 is stored

pytestmark = pytest.mark.usefixtures("cache")  # its own for each test


def opened(
    root: Path, split: SplitName = "train", size: int = SIZE, skip_bad_images: bool = False
) -> ImageStore:
    dataset = catalogue.dataset(f"folder:{root}")
    return open_store(dataset, split, size, skip_bad_images=skip_bad_images, workers=0)


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


# ---- layouts
def test_train_and_val(tiny_photos: Path) -> None:
    folders: dict[SplitName, str] = {"train": "train", "test": "val"}
    for split, folder in folders.items():
        store = opened(tiny_photos, split)
        count = COUNTS[folder]
        assert store.index.classes == CLASSES
        assert store.labels.tolist() == [i for i in range(len(CLASSES)) for _ in range(count)]
        assert store.labels.dtype == np.int64
        assert store.pixels.shape == (3 * count, 72, 72, 3)
        assert store.pixels.dtype == np.uint8
        assert store.index.names[0] == "ant/0.jpg"


def test_rows_are_the_named_images(tiny_photos: Path) -> None:
    store = opened(tiny_photos)
    for name, row in zip(store.index.names, store.pixels, strict=True):
        with Image.open(tiny_photos / "train" / name) as image:
            np.testing.assert_array_equal(row, fit_square(image, 72))


def test_workers_change_nothing(tiny_photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = opened(tiny_photos)
    monkeypatch.setenv("SSL_BENCH_CACHE", str(tiny_photos / "elsewhere"))
    dataset = catalogue.dataset(f"folder:{tiny_photos}")
    shared = open_store(dataset, "train", SIZE, workers=2)
    assert shared.folder != alone.folder
    assert shared.index == alone.index
    np.testing.assert_array_equal(shared.pixels, alone.pixels)


def test_other_files_are_no_images(tiny_photos):
    before = opened(tiny_photos).index
    (tiny_photos / "train" / "ant" / "Thumbs.db").write_bytes(b"\0")
    (tiny_photos / "train" / "README.txt").write_text("not a class")
    assert opened(tiny_photos).index.digest == before.digest


def test_test_folder_instead_of_val(tiny_photos: Path) -> None:
    before = opened(tiny_photos, "test").index
    assert before.notes == ["test is val/"]
    (tiny_photos / "val").rename(tiny_photos / "test")
    assert opened(tiny_photos, "test").index == before.model_copy(update={"notes": []})


def test_flat_folder_serves_pretraining_only(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    for i in range(3):
        save(draw_photo(i), root / f"{i}.png")
    save(draw_photo(3), root / "deeper" / "still" / "x.JPG")
    store = opened(root)
    assert store.index.names == ["0.png", "1.png", "2.png", "deeper/still/x.JPG"]
    with pytest.raises(DataError, match="no labels"):
        _ = store.labels
    with pytest.raises(DataError, match="flat folder serves pretraining only"):
        opened(root, "test")


def test_val_may_lack_a_class_and_keeps_the_order_of_train(tiny_photos: Path) -> None:
    shutil.rmtree(tiny_photos / "val" / "ant")
    store = opened(tiny_photos, "test")
    assert store.index.classes == CLASSES
    assert sorted(set(store.labels.tolist())) == [1, 2]
    by_name = {n.partition("/")[0]: k for n, k in zip(store.index.names, store.labels, strict=True)}
    assert by_name == {"bee": 1, "cat": 2}


# ---- decoding
KINDS = {
    "grey": lambda rgb: rgb.convert("L"),
    "bilevel": lambda rgb: rgb.convert("1"),
    "alpha": lambda rgb: _with_alpha(rgb),
    "grey-alpha": lambda rgb: rgb.convert("LA"),
    "palette": lambda rgb: rgb.quantize(64),
    "transparent palette": lambda rgb: rgb.quantize(8),  # of which Pillow warns on the way
}


def _with_alpha(rgb: Image.Image) -> Image.Image:
    image = rgb.convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(rgb.size))
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, kind: str) -> None:
    image = KINDS[kind](draw_photo(0, 72, 72))
    some = {"transparency": bytes([0, 128] + [255] * 6)} if kind == "transparent palette" else {}
    save(image, tmp_path / "one" / "image.png", **some)
    store = opened(tmp_path / "one")
    expected = np.asarray(image.convert("RGB"))  # 72 px are stored as they are
    np.testing.assert_array_equal(store.pixels[0], expected)


def oracle(image: Image.Image, size: int) -> np.ndarray:
    resize = v2.Resize(size, v2.InterpolationMode.BILINEAR, antialias=True)
    return np.asarray(v2.CenterCrop(size)(resize(image)))


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(72, 72, 72), (96, 72, 72), (160, 144, 72), (64, 128, 72), (500, 250, 100)],
)
def test_fit_square_is_resize_and_centre_crop(width: int, height: int, size: int) -> None:
    """Exactly torchvision's, where the long side and the margins come out whole."""
    image = draw_photo(1, width, height)
    np.testing.assert_array_equal(fit_square(image, size), oracle(image, size))


@pytest.mark.parametrize(
    ("width", "height", "size"), [(96, 80, 72), (151, 100, 72), (333, 500, 256), (1000, 65, 72)]
)
def test_fit_square_rounds_like_it_within_a_pixel(width: int, height: int, size: int) -> None:
    """Elsewhere the two may round the long side and the margin apart: by a pixel of a ramp."""
    x = np.linspace(0, 255, width)[None, :, None]
    y = np.linspace(0, 255, height)[:, None, None]
    ramp = np.concatenate([x + 0 * y, y + 0 * x, (x + y) / 2], axis=2).astype(np.uint8)
    image = Image.fromarray(ramp)
    assert fit_square(image, size).shape == (size, size, 3)
    difference = fit_square(image, size).astype(int) - oracle(image, size).astype(int)
    assert np.abs(difference).max() <= np.ceil(255 / size) + 1


def test_stored_size_is_caffe_s() -> None:
    assert stored_size(227) == 256


# Pillow warns of some damage before it fails; the error that follows is ours.
@pytest.mark.filterwarnings("ignore:::PIL")
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "ppm", "pgm", "tif", "webp"])
def test_no_damage_gets_past_the_decoder(tmp_path: Path, suffix: str) -> None:
    """A cut or a wrong byte anywhere gives an image or a DataError that names the file."""
    kinds = {"jpg": "jpeg", "pgm": "ppm", "tif": "tiff"}
    buffer = io.BytesIO()
    photo = draw_photo(3, 40, 30)
    photo = photo.convert("L") if suffix == "pgm" else photo
    photo.save(buffer, kinds.get(suffix, suffix))
    whole = buffer.getvalue()
    random = np.random.default_rng(0)
    damaged = [whole[:length] for length in np.linspace(0, len(whole) - 1, 40).astype(int)]
    for _ in range(100):
        content = bytearray(whole)
        # Half of the wrong bytes are in the header, where more depends on them.
        limit = len(whole) if random.random() < 0.5 else 200
        for place in random.integers(0, limit, 3):
            content[place] = random.integers(0, 256)
        damaged.append(bytes(content))
    path = tmp_path / f"damaged.{suffix}"
    path.touch()
    split = ImageFiles(tmp_path, [path.name], None, ())
    messages = []
    for content in damaged:
        path.write_bytes(content)
        try:
            assert split.load(0, 36, 16)[0].shape == (36, 36, 3)
        except DataError as error:
            messages.append(str(error))
    assert len(messages) >= 10
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_skipped_images_leave_the_others_in_place(tiny_photos: Path) -> None:
    whole = opened(tiny_photos)
    (tiny_photos / "train" / "bee" / "2.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"bee/2\.jpg"):
        opened(tiny_photos)
    rest = opened(tiny_photos, skip_bad_images=True)
    gone = whole.index.names.index("bee/2.jpg")
    assert len(rest.index.skipped) == 1
    assert "bee/2.jpg" in rest.index.skipped[0]
    np.testing.assert_array_equal(rest.pixels, np.delete(whole.pixels, gone, 0))
    np.testing.assert_array_equal(rest.labels, np.delete(whole.labels, gone))


def test_broken_link_is_a_bad_image(tiny_photos: Path) -> None:
    """A folder of links whose target moved: named like any other, and left out when asked."""
    (tiny_photos / "train" / "bee" / "9.jpg").symlink_to(tiny_photos / "moved.jpg")
    with pytest.raises(DataError, match=r"bee/9\.jpg"):
        opened(tiny_photos)
    assert len(opened(tiny_photos, skip_bad_images=True)) == 3 * COUNTS["train"]


def test_an_edit_behind_a_link_is_seen(tmp_path: Path) -> None:
    """A folder of links, and one of the files that they lead to is another picture now."""
    target = save(draw_photo(0), tmp_path / "elsewhere" / "0.png")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "0.png").symlink_to(target)
    before = opened(tmp_path / "linked")
    save(draw_photo(1), target)
    after = opened(tmp_path / "linked")
    assert after.index.digest != before.index.digest
    assert not np.array_equal(after.pixels, before.pixels)


def test_folder_named_like_an_image(tmp_path: Path) -> None:
    save(draw_photo(0), tmp_path / "flat" / "album.jpg" / "one.png")
    assert opened(tmp_path / "flat").index.names == ["album.jpg/one.png"]


def test_names_in_an_old_encoding(tiny_photos: Path) -> None:
    """An archive from Latin-1 days unpacks to names that are not UTF-8."""
    folder = os.fsencode(tiny_photos / "train" / "ant")
    try:
        os.rename(folder + b"/0.jpg", folder + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    store = opened(tiny_photos, skip_bad_images=True)  # read, or refused by name
    assert len(store) + len(store.index.skipped) == 3 * COUNTS["train"]


# ---- digests
def test_digest_ignores_times_and_places(tiny_photos: Path, tmp_path: Path) -> None:
    before = opened(tiny_photos).index.digest
    for file in (tiny_photos / "train").rglob("*.jpg"):
        os.utime(file, (0, 0))
    assert opened(tiny_photos).index.digest == before
    shutil.copytree(tiny_photos, tmp_path / "copy")
    assert opened(tmp_path / "copy").index.digest == before


def longer(root: Path) -> None:
    with open(root / "train" / "cat" / "4.jpg", "ab") as file:
        file.write(b"\0")  # after the end of the image: not a pixel changes


EDITS: dict[str, Callable[[Path], object]] = {
    "a byte": longer,
    "a label": lambda root: (root / "train/ant/0.jpg").rename(root / "train/bee/a.jpg"),
    "a class's name": lambda root: (root / "train/cat").rename(root / "train/dog"),
}


@pytest.mark.parametrize("what", EDITS)
def test_digest_changes_with(tiny_photos, what):
    before = opened(tiny_photos)
    EDITS[what](tiny_photos)
    after = opened(tiny_photos)
    assert after.index.digest != before.index.digest
    if what == "a label":
        assert sorted(after.index.digests) == sorted(before.index.digests)


def test_edit_that_keeps_size_and_time_is_seen(tmp_path: Path) -> None:
    """Same name, same length (BMP), time put back: what is in the cache is another picture."""
    path = save(draw_photo(0), tmp_path / "one" / "image.bmp")
    times = path.stat()
    before = opened(tmp_path / "one")
    save(draw_photo(1), path)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = opened(tmp_path / "one")
    assert after.index.digest != before.index.digest
    with Image.open(path) as image:
        np.testing.assert_array_equal(after.pixels[0], fit_square(image, 72))


def test_two_folders_alike_from_outside(tmp_path: Path) -> None:
    """Archives that set all times to one moment give equal names, sizes and times."""
    for seed, name in enumerate(("first", "second")):
        os.utime(save(draw_photo(seed), tmp_path / name / "image.bmp"), (10**9, 10**9))
    first, second = opened(tmp_path / "first"), opened(tmp_path / "second")
    assert first.index.digest != second.index.digest
    assert not np.array_equal(first.pixels, second.pixels)


# ---- the store
def test_second_opening_decodes_nothing(tiny_photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(tiny_photos)

    def refuse(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(ImageFiles, "load", refuse)
    second = opened(tiny_photos)
    assert second.folder == first.folder
    assert second.index == first.index


def test_normalization_is_that_of_the_stored_pixels(tiny_photos: Path) -> None:
    store = opened(tiny_photos)
    pixels = np.asarray(store.pixels, np.float64) / 255
    np.testing.assert_allclose(store.normalization.mean, pixels.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(store.normalization.std, pixels.std((0, 1, 2)), rtol=1e-9)


def test_two_sizes_do_not_collide(tiny_photos: Path) -> None:
    small, large = opened(tiny_photos, size=64), opened(tiny_photos, size=71)
    assert small.folder != large.folder
    assert small.pixels.shape[1:] == (72, 72, 3)
    assert large.pixels.shape[1:] == (80, 80, 3)
    assert small.index.digest == large.index.digest  # the same files
    assert opened(tiny_photos, size=64).pixels.shape[1:] == (72, 72, 3)


def test_a_full_disk_leaves_nothing_behind(tiny_photos, cache, monkeypatch):
    load = ImageFiles.load

    def stop_at_the_fifth(self: ImageFiles, index: int, size: int, smallest: int) -> object:
        if index == 4:
            raise OSError(28, "No space left on device")
        return load(self, index, size, smallest)

    with monkeypatch.context() as patch:
        patch.setattr(ImageFiles, "load", stop_at_the_fifth)
        with pytest.raises(DataError):
            opened(tiny_photos)
    assert [p for p in cache.iterdir() if p.suffix != ".lock"] == []
    assert len(opened(tiny_photos)) == 3 * COUNTS["train"]


def test_refused_images_leave_nothing_behind(tiny_photos: Path, cache: Path) -> None:
    (tiny_photos / "train" / "bee" / "2.jpg").write_text("no image")
    with pytest.raises(DataError):
        opened(tiny_photos)
    assert [p for p in cache.iterdir() if p.suffix != ".lock"] == []


@pytest.mark.parametrize("name", ["index.json", "images.bin"])
def test_damaged_store_is_named(tiny_photos: Path, name: str) -> None:
    folder = opened(tiny_photos).folder
    path = folder / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="remove that folder") as raised:
        _ = opened(tiny_photos).pixels
    assert str(folder) in str(raised.value)
    shutil.rmtree(folder)
    assert len(opened(tiny_photos).pixels) == 3 * COUNTS["train"]


# ---- real photographs
@pytest.mark.photos
def test_real_photographs_decode_like_torchvision_s(photos: Path) -> None:
    dataset = catalogue.dataset(f"folder:{photos / 'imagenette-128'}")
    split = dataset.split("train")
    assert isinstance(split, ImageFiles)
    count = len(split.names)
    for i in np.linspace(0, count - 1, min(16, count)).astype(int):
        pixels, _ = split.load(int(i), 128, 1)
        with Image.open(split.root / split.names[int(i)]) as image:
            expected = oracle(image.convert("RGB"), 128)
        # A pixel of shift where the margin is odd: most of a photograph stays as it was.
        assert np.abs(pixels.astype(int) - expected.astype(int)).mean() < 20


@pytest.mark.parametrize("kind", ["folder", "voc"])
@pytest.mark.parametrize("text", ["$NOWHERE_SET/photos", "${NOWHERE_SET}/photos"])
def test_a_variable_that_is_not_set_is_named(kind: str, text: str, monkeypatch, tiny_photos: Path):
    monkeypatch.delenv("NOWHERE_SET", raising=False)
    with pytest.raises(DataError, match="set NOWHERE_SET, which the environment lacks"):
        catalogue.dataset(f"{kind}:{text}")
    monkeypatch.setenv("NOWHERE_SET", str(tiny_photos.parent))
    assert catalogue.dataset(f"folder:{text}").where == str(tiny_photos)


def test_a_folder_may_have_a_dollar_in_its_name(tmp_path: Path):
    folder = tmp_path / "$odd"
    save(draw_photo(0), folder / "a.png")
    assert catalogue.dataset(f"folder:{folder}").name == "folder:$odd"
