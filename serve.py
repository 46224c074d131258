"""Open a page to try models in: drop, paste or photograph a picture, and see what they answer.

It shows the probabilities, the few pixels that the network sees, and by Grad-CAM which places speak
for the two likeliest classes. It needs Gradio: `pip install gradio`. Nobody but this computer can
open the page, and it loads nothing from the network. Ctrl-C ends it.
"""

import logging
import os
import socket
import sys
import tempfile
import time
import webbrowser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this copy of the project

from machinery.errors import UsageError, readable_errors
from machinery.networks import Networks, find_models
from machinery.options import SHIPPED, add_model, parse_options, script_parser, whole_number

HOST = "127.0.0.1"
MOST_UPLOADED_BYTES = 30 * 1024**2
SECONDS_KEPT = 600  # so long, another model can be asked about the same picture


def main():
    parser = script_parser()
    add_model(parser)
    add = parser.add_argument
    add("--port", type=whole_number(1, 65535), default=7860, metavar="N",
        help="the page is http://127.0.0.1:N (%(default)s)")  # fmt: skip
    add("--no-browser", action="store_true", help="only print the page's address")
    options = parse_options(parser)
    with tempfile.TemporaryDirectory(prefix="serve-") as uploads:
        gradio = import_gradio(uploads)
        networks = Networks(find_models([Path(), SHIPPED], options.model))
        refuse_taken_port(options.port)
        page = make_page(gradio, networks, Path(uploads).resolve())
        page.launch(
            server_name=HOST,
            server_port=options.port,
            share=False,
            allowed_paths=[],
            max_file_size=MOST_UPLOADED_BYTES,
            theme=gradio.themes.Default(font=["sans-serif"], font_mono=["monospace"]),
            footer_links=[],
            ssr_mode=False,
            quiet=True,
            prevent_thread_lock=True,
        )
        # It would print a traceback where a browser leaves in the middle of an upload.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        try:
            print(f"Page: {page.local_url} (Ctrl-C ends it)", flush=True)
            if not options.no_browser:
                webbrowser.open(page.local_url)
            while True:
                time.sleep(SECONDS_KEPT / 10)
                delete_old_files(uploads, SECONDS_KEPT)
        finally:
            page.close(verbose=False)


def delete_old_files(folder, seconds):
    """Delete the files in a folder that are older than this, broken-off uploads too."""
    for path in Path(folder).rglob("*"):
        if path.is_file() and time.time() - path.stat().st_mtime > seconds:
            path.unlink(missing_ok=True)


def refuse_taken_port(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UsageError(
                f"port {port}: {error.strerror}: name another one with --port"
            ) from error


def import_gradio(uploads):
    """Import Gradio so that it reports to nobody, and keeps what is uploaded in a folder of ours.

    Raises:
        UsageError: if it is not installed.
    """
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]  # GRADIO_SHARE would show the page to all the world
    os.environ["GRADIO_ANALYTICS_ENABLED"] = os.environ["GRADIO_RUN_HISTORY"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = uploads
    # It makes sure that its page can be opened, which it can't through a proxy of the user's.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = HOST
    try:
        import gradio
    except ModuleNotFoundError as error:  # an optional extra
        raise UsageError("the page needs Gradio: `pip install gradio`") from error
    if int(gradio.__version__.partition(".")[0]) < 6:
        raise UsageError("the page needs Gradio 6 or newer: `pip install --upgrade gradio`")
    return gradio


def make_page(gradio, networks, uploads):
    """Return the page, a `gradio.Blocks`.

    Args:
        networks: a `Networks`.
        uploads: the folder of uploaded files, an absolute path without symbolic links.
    """

    def answer(upload, name):
        if upload is None:
            return "", None, None
        path = Path(str(upload["path"])).resolve()
        try:
            # A browser can send anything: the path of another file, too.
            if uploads not in path.parents or not path.exists():
                raise UsageError("The picture is no longer here: choose it again.")
            return networks.ask(name, path)
        except UsageError as error:
            # Where it is kept is no business of whoever opens the page.
            return str(error).replace(f"{path.parent}{os.sep}", ""), None, None

    with gradio.Blocks(title="What is on the picture?") as page:
        gradio.Markdown("# What is on the picture?")
        with gradio.Row():
            with gradio.Column():
                picture = gradio.Image(
                    label="Your picture",
                    placeholder="Drop a picture here, or click to choose one",
                    height=400,
                    buttons=[],
                )
                model = gradio.Dropdown([*networks.paths], label="Model")
            with gradio.Column():
                told = gradio.Textbox(label="Answer", interactive=False)
                bars = gradio.Label(label="Probabilities", num_top_classes=10, show_heading=False)
        reasons = gradio.Image(format="png", interactive=False, show_label=False, buttons=[])
        gradio.on(
            [picture.change, model.change],
            answer,
            [picture, model],
            [told, bars, reasons],
            # Gradio would read the picture in any format that Pillow knows, see data/image.py.
            preprocess=False,
            api_visibility="private",
        )
    return page


if __name__ == "__main__":
    with readable_errors():
        main()
