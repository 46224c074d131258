"""The page: what it is made of, the running server, and the page in a real browser."""

import base64
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import serve
from conftest import (
    BLUE,
    ORANGE,
    ROOT,
    a_result,
    assert_refused,
    call,
    finish,
    red_and_blue,
    start,
    tiny_network,
)
from machinery import networks
from machinery.errors import UsageError
from machinery.final_model import save_final_model
from machinery.networks import Networks, find_models

import h5py
import pytest
from PIL import Image

FIRST, OTHER, CUT = "final_model.h5 (baseline3)", "other.h5 (dropout)", "final_model_cut.h5"
RED, BLUE_PHOTO = (255, 0, 0), (0, 0, 255)
PATIENCE = 300  # seconds: other tests may have the processor


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with two final models, a damaged one, and what is none.

    To the first, red is a cat and blue is a dog; to the other one, both are horses.
    """
    folder = tmp_path_factory.mktemp("models")
    save_final_model(red_and_blue(), a_result(), folder / "final_model.h5")
    save_final_model(red_and_blue(-1), a_result("dropout"), folder / "other.h5")
    whole = (folder / "final_model.h5").read_bytes()
    (folder / "final_model_cut.h5").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.keras").write_text("no model")
    h5py.File(folder / "weights.h5", "w").close()
    (folder / "photos").mkdir()
    return folder


def photo(folder, colour, name="photo.png"):
    path = folder / "photos" / name
    Image.new("RGB", (40, 30), colour).save(path)
    return path


# What it is made of.


@pytest.fixture
def environment(monkeypatch):
    """Gives the variables back that the script changes in this process."""
    for name in ("GRADIO_ANALYTICS_ENABLED", "GRADIO_RUN_HISTORY", "GRADIO_TEMP_DIR", "NO_PROXY"):
        monkeypatch.setenv(name, "")


def test_missing_gradio_is_explained(tmp_path, monkeypatch, environment):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert_refused(call("serve.py", cwd=tmp_path), "the page needs Gradio: `pip install gradio`")


def test_old_gradio_is_explained(tmp_path, monkeypatch, environment):
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="5.49.1"))
    assert_refused(call("serve.py", cwd=tmp_path), "Gradio 6", "pip install --upgrade gradio")


def test_missing_model_is_explained(tmp_path, monkeypatch, environment):
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="6.0.0"))
    ended = call("serve.py", "--model", "mine.h5", cwd=tmp_path)
    assert_refused(ended, "no model mine.h5", "finalize.py --model mine.h5 --sample")


def test_models_to_choose_from_are_the_final_ones(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = find_models(["", "photos", "missing"], "other.h5")
    assert found == {
        OTHER: Path("other.h5"), FIRST: Path("final_model.h5"), CUT: Path("final_model_cut.h5")
    }  # fmt: skip
    assert list(find_models([folder], folder / "final_model.h5")) == [
        f"{folder.name}/{name}" for name in (FIRST, CUT, OTHER)
    ]


def test_models_of_the_same_name_are_not_confused(tmp_path):
    for parent in "ab":
        (tmp_path / parent / "same").mkdir(parents=True)
        save_final_model(red_and_blue(), a_result(), tmp_path / parent / "same" / "model.h5")
    chosen = tmp_path / "b" / "same" / "model.h5"
    assert list(find_models([tmp_path / "a" / "same"], chosen).values()) == [chosen]


@pytest.mark.parametrize("first", ["final_model_cut.h5", "weights.h5", "missing.h5"])
def test_first_model_has_to_be_one(folder, monkeypatch, first):
    monkeypatch.chdir(folder)
    with pytest.raises(UsageError, match=first):
        find_models([folder], first)


def paths(folder):
    return {FIRST: folder / "final_model.h5", OTHER: folder / "other.h5", CUT: folder / CUT}


def test_answer_is_the_models_with_what_speaks_for_it(folder):
    told, probabilities, picture = Networks(paths(folder)).ask(FIRST, photo(folder, RED))
    assert told == "cat, 100.0 %"
    assert len(probabilities) == 10 and probabilities["cat"] == pytest.approx(1)
    drawn = {colour for _, colour in picture.getcolors(picture.width * picture.height)}
    assert {RED, BLUE, ORANGE} <= drawn


def test_model_that_was_trained_on_a_sample_is_said_to_make_mistakes(tmp_path):
    path = tmp_path / "final_model.h5"
    save_final_model(red_and_blue(), a_result(remark="on the sample"), path)
    told, *_ = Networks({"mine": path}).ask("mine", ROOT / "sample_image.png")
    assert told.endswith(" %. Trained on the sample: expect mistakes.")


def test_many_users_at_once_get_their_own_answers_of_models_that_are_loaded_once(
    folder, monkeypatch
):
    loaded = []
    load_final_model = networks.load_final_model

    def slowly(path):
        loaded.append(path.name)
        time.sleep(0.2)
        return load_final_model(path)

    monkeypatch.setattr(networks, "load_final_model", slowly)
    red, blue = photo(folder, RED, "red.png"), photo(folder, BLUE_PHOTO, "blue.png")
    expected = {(FIRST, red): "cat", (FIRST, blue): "dog", (OTHER, red): "horse"}
    asked = 6 * list(expected)
    shared = Networks(paths(folder))
    with ThreadPoolExecutor(len(asked)) as pool:
        answers = list(pool.map(lambda question: shared.ask(*question), asked))
    assert [answer.told for answer in answers] == [f"{expected[q]}, 100.0 %" for q in asked]
    assert sorted(loaded) == ["final_model.h5", "other.h5"]


@pytest.mark.parametrize("name", ["missing", "final_model.h5", "/etc/passwd", None, ["a"], {}])
def test_only_what_is_in_the_list_can_be_chosen(folder, name):
    with pytest.raises(UsageError, match="no such model here"):
        Networks(paths(folder)).ask(name, photo(folder, RED))


def test_model_that_cannot_be_explained_is_refused_again_and_again(tmp_path):
    save_final_model(tiny_network(), a_result(), tmp_path / "flat.h5")
    network = Networks({"flat": tmp_path / "flat.h5"})
    for _ in range(2):
        with pytest.raises(
            UsageError, match=r"\.h5: damaged or foreign \(the model has no convolutions"
        ):
            network.ask("flat", ROOT / "sample_image.png")


def test_only_old_pictures_are_deleted(tmp_path):
    (tmp_path / "folder").mkdir()
    for name, age in (("folder/old.png", 700), ("broken_off", 700), ("folder/new.png", 500)):
        (tmp_path / name).write_text("x")
        os.utime(tmp_path / name, 2 * (time.time() - age,))
    serve.delete_old_files(tmp_path, 600)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["new.png"]


def test_taken_port_is_refused(folder, monkeypatch, environment):
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(__version__="6.0.0"))
    with socket.create_server((serve.HOST, 0)) as other:
        port = other.getsockname()[1]
        assert_refused(call("serve.py", "--port", port, cwd=folder), f"port {port}: ", "--port")


# The server, in a process of its own, with settings of the user's that would open it to the world.

WATCH = """
import os, sys
def note(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = arguments[1][0] if event == "socket.connect" else arguments[0]
        with open(os.environ["HOSTS"], "a") as file:
            print(host, file=file)
sys.addaudithook(note)
"""
SETTINGS = {
    "GRADIO_SHARE": "True", "GRADIO_SERVER_NAME": "0.0.0.0", "GRADIO_ALLOWED_PATHS": "/",
    "GRADIO_ANALYTICS_ENABLED": "True", "GRADIO_TEMP_DIR": "/nonexistent",
    "http_proxy": "http://proxy.invalid:1", "https_proxy": "http://proxy.invalid:1", "no_proxy": "",
}  # fmt: skip


class Server:
    """A running serve.py.

    Args:
        models: the folder that it is started in.
        scratch: an empty folder for what it writes.
    """

    def __init__(self, models, scratch):
        (scratch / "sitecustomize.py").write_text(WATCH)
        self.hosts, self.temporary = scratch / "hosts", scratch / "temporary"
        self.temporary.mkdir()
        with socket.create_server((serve.HOST, 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://{serve.HOST}:{self.port}/"
        self.process = start(
            "serve.py", "--no-browser", "--port", self.port, cwd=models, **SETTINGS,
            PYTHONPATH=str(scratch), HOSTS=str(self.hosts), TMPDIR=str(self.temporary),
        )  # fmt: skip
        line = self.process.stdout.readline()
        assert line == f"Page: {self.url} (Ctrl-C ends it)\n", finish(self.process)

    def request(self, method, path, body=None, content_type="application/json"):
        """Return the status and the body of the answer."""
        connection = http.client.HTTPConnection(serve.HOST, self.port, timeout=PATIENCE)
        connection.request(method, path, body, {"Content-Type": content_type})
        with connection.getresponse() as response:
            return response.status, response.read().decode()

    def upload(self, content, name="photo.png"):
        """Upload a file; return the status, and where it is kept, as a browser is told."""
        head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
        body = head.encode() + content + b"\r\n--x--\r\n"
        status, told = self.request(
            "POST", "/gradio_api/upload", body, "multipart/form-data; boundary=x"
        )
        return status, json.loads(told)[0] if status == 200 else told

    def ask(self, path, model, user):
        """Ask what is on an uploaded picture; return what the page would tell."""
        question = {"data": [{"path": path}, model], "fn_index": 0, "session_hash": user}
        self.request("POST", "/gradio_api/queue/join", json.dumps(question))
        _, events = self.request("GET", f"/gradio_api/queue/data?session_hash={user}")
        (answer,) = re.findall(r'^data: (\{"msg": ?"process_completed".*)$', events, re.M)
        return json.loads(answer)["output"]["data"][0]

    def stop(self):
        """Press Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return finish(self.process)


def png(colour):
    file = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def server(folder, tmp_path_factory):
    pytest.importorskip("gradio")
    server = Server(folder, tmp_path_factory.mktemp("server"))
    yield server
    ended = server.stop()
    assert "Traceback" not in ended.errors and "ERROR" not in ended.errors


def test_server_tells_several_users_at_once_what_is_on_their_pictures(server):
    colours = {"cat": RED, "dog": BLUE_PHOTO}

    def use(number):
        name = ("cat", "dog")[number % 2]
        status, path = server.upload(png(colours[name]))
        assert status == 200
        return server.ask(path, FIRST, f"user{number}") == f"{name}, 100.0 %"

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(8)))


