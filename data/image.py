"""One photo, as the networks want it."""

from pathlib import Path

from machinery.errors import DamagedError
from machinery.files import reading

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow knows others, some of which start programs: Ghostscript for EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
MOST_BYTES = 500_000_000
DEER = Path(__file__).parents[1] / "sample_image.png"  # a deer of CIFAR-10's test set
HEIC = b"ftyphei", b"ftyphev", b"ftypmif"  # from the fifth byte of such a file on

# A file of a few bytes can claim any size: what is decoded has to fit in memory. Of a JPEG, an
# eighth of the height and width can be decoded alone, so that photos of large cameras can be read.
MOST_PIXELS = 89_000_000
MOST_PIXELS_OF_JPEG = 250_000_000
Image.MAX_IMAGE_PIXELS = None  # Pillow's own limit does not know of that


def load_image(path, size=32):
    """Read a photo as the model wants it; see `read_image`.

    Raises:
        UsageError: if it is missing, or can't be read.
    """
    with reading(path, MOST_BYTES) as file:
        return read_image(file, size)


def read_image(file, size):
    """Read a photo from an open file: the largest square in its middle, scaled down.

    Args:
        file: see `open_rgb`, for what is raised, too.
        size: height and width of the result, in pixels.

    Returns:
        uint8 RGB (size, size, 3) in 0..255.
    """
    return np.asarray(ImageOps.fit(open_rgb(file, size), (size, size), Image.Resampling.LANCZOS))


def load_whole(path, size):
    """Read all of a photo, scaled down so that neither side is longer than `size` pixels.

    Returns:
        A Pillow image, RGB.

    Raises:
        UsageError: as `load_image`.
    """
    with reading(path, MOST_BYTES) as file:
        image = open_rgb(file, size)
        image.thumbnail((size, size))
        return image


def open_rgb(file, size):
    """Open a photo, upright, with transparent parts in white.

    Args:
        file: open; an image of any size and mode, in one of `FORMATS`; of an animation, the first
            picture is taken.
        size: that it will be scaled to, in pixels: a large JPEG is decoded at reduced size.

    Returns:
        A Pillow image, RGB.

    Raises:
        DamagedError: if it has too many pixels, or is HEIC.
        ValueError: if it is not an image. Pillow can raise nearly anything at one that is damaged.
    """
    try:
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        file.seek(4)
        if file.read(7) in HEIC:
            raise DamagedError(
                f"{file.name} is HEIC, as phones save it: convert it to JPEG first, for example "
                "with `heif-convert photo.heic photo.jpg`"
            ) from None
        raise ValueError(f"not a picture in one of the formats {', '.join(FORMATS)}") from None
    with image:
        pixels = image.width * image.height
        if image.format == "JPEG" and not image.info.get("progressive"):
            image.draft("RGB", (4 * size, 4 * size))
        if pixels > MOST_PIXELS_OF_JPEG or image.width * image.height > MOST_PIXELS:
            raise DamagedError(f"{file.name}: too many pixels ({pixels:,}): make it smaller first")
        image.getexif()  # is kept. To write it anew, Pillow fails at what others wrote wrongly
        image.info.pop("exif", None)
        return to_rgb(ImageOps.exif_transpose(image))


def to_rgb(image):
    """Convert a Pillow image of any mode to RGB, 8 bits per channel."""
    if image.mode.startswith(("I", "F")):
        # More than 8 bits of gray, which Pillow would clip. 16 bits, unless the values say other.
        gray = np.array(image, dtype=np.float32)  # changed in place: it may be large
        brightest = gray.max(where=np.isfinite(gray), initial=0)
        white = 65535 if brightest > 255 else 255 if brightest > 1 else 1
        np.nan_to_num(gray, copy=False)
        np.clip(gray, 0, white, out=gray)
        gray *= 255 / white
        image = Image.fromarray(np.rint(gray, out=gray).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
