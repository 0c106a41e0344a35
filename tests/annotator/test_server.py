"""The annotator's server: what a click shows and saves is what `Predictor` answers."""

import io
import json
import re
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("httpx")
from image_files import picture, tiff
from starlette.testclient import TestClient

from mis_jax import config
from mis_jax.annotator import server
from mis_jax.annotator.session import Session, mask_names
from mis_jax.datasets import images
from mis_jax.errors import InputError
from mis_jax.predictors.network import Predictor, mirrored

SIZE = 32


class Disks:
    """A network: 6 within 7 pixels of a positive click, -6 within 5 of a negative one, else -2.

    What was on before stays on, so that the order of clicks matters.
    """

    def __init__(self):
        self.passes = 0

    def __call__(self, image, previous, points):
        self.passes += 1
        grid = np.stack(np.mgrid[: image.shape[1], : image.shape[2]], -1)
        out = 3 * previous - 2
        for b, rows in enumerate(points):
            for k, (row, col, order) in enumerate(rows):
                if order >= 0:
                    positive = k < len(rows) // 2
                    near = ((grid - (row, col)) ** 2).sum(-1) < (49 if positive else 25)
                    out[b][near] = 6 if positive else -6
        return out


def noise(height, width):
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path):
    """a.png, b/a.jpg rotated by EXIF, c.jpg damaged; with a secret beside the folder."""
    folder = tmp_path / "photos"
    (folder / "b").mkdir(parents=True)
    Image.fromarray(noise(240, 320)).save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 60 x 90, seen 90 x 60
    left_bright = np.where(np.arange(90)[None, :, None] < 45, np.uint8(250), np.uint8(5))
    stored = np.broadcast_to(left_bright, (60, 90, 3))
    Image.fromarray(stored).save(folder / "b" / "a.jpg", exif=exif)
    (folder / "c.jpg").write_bytes(b"\xff\xd8 not much")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return folder


def started(photos, output=None, **kwargs):
    paths = images.find_images(photos)
    pictures = dict(zip(images.image_ids(photos, paths), paths, strict=True))
    network = Disks()
    output = output or photos.parent / "out"
    session = Session(Predictor(mirrored(network), SIZE), pictures, output)
    client = TestClient(server.make_app(session), base_url="http://127.0.0.1", **kwargs)
    return client, network, session


def body(index, *clicks, **more):
    rows = [dict(zip(("x", "y", "positive"), click, strict=True)) for click in clicks]
    return {"index": index, "clicks": rows} | more


def pixels(answer):
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def expected(path, *clicks):
    predictor = Predictor(mirrored(Disks()), SIZE)
    predictor.set_image(images.read_image(path))
    for x, y, positive in clicks:
        mask = predictor.click(x, y, positive)
    return mask


A, B, C, D = (40, 50, True), (200, 120, True), (60, 55, False), (0, 239, True)


def test_page_asks_nobody_but_this_program(photos):
    client = started(photos)[0]
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "<canvas" in page.text
    parts = re.findall(r' (?:src|href)="(?!data:)([^"]*)"', page.text)
    assert parts == ["/page.css", "/page.js"]
    files = [page, *map(client.get, parts)]
    kinds = [file.headers["content-type"].partition(";")[0] for file in files]
    assert kinds == ["text/html", "text/css", "text/javascript"]
    for file in files:
        assert file.status_code == 200
        assert file.headers["cache-control"] == "no-store"  # of another version, it would not fit
        assert not re.search("https?:|@import|url\\(", file.text.replace("http://www.w3.org", ""))


def test_listing_names_pictures_masks_and_what_is_done(photos):
    client, _, _ = started(photos)
    rows = client.get("/images").json()
    assert [row["name"] for row in rows] == ["a.png", "b/a.jpg", "c.jpg"]
    assert [row["mask"] for row in rows] == [
        str(photos.parent / "out" / "masks" / name) for name in ("a.png", "b/a.png", "c.png")
    ]
    assert not any(row["done"] or row["error"] for row in rows)
    client.post("/save", json=body(1, (20, 30, True)))
    assert [row["done"] for row in client.get("/images").json()] == [False, True, False]
    assert [row["done"] for row in started(photos)[0].get("/images").json()][1]


