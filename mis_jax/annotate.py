"""Outlining photos with clicks in the browser: `mis-jax annotate IMAGES [--run RUN]`.

The model of a training run answers the clicks, or, without one, the merge tree of each photo.

Click on a thing, correct its mask with more clicks, save: PNG, 255 on the thing and 0 elsewhere,
as large as the upright photo. The page is for this machine only (127.0.0.1).
"""

import importlib.resources
import socket
import threading
import webbrowser
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from absl import flags

from mis_jax import cli, images
from mis_jax.errors import InputError
from mis_jax.predictor import Predictor
from mis_jax.tree_predictor import TreePredictor

HOST = "127.0.0.1"
Clicks = list[tuple[float, float, bool]]  # (x, y) in pixels, whether it belongs to the object


class Session:
    """Photos (name -> file), their masks in `output`/masks, and a predictor that takes turns."""

    def __init__(
        self, predictor: Predictor | TreePredictor, pictures: Mapping[str, Path], output: Path
    ) -> None:
        self._predictor, self._lock = predictor, threading.Lock()
        self.names, self._paths = list(pictures), list(pictures.values())
        self.masks = [output / "masks" / name for name in mask_names(pictures)]
        self._unreadable: dict[int, str] = {}
        self._index: int | None = None  # of the picture and the clicks that the predictor holds
        self._clicks: Clicks = []

    def listing(self) -> list[dict[str, Any]]:
        """Name, mask file, whether that is there, and the error of pictures that did not open."""
        reasons = (self._unreadable.get(k, "") for k in range(len(self.names)))
        rows = zip(self.names, self.masks, reasons, strict=True)
        return [{"name": n, "mask": str(m), "done": m.exists(), "error": e} for n, m, e in rows]

    def image(self, index: int) -> np.ndarray:
        """A picture, uint8 RGB [H, W, 3]; `InputError` says why it cannot be read."""
        self._unreadable.pop(index, None)
        try:
            return images.read_image(self._paths[index])
        except InputError as error:
            self._unreadable[index] = str(error)
            raise

    def mask(self, index: int, clicks: Clicks) -> np.ndarray:
        """The mask of all the clicks on a picture, bool [H, W]; new ones cost a pass each."""
        with self._lock:
            if index != self._index:
                self._index = None
                self._predictor.set_image(self.image(index))
                self._index, self._clicks = index, []
            while 0 < len(clicks) < len(self._clicks) and self._clicks[: len(clicks)] == clicks:
                self._predictor.undo()
                self._clicks.pop()
            points, labels = [click[:2] for click in clicks], [click[2] for click in clicks]
            masks, _, _ = self._predictor.predict(np.reshape(points, (-1, 2)), labels)
            self._clicks = list(clicks)
            return masks[0]

    def save(self, index: int, clicks: Clicks) -> Path:
        """Writes the mask of the clicks, complete or not at all; its file."""
        path, data = self.masks[index], png(self.mask(index, clicks))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(data)
        return partial.replace(path)


def png(mask: np.ndarray) -> bytes:
    """A mask bool [H, W] as PNG of 0 and 255."""
    return cv2.imencode(".png", mask.astype(np.uint8) * 255)[1].tobytes()


def mask_names(names: Iterable[str]) -> list[str]:
    """NAME.png for NAME.jpg, or NAME.jpg.png where another would be the same, case aside."""
    stems = {name: str(PurePosixPath(name).with_suffix("")) for name in names}
    taken = Counter(text.casefold() for text in (*stems, *stems.values()))
    return [f"{s if taken[s.casefold()] == 1 else name}.png" for name, s in stems.items()]


