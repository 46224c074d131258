"""Draw serve.png for the README: the page of serve.py in Chromium, with an answer on it.

    python docs/draw_page.py --model pretrained/speedrun_94.h5 chelsea.png

It needs Gradio and Playwright, `pip install gradio playwright`, and Chromium, Debian's `chromium`.
Chelsea is a cat of Stéfan van der Walt's (CC0): `skimage/data/chelsea.png` in scikit-image's wheel.
"""

import io
import shutil
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from data.image import DEER
from machinery.errors import UsageError, readable_errors
from machinery.options import ROOT, add_model, parse_options, path_of, script_parser

from PIL import Image

PORT = 7861
MARGIN = 20


def main():
    parser = script_parser("%(prog)s [options] [IMAGE]")
    parser.add_argument("image", type=path_of, nargs="?", default=DEER, metavar="IMAGE",
        help=f"a photo ({DEER.name})")  # fmt: skip
    add_model(parser)
    options = parse_options(parser)
    if not (chromium := shutil.which("chromium")):
        raise UsageError("Chromium is not installed")
    server = subprocess.Popen(
        [sys.executable, ROOT / "serve.py", "--no-browser", "--port", str(PORT),
         "--model", options.model],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        if "Page:" not in server.stdout.readline():
            raise UsageError("the page did not open")
        draw_page(chromium, options.image, ROOT / "docs" / "serve.png")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def draw_page(chromium, image, path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 1000})
        page.goto(f"http://127.0.0.1:{PORT}")
        page.locator("input[type=file]").set_input_files(image)
        page.get_by_text("%").first.wait_for()
        for shown in page.locator("img").all():
            shown.evaluate("image => image.decode()")
        content = page.locator("main").bounding_box()
        last = page.locator("img").last.bounding_box()
        height = last["y"] + last["height"] + MARGIN
        width = content["width"] + 2 * MARGIN
        clip = {"x": content["x"] - MARGIN, "y": 0, "width": width, "height": height}
        screen = Image.open(io.BytesIO(page.screenshot(clip=clip)))
        browser.close()
    # Half the bytes. Without dithering, the colour bar would have steps.
    palette = screen.quantize(256, Image.Quantize.MAXCOVERAGE)
    screen.quantize(palette=palette).save(path, optimize=True)
    print(f"Picture: {path}")


if __name__ == "__main__":
    with readable_errors():
        main()