def test_clicks_give_the_masks_of_the_predictor_and_cost_one_pass_each(photos):
    client, network, _ = started(photos)
    path = photos / "a.png"
    # adding, two at once, undoing one and two, other clicks, another picture between, the last
    # pixel; with the passes of the network that each list may cost
    steps = [
        ([A], 1),
        ([A, B, C], 2),
        ([A, B, C], 0),
        ([A, B], 0),
        ([A, B, D], 1),
        ([A], 0),
        ([B, A], 2),
        ([C], 1),
    ]
    seen = []
    for clicks, passes in steps:
        before = network.passes
        mask = pixels(client.post("/click", json=body(0, *clicks)))
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, 255 * expected(path, *clicks).astype(np.uint8))
        assert network.passes - before == passes
        seen.append(mask.tobytes())
    assert len(set(seen)) == 6  # the steps could tell the lists apart
    other = pixels(client.post("/click", json=body(1, (20, 30, True))))
    np.testing.assert_array_equal(other > 0, expected(photos / "b" / "a.jpg", (20, 30, True)))
    again = pixels(client.post("/click", json=body(0, C, A)))
    np.testing.assert_array_equal(again > 0, expected(path, C, A))


def test_a_failed_pass_does_not_spoil_later_masks(photos, monkeypatch):
    client, _, session = started(photos, raise_server_exceptions=False)
    client.post("/click", json=body(0, A, B))
    whole = session._predictor.network
    failing = iter([True, False])

    def out_of_memory(*args):
        if next(failing):
            return whole(*args)
        raise RuntimeError("out of memory")

    monkeypatch.setattr(session._predictor, "network", out_of_memory)
    answer = client.post("/click", json=body(0, A, B, C, D))  # the first of the two passes works
    assert answer.status_code == 500
    assert "out of memory" in answer.json()["error"]
    monkeypatch.setattr(session._predictor, "network", whole)
    for clicks in ([A], [A, B, C, D], [A, B]):
        mask = pixels(client.post("/click", json=body(0, *clicks)))
        np.testing.assert_array_equal(mask > 0, expected(photos / "a.png", *clicks))


def test_save_writes_exactly_the_mask_and_replaces_it(photos):
    client, _, _ = started(photos)
    for clicks in ([A], [A, B, C]):
        saved = client.post("/save", json=body(0, *clicks)).json()["saved"]
        assert saved == str(photos.parent / "out" / "masks" / "a.png")
        with Image.open(saved) as picture:
            assert picture.mode == "L"
            mask = np.asarray(picture)
        np.testing.assert_array_equal(mask, 255 * expected(photos / "a.png", *clicks))
        np.testing.assert_array_equal(pixels(client.get("/mask/0")), mask)
    assert [p.name for p in (photos.parent / "out" / "masks").iterdir()] == ["a.png"]


def test_rotated_photos_are_shown_clicked_and_saved_upright(photos):
    client, _, _ = started(photos)
    shown = pixels(client.get("/image/1"))
    upright = images.read_image(photos / "b" / "a.jpg")
    assert shown.shape == upright.shape == (90, 60, 3)
    assert np.abs(shown.astype(int) - upright).mean() < 2
    assert shown[:40].mean() > 240  # what was left is at the top
    client.post("/save", json=body(1, (10, 85, True)))
    mask = pixels(client.get("/mask/1"))
    assert mask.shape == (90, 60)
    assert mask[85, 10] == 255


def test_unreadable_images_are_named_and_hurt_no_other(photos):
    client, _, _ = started(photos)
    for answer in (client.get("/image/2"), client.post("/click", json=body(2, A))):
        assert answer.status_code == 400
        assert "c.jpg: not an image" in answer.json()["error"]
    assert "c.jpg" in client.get("/images").json()[2]["error"]
    mask = pixels(client.post("/click", json=body(0, A)))
    np.testing.assert_array_equal(mask > 0, expected(photos / "a.png", A))
    Image.fromarray(noise(40, 40)).save(photos / "c.jpg")  # mended meanwhile
    assert pixels(client.get("/image/2")).shape == (40, 40, 3)
    assert client.get("/images").json()[2]["error"] == ""


@pytest.mark.parametrize(
    "url",
    [
        "/image/../secret.png",
        "/image/%2e%2e%2fsecret.png",
        "/mask/..%2f..%2fsecret.png",
        "/mask/a.png",
        "/image/-1",
        "/image/3",
        "/mask/99999999999999999999",
        "/../../secret.png",
        "/mask/0",
    ],
)
def test_nothing_but_pictures_and_their_masks_can_be_read(photos, url):
    answer = started(photos)[0].get(url)
    assert answer.status_code in (400, 404, 500)
    assert b"secret" not in answer.content.replace(b"secret.png", b"")


