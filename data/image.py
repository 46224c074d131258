"""One photo, as the networks want it."""

import warnings

from machinery.errors import UsageError
from machinery.files import reading

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow knows others, some of which start programs: Ghostscript for EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM")
MOST_BYTES = 500_000_000


def load_image(path):
    """Read a photo as the model wants it.

    The largest square in the middle is taken and scaled down. Transparent parts become white.

    Args:
        path: an image file of any size and mode, in one of `FORMATS`; of an animation, the first
            picture is taken.

    Returns:
        uint8 RGB (32, 32, 3) in 0..255.

    Raises:
        UsageError: if it is missing, not an image, damaged, or has more pixels than Pillow
            considers safe (89 million): a file of a few bytes can claim any size.
    """
    with reading(path, MOST_BYTES) as content, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(content, formats=FORMATS) as file:
                image = to_rgb(ImageOps.exif_transpose(file))
        except UnidentifiedImageError:
            raise ValueError(f"not a picture in one of the formats {', '.join(FORMATS)}") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise UsageError(f"{path}: too many pixels, make it smaller first ({error})") from error
    return np.asarray(ImageOps.fit(image, (32, 32), Image.Resampling.LANCZOS))


def to_rgb(image):
    """Convert a Pillow image of any mode to RGB, 8 bits per channel."""
    if image.mode.startswith(("I", "F")):
        # More than 8 bits of gray, which Pillow would clip. 16 bits, unless the values say other.
        gray = np.asarray(image, dtype=np.float64)
        white = 65535 if gray.max() > 255 else 255 if gray.max() > 1 else 1
        image = Image.fromarray((gray.clip(0, white) * 255 / white).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
