import struct

from conftest import ROOT
from data import image
from data.image import load_image
from machinery.errors import UsageError
from test_cifar10 import png

import numpy as np
import PIL
import pytest
from PIL import ExifTags, Image


def test_image_of_cifar10_stays_as_it_is():
    pixels = np.asarray(Image.open(ROOT / "sample_image.png"))
    np.testing.assert_array_equal(load_image(ROOT / "sample_image.png"), pixels)


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tiff", "webp", "jpg", "ppm"])
@pytest.mark.parametrize("size", [(1, 1), (31, 500), (640, 480)])
def test_any_format_and_size(tmp_path, suffix, size):
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / f"photo.{suffix}")
    pixels = load_image(tmp_path / f"photo.{suffix}")
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() < 8


# Pillow before 13 calls such a TIFF of its own truncated; Gradio 6 needs an older one.
YCBCR = pytest.param("YCbCr", marks=pytest.mark.skipif(PIL.__version__ < "13", reason="Pillow"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", YCBCR])
def test_any_mode(tmp_path, mode):
    suffix = "tiff" if mode in ("CMYK", "YCbCr") else "png"
    white = Image.new("RGB", (50, 40), "white").convert(mode)
    white.save(tmp_path / f"photo.{suffix}")
    assert load_image(tmp_path / f"photo.{suffix}").min() > 250


def test_16_bit_gray_is_scaled_not_clipped(tmp_path):
    gray = np.tile(np.linspace(0, 65535, 32).astype(np.uint16), (32, 1))
    Image.fromarray(gray).save(tmp_path / "gray.png")
    pixels = load_image(tmp_path / "gray.png")
    np.testing.assert_allclose(pixels[0, :, 0], np.linspace(0, 255, 32), atol=1)


@pytest.mark.parametrize("white", [1, 255])
def test_gray_in_floats_is_scaled_by_its_white(tmp_path, white):
    gray = np.tile(np.linspace(0, white, 32).astype(np.float32), (32, 1))
    Image.fromarray(gray).save(tmp_path / "gray.tiff")
    pixels = load_image(tmp_path / "gray.tiff")
    np.testing.assert_allclose(pixels[0, :, 0], np.linspace(0, 255, 32), atol=1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan, -20])
def test_odd_pixels_of_a_gray_picture_leave_the_others(tmp_path, odd):
    gray = np.tile(np.linspace(0, 255, 32).astype(np.float32), (32, 1))
    gray[0, 0] = odd
    Image.fromarray(gray).save(tmp_path / "gray.tiff")
    pixels = load_image(tmp_path / "gray.tiff")
    np.testing.assert_allclose(pixels[1, :, 0], np.linspace(0, 255, 32), atol=1)
    assert pixels[0, 0, 0] == (255 if odd == np.inf else 0)


def test_photo_is_turned_though_other_things_are_wrong_in_its_exif(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.DateTime] = "now"  # four characters, with the last one of all texts
    photo = Image.new("RGB", (40, 40), "red")
    photo.paste("blue", (0, 0, 40, 20))  # above, and on the right when it is turned
    photo.save(tmp_path / "turned.jpg", exif=exif)
    content = (tmp_path / "turned.jpg").read_bytes()
    for order in "<>":
        text, number = (struct.pack(f"{order}HHI", 306, *kind) for kind in ((2, 4), (11, 1)))
        content = content.replace(text, number)  # a text that says it is a floating-point number
    (tmp_path / "turned.jpg").write_bytes(content)
    pixels = load_image(tmp_path / "turned.jpg")
    assert pixels[16, 30, 2] > 200 and pixels[16, 2, 0] > 200


def test_transparent_becomes_white(tmp_path):
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert load_image(tmp_path / "clear.png").min() == 255


def test_rotated_by_exif(tmp_path):
    photo = Image.new("RGB", (64, 64), "red")
    photo.paste("blue", (0, 0, 64, 32))  # blue above red, to be shown turned by 180 degrees
    exif = Image.Exif()
    exif[0x0112] = 3
    photo.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    pixels = load_image(tmp_path / "photo.jpg")
    assert pixels[2, 16, 0] > 200 and pixels[29, 16, 2] > 200


def test_middle_square_is_taken(tmp_path):
    photo = Image.new("RGB", (96, 32), "red")
    photo.paste("blue", (32, 0, 64, 32))
    photo.save(tmp_path / "wide.png")
    assert (load_image(tmp_path / "wide.png") == (0, 0, 255)).all()


def test_first_picture_of_an_animation_is_taken(tmp_path):
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert (load_image(tmp_path / "moving.gif") == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(10_000, 9_000), (20_000, 10_000), (2_000_000, 1_000_000)])
def test_bomb_is_refused(tmp_path, size):
    (tmp_path / "bomb.png").write_bytes(png(*size))
    with pytest.raises(UsageError, match=r"bomb.png: too many pixels"):
        load_image(tmp_path / "bomb.png")


def test_jpeg_of_200_megapixels_is_read(tmp_path):
    Image.new("L", (20_000, 10_000), 200).save(tmp_path / "huge.jpg")
    assert abs(load_image(tmp_path / "huge.jpg").astype(int) - 200).max() < 5


def test_jpeg_of_a_large_camera_is_read_in_little_memory(tmp_path, monkeypatch):
    """Though it has more pixels than other pictures may have."""
    photo = Image.new("RGB", (2000, 2000), "red")
    photo.paste("blue", (1000, 0, 2000, 2000))
    for name, options in (("large.jpg", {}), ("progressive.jpg", {"progressive": True})):
        photo.save(tmp_path / name, **options)
    photo.save(tmp_path / "large.png")
    monkeypatch.setattr(image, "MOST_PIXELS", 1_000_000)
    decoded = []
    to_rgb = image.to_rgb
    monkeypatch.setattr(image, "to_rgb", lambda photo: decoded.append(photo.size) or to_rgb(photo))
    pixels = load_image(tmp_path / "large.jpg")
    assert decoded == [(250, 250)]
    assert pixels[16, 5, 0] > 200 and pixels[16, 26, 2] > 200
    for name in ("progressive.jpg", "large.png"):  # which are decoded whole
        with pytest.raises(UsageError, match="too many pixels"):
            load_image(tmp_path / name)


def test_picture_is_scaled_to_the_size_that_is_asked_for(tmp_path):
    Image.new("RGB", (96, 32), "red").save(tmp_path / "wide.png")
    assert load_image(tmp_path / "wide.png", 64).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.png", "there is no file"),
        ("text.png", "not a picture in one of the formats JPEG, PNG"),
        ("postscript.png", "not a picture in one of the formats"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, name, reason):
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "postscript.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n"
    )  # for which Pillow would start Ghostscript
    with pytest.raises(UsageError, match=reason) as refusal:
        load_image(tmp_path / name)
    assert str(tmp_path / name) in str(refusal.value)