def test_names_cannot_lead_masks_out_of_the_output(photos):
    listed = photos.parent / "list.txt"
    listed.write_text("photos/a.png\nphotos/../photos/b/../b/a.jpg\n")
    paths = images.find_images(listed)
    pictures = dict(zip(images.image_ids(listed, paths), paths, strict=True))
    output = photos.parent / "out"
    for mask in Session(Predictor(mirrored(Disks()), SIZE), pictures, output).masks:
        assert (output / "masks").resolve() in mask.resolve().parents


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (body(0), "click"),
        (body(3, A), "no picture 3"),
        (body(-1, A), "no picture -1"),
        (body(True, A), "no picture True"),
        (body("../secret", A), "no picture '../secret'"),
        (body(0, (320, 10, True)), "outside the image"),
        (body(0, (-1, 10, True)), "outside the image"),
        (body(0, A, name="b/a.jpg"), "reload"),
        ({"index": 0}, "A body is"),
        ({"clicks": []}, "A body is"),
        ({"index": 0, "clicks": [{"x": 1}]}, "A body is"),
        ({"index": 0, "clicks": [{"x": "one", "y": 1, "positive": True}]}, "A body is"),
        ([1, 2], "A body is"),
    ],
)
@pytest.mark.parametrize("url", ["/click", "/save"])
def test_bad_requests_are_told_in_a_sentence(photos, url, content, says):
    client, network, _ = started(photos)
    answer = client.post(url, json=content)
    assert answer.status_code == 400
    assert says in answer.json()["error"]
    assert not network.passes
    assert not (photos.parent / "out").exists()


def test_other_sites_cannot_post_or_rebind_their_name(photos):
    client, network, _ = started(photos)
    form = '{"index": 0, "clicks": [{"x": 1, "y": 2, "positive": true}]}'
    assert client.post("/save", content=form, headers={"Content-Type": "text/plain"}).is_error
    assert client.get("/images", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/images", headers={"Host": "localhost:8000"}).status_code == 200
    broken = client.post("/click", content="{", headers={"Content-Type": "application/json"})
    assert "A body is" in broken.json()["error"]
    assert not network.passes


def test_a_mask_that_cannot_be_written_is_told(photos):
    blocked = photos.parent / "blocked"
    blocked.write_text("a file where the folder should be")
    client, _, _ = started(photos, output=blocked)
    answer = client.post("/save", json=body(0, A))
    assert answer.status_code == 500
    assert str(blocked) in answer.json()["error"]


def test_mask_names_are_unique():
    names = ["a.jpg", "a.png", "b.jpg", "d/b.jpg", "B.tif", "x.y.jpg", "plain", "a.jpg.bmp"]
    found = mask_names(names)
    assert found == [
        "a.jpg.png",
        "a.png.png",
        "b.jpg.png",
        "d/b.png",
        "B.tif.png",
        "x.y.png",
        "plain.png",
        "a.jpg.bmp.png",
    ]
    assert len({name.casefold() for name in found}) == len(names)


class Flags(types.SimpleNamespace):
    """As absl's, of which `FLAGS["config"]` is what the command line says of the config."""

    def __getitem__(self, name):
        return types.SimpleNamespace(present=0, override_values=self.overrides)


def flag_values(monkeypatch, overrides=(), **values):
    defaults = {"run": "RUN", "output": "", "port": 0, "browser": False}
    settings = config.default()
    settings.update_from_flattened_dict(dict(overrides))
    defaults |= {"config": settings, "overrides": dict(overrides)}
    monkeypatch.setattr(server.flags, "FLAGS", Flags(**(defaults | values)))


def test_command_serves_this_machine_only_and_opens_the_page(photos, monkeypatch, capsys):
    import uvicorn

    served, opened = [], []

    def serve(server, sockets):
        served.append((sockets[0].getsockname(), server.config.app))
        sockets[0].close()

    flag_values(monkeypatch, browser=True)
    monkeypatch.setattr(Predictor, "load", lambda run: Predictor(mirrored(Disks()), SIZE))
    monkeypatch.setattr(server.webbrowser, "open", opened.append)
    monkeypatch.setattr(uvicorn.Server, "run", serve)
    server.main(["mis-jax annotate", str(photos)])
    (host, port), app = served[0]
    assert host == "127.0.0.1"
    assert opened == [f"http://127.0.0.1:{port}"]
    text = capsys.readouterr().out
    assert opened[0] in text
    client = TestClient(app, base_url="http://127.0.0.1")
    saved = client.post("/save", json=body(0, A)).json()["saved"]
    assert saved == str(photos.parent / "annotations" / "masks" / "a.png")


def test_without_a_run_the_model_that_ships_answers(photos, monkeypatch):
    import uvicorn

    apps = []
    flag_values(monkeypatch, run="")
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: sockets[0].close())
    config = uvicorn.Config
    monkeypatch.setattr(uvicorn, "Config", lambda app, **kw: apps.append(app) or config(app, **kw))
    server.main(["mis-jax annotate", str(photos)])
    client = TestClient(apps[0], base_url="http://127.0.0.1")
    predictor = Predictor()
    predictor.set_image(images.read_image(photos / "a.png"))
    for clicks in ([A], [A, B, C], [A, B], [C]):
        predictor.reset()
        for click in clicks:
            mask = predictor.click(*click)
        shown = pixels(client.post("/click", json=body(0, *clicks)))
        np.testing.assert_array_equal(shown > 0, mask)