def test_server_gives_away_no_file(server, folder):
    for path in (folder / "final_model.h5", "final_model.h5", "/etc/passwd", ROOT / "serve.py"):
        for prefix in ("/gradio_api/file=", "/file=", "/static/../../", "/assets/../../"):
            status, _ = server.request("GET", f"{prefix}{path}")
            assert status in (403, 404), f"{prefix}{path}"


def test_server_reads_no_other_picture_than_an_uploaded_one(server, folder):
    for path in (photo(folder, RED), ROOT / "sample_image.png", "/missing.png", None):
        told = server.ask(path and str(path), FIRST, "curious")
        assert told == "The picture is no longer here: choose it again."


def test_server_refuses_large_files(server):
    assert server.upload(bytes(serve.MOST_UPLOADED_BYTES + 1))[0] == 413


def test_upload_that_is_broken_off_is_no_error(server):
    connection = http.client.HTTPConnection(serve.HOST, server.port, timeout=PATIENCE)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders(b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n')
    connection.close()
    assert server.request("GET", "/")[0] == 200


def test_only_this_computer_can_open_the_page(server):
    with pytest.raises(ConnectionRefusedError):  # where it listens on all addresses, this is one
        socket.create_connection(("127.0.0.2", server.port), timeout=10)


def test_server_speaks_to_nobody_but_itself(server):
    assert set(server.hosts.read_text().split()) == {serve.HOST}


def test_ctrl_c_ends_it_and_deletes_the_pictures(folder, tmp_path):
    pytest.importorskip("gradio")
    server = Server(folder, tmp_path)
    _, path = server.upload(png(RED))
    assert server.ask(path, FIRST, "user") == "cat, 100.0 %"
    assert server.temporary in Path(path).parents and Path(path).exists()
    ended = server.stop()
    assert ended.code == 130
    assert "Traceback" not in ended.errors and "Interrupted" not in ended.errors
    assert list(server.temporary.iterdir()) == []


# The page in Chromium.


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    if not (chromium := shutil.which("chromium")):
        pytest.skip("Chromium is not installed")
    switches = "no-sandbox", "use-fake-device-for-media-stream", "use-fake-ui-for-media-stream"
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=[f"--{switch}" for switch in switches]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(server, browser):
    """The page, opened; whatever happens on it, all that it loads comes from the server."""
    context = browser.new_context(
        permissions=["camera", "clipboard-read", "clipboard-write"],
        viewport={"width": 1000, "height": 1000},
    )
    context.set_default_timeout(1000 * PATIENCE)
    page, requested = context.new_page(), []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(server.url)
    page.get_by_label("Answer").wait_for()
    yield page
    context.close()
    assert len(requested) > 10
    assert [url for url in requested if not url.startswith((server.url, "data:", "blob:"))] == []


def wait_for_answer(page, told):
    from playwright.sync_api import expect

    expect(page.get_by_label("Answer")).to_have_value(told, timeout=1000 * PATIENCE)


def upload(page, path):
    page.locator("input[type=file]").set_input_files(path)


def test_page_answers_with_bars_and_a_picture_for_the_model_that_is_chosen(page, folder):
    upload(page, photo(folder, RED))
    wait_for_answer(page, "cat, 100.0 %")
    bars = page.get_by_test_id("cat-confidence-set")
    assert bars.inner_text().split() == ["cat", "100%"]
    picture = page.locator("img").last
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") == 900

    page.get_by_label("Model").click()
    names = page.get_by_role("option").all_inner_texts()
    assert [name.strip("✓ \n") for name in names][:3] == [FIRST, CUT, OTHER]  # then the shipped
    page.get_by_role("option", name=OTHER).click()
    wait_for_answer(page, "horse, 100.0 %")
    page.get_by_label("Model").click()
    page.get_by_role("option", name=CUT).click()
    wait_for_answer(page, re.compile(r"^final_model_cut\.h5: damaged or foreign"))
    assert page.get_by_test_id("cat-confidence-set").count() == 0


BAD = {
    "text.png": b"not an image",
    "empty.png": b"",
    "cut.png": png(RED)[:60],
    "bomb.png": png(RED)[:16] + 2 * (30_000).to_bytes(4) + png(RED)[24:],
    "drawing.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\nshowpage\n",
    "page.svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "phone.heic": b"\0\0\0\x18ftypheic" + bytes(100),
}


def test_page_says_what_is_wrong_with_a_file(page, folder):
    for name, content in BAD.items():
        (folder / "photos" / name).write_bytes(content)
        upload(page, folder / "photos" / name)
        wait_for_answer(page, re.compile(f"^{re.escape(name)}:? .*"))
        assert str(folder) not in page.get_by_label("Answer").input_value()
        page.get_by_label("Remove Image").click()
        wait_for_answer(page, "")
    upload(page, photo(folder, BLUE_PHOTO))
    wait_for_answer(page, "dog, 100.0 %")


def test_page_refuses_large_files(page, folder):
    (folder / "photos" / "large.png").write_bytes(bytes(serve.MOST_UPLOADED_BYTES + 1))
    upload(page, folder / "photos" / "large.png")
    page.get_by_text("exceed the maximum allowed size of 30").wait_for()


def test_pictures_can_be_dropped_pasted_and_photographed(page):
    script = """async ([how, content]) => {
        const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
        const file = new File([bytes], "photo.png", {type: "image/png"});
        if (how == "paste") {
            await navigator.clipboard.write([new ClipboardItem({"image/png": file})]);
        } else {
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(file);
            const target = document.querySelector("[aria-label^='Drop an image']");
            target.dispatchEvent(new DragEvent("drop", {dataTransfer, bubbles: true}));
        }
    }"""
    for how, colour, name in (("drop", RED, "cat"), ("paste", BLUE_PHOTO, "dog")):
        page.evaluate(script, [how, base64.b64encode(png(colour)).decode()])
        if how == "paste":
            page.get_by_label("Paste from clipboard").click()
        wait_for_answer(page, f"{name}, 100.0 %")
        page.get_by_label("Remove Image").click()
        wait_for_answer(page, "")
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    # Before there is a picture of the camera's, nothing is captured.
    page.wait_for_function("document.querySelector('video')?.videoWidth > 0")
    page.get_by_label("capture photo").click()
    wait_for_answer(page, re.compile(r"^\w+, \d+\.\d %$"))