def make_app(session: Session) -> Any:
    """The web application, a `starlette.applications.Starlette`.

    GET / page; GET /images `Session.listing`; GET /image/I JPEG; GET /mask/I the saved mask.
    POST /click {"index", "clicks": [{"x", "y", "positive"}]} the mask of these clicks, PNG 0/255.
    POST /save, the same body: writes that mask. An error is JSON {"error": sentence}.
    """
    from starlette import applications, responses, routing
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware, trustedhost

    page = importlib.resources.files("mis_jax").joinpath("annotate.html").read_text("utf-8")

    def show_image(request):
        image = session.image(_index(request.path_params["index"], session))
        data = cv2.imencode(".jpg", image[:, :, ::-1])[1]  # quality 95
        return responses.Response(data.tobytes(), media_type="image/jpeg")

    def show_mask(request):
        data = session.masks[_index(request.path_params["index"], session)].read_bytes()
        return responses.Response(data, 200, {"Cache-Control": "no-store"}, "image/png")

    async def click(request):
        mask = await run_in_threadpool(session.mask, *await _read(request, session))
        return responses.Response(png(mask), media_type="image/png")

    async def save(request):
        path = await run_in_threadpool(session.save, *await _read(request, session))
        return responses.JSONResponse({"saved": str(path)})

    def failed(request, error):
        mendable = isinstance(error, InputError | OSError)
        text = str(error) if mendable else f"{error!r} (the terminal says more)"
        return responses.JSONResponse({"error": text}, 400 if type(error) is InputError else 500)

    gets = {
        "/": lambda request: responses.HTMLResponse(page),
        "/images": lambda request: responses.JSONResponse(session.listing()),
        "/image/{index:int}": show_image,
        "/mask/{index:int}": show_mask,
    }
    routes = [routing.Route(path, answer) for path, answer in gets.items()]
    routes += [routing.Route(f"/{f.__name__}", f, methods=["POST"]) for f in (click, save)]
    # no page of another site may reach this one under a name of its own
    hosts = Middleware(trustedhost.TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    handlers = dict.fromkeys((InputError, OSError, Exception), failed)
    return applications.Starlette(False, routes, [hosts], handlers)


def _index(value: Any, session: Session) -> int:
    if type(value) is not int or not 0 <= value < len(session.masks):
        raise InputError(f"There is no picture {value!r}; there are {len(session.masks)}, from 0.")
    return value


async def _read(request: Any, session: Session) -> tuple[int, Clicks]:
    """Index and clicks of a request's body; a "name" in it tells an outdated page."""
    if request.headers.get("content-type") != "application/json":  # other sites cannot send it
        raise InputError("The content type has to be application/json.")
    try:
        body = await request.json()
        clicks = [(float(c["x"]), float(c["y"]), bool(c["positive"])) for c in body["clicks"]]
        index, name = body["index"], body.get("name")
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InputError('A body is {"index", "clicks": [{"x", "y", "positive"}]}.') from None
    if name not in (None, session.names[_index(index, session)]):
        raise InputError("The list of pictures is another one now; reload the page.")
    return index, clicks


def define_flags() -> None:
    """Flags of `mis-jax annotate IMAGES`."""
    flags.DEFINE_string("run", "", "Training run whose model answers; none: the merge trees do.")
    flags.DEFINE_string("output", "", "Folder for masks/; by default annotations beside IMAGES.")
    flags.DEFINE_integer("port", 8000, f"The page is http://{HOST}:PORT.", 0, 65535)
    flags.DEFINE_boolean("browser", True, "Open the page in the browser; --nobrowser does not.")


def main(argv: Sequence[str]) -> None:
    """Binary: `mis-jax annotate IMAGES [--run RUN]`."""
    try:
        import starlette  # noqa: F401
        import uvicorn
    except ImportError:
        raise InputError("The annotator needs pip install 'mis-jax[annotate]'.") from None
    run, port = flags.FLAGS.run, flags.FLAGS.port
    if len(argv) != 2:
        raise InputError("One source of images: mis-jax annotate IMAGES [--run RUN].")
    folder = Path(argv[1]).resolve().parent if Path(argv[1]).is_dir() else Path()
    output = Path(flags.FLAGS.output or folder / "annotations")
    paths, masks = images.find_images(argv[1]), (output / "masks").resolve()
    named = zip(images.image_ids(argv[1], paths), paths, strict=True)
    pictures = {name: path for name, path in named if masks not in path.resolve().parents}
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; give another one.") from None
    source = f"loading the model of {run}, up to a minute" if run else "no --run: using merge trees"
    print(f"{len(pictures)} images; {source} ...", flush=True)
    predictor = Predictor.load(run) if run else TreePredictor()
    predictor.set_image(np.zeros((64, 64, 3), np.uint8))
    predictor.click(32, 32)  # compiles, so that the first click in the page is answered at once
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    print(f"The page is {address}, the masks go to {output}/masks. Ctrl+C ends it.", flush=True)
    if flags.FLAGS.browser:
        webbrowser.open(address)
    app = make_app(Session(predictor, pictures, output))
    config = uvicorn.Config(app, log_config=None, log_level="warning")  # absl does the logging
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    cli.run("annotate")