def test_deep_photos_are_shown_by_the_rule_and_noted(photos, monkeypatch, capsys):
    """12 bits in 16 were black once; what was done about them is said under the photo's name."""
    import uvicorn

    deep = picture(64, 80).astype(np.uint16) * 16
    (photos / "deep.tif").write_bytes(tiff(deep, photometric="rgb"))
    (photos / "empty.png").write_bytes(b"")
    settings = config.default()
    settings.images.range = (0, 1000)
    (photos.parent / "run").mkdir()
    (photos.parent / "run" / "config.json").write_text(settings.to_json())
    apps = []
    monkeypatch.setattr(Predictor, "load", lambda run: Predictor(mirrored(Disks()), SIZE))
    monkeypatch.setattr(uvicorn, "Config", lambda app, **kw: apps.append(app))

    def serve(sockets):
        sockets[0].close()
        client = TestClient(apps[-1], base_url="http://127.0.0.1")
        shown.append(pixels(client.get("/image/3")).astype(float))
        notes.append(json.loads(client.get("/image/3").headers["X-Notes"]))
        assert client.get("/images").json()[3]["notes"] == notes[-1]
        assert client.get("/image/4").status_code == 400
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn, "Server", lambda config: types.SimpleNamespace(run=serve))
    shown, notes = [], []
    run = str(photos.parent / "run")
    for values in (
        {"run": ""},
        {"run": run},
        {"run": run, "overrides": {"images.range": (0, 4095)}},
    ):
        flag_values(monkeypatch, **values)
        with pytest.raises(KeyboardInterrupt):
            server.main(["mis-jax annotate", str(photos)])
    wide = np.percentile(deep, [0.1, 99.9])
    for image, (low, high) in zip(shown, [wide, (0, 1000), (0, 4095)], strict=True):
        expected = np.clip((deep - low) / (high - low), 0, 1) * 255
        assert np.abs(image - expected).mean() < 3  # shown as JPEG
    assert [len(found) for found in notes] == [1, 0, 0]
    out = capsys.readouterr().out
    assert "1 file: its values use little of their range" in out
    assert (
        "skipped 1 that cannot be used: 1 the file is empty\n  empty.png: the file is empty" in out
    )


def test_command_leaves_out_the_masks_it_wrote(photos, monkeypatch):
    import uvicorn

    apps = []
    flag_values(monkeypatch, output=str(photos))
    monkeypatch.setattr(Predictor, "load", lambda run: Predictor(mirrored(Disks()), SIZE))
    monkeypatch.setattr(uvicorn.Server, "run", lambda server, sockets: sockets[0].close())
    config = uvicorn.Config
    monkeypatch.setattr(uvicorn, "Config", lambda app, **kw: apps.append(app) or config(app, **kw))
    for _ in range(2):
        server.main(["mis-jax annotate", str(photos)])
        client = TestClient(apps[-1], base_url="http://127.0.0.1")
        names = [row["name"] for row in client.get("/images").json()]
        assert names == ["a.png", "b/a.jpg", "c.jpg"]
        client.post("/save", json=body(0, A))


def test_command_errors_name_the_remedy(photos, monkeypatch):
    flag_values(monkeypatch)
    with pytest.raises(InputError, match="One source of images"):
        server.main(["mis-jax annotate"])
    with server.socket.create_server((server.HOST, 0)) as taken:
        flag_values(monkeypatch, port=taken.getsockname()[1])
        with pytest.raises(InputError, match=r"--port .* in use.*; give another"):
            server.main(["mis-jax annotate", str(photos)])
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(InputError, match=r"pip install 'mis-jax\[annotate\]'"):
        server.main(["mis-jax annotate", str(photos)])


def test_importing_needs_no_extra():
    code = "import sys; sys.modules['starlette'] = sys.modules['uvicorn'] = None\n"
    code += "from mis_jax.annotator import server; server.define_flags()"
    subprocess.run([sys.executable, "-c", code], check=True)
