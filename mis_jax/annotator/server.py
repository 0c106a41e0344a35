"""Outlining photos with clicks in the browser: `mis-jax annotate IMAGES [--run RUN]`.

The model of a training run answers the clicks, or, without one, the model that comes with mis_jax.

Click on a thing, correct its mask with more clicks, save: PNG, 255 on the thing and 0 elsewhere,
as large as the upright photo. The page is for this machine only (127.0.0.1).
"""

import json
import socket
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import flags

from mis_jax import options
from mis_jax.annotator.session import Clicks, Session, png
from mis_jax.datasets import Reading, images
from mis_jax.errors import InputError
from mis_jax.files import resource
from mis_jax.models import loading
from mis_jax.predictors import FusedPredictor, Predictor, shipped
from mis_jax.records import ignored_lines, masks_left_out, propose

HOST = "127.0.0.1"
FRESH = {"Cache-Control": "no-store"}
USUAL = 384, 512  # pixels of an image, of which most photos have the sides' ratio


def make_app(session: Session) -> Any:
    """The web application, a `starlette.applications.Starlette`.

    GET / page, with /page.css and /page.js; GET /images `Session.listing`; GET /image/I JPEG, what
    is odd about the file in X-Notes; GET /mask/I the saved mask.
    POST /click {"index", "clicks": [{"x", "y", "positive"}]} the mask of these clicks, PNG 0/255.
    POST /save, the same body: writes that mask. An error is JSON {"error": sentence}.
    """
    from starlette import applications, responses, routing
    from starlette.concurrency import run_in_threadpool
    from starlette.middleware import Middleware, trustedhost

    def file(name, kind):
        text = resource(__package__, name)
        return lambda request: responses.Response(text, 200, FRESH, kind)

    def show_image(request):
        index = _index(request.path_params["index"], session)
        data = cv2.imencode(".jpg", session.image(index)[:, :, ::-1])[1]  # quality 95
        notes = {"X-Notes": json.dumps(session.notes.get(session.names[index], ()))}
        return responses.Response(data.tobytes(), 200, notes, "image/jpeg")

    def show_mask(request):
        data = session.masks[_index(request.path_params["index"], session)].read_bytes()
        return responses.Response(data, 200, FRESH, "image/png")

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
        "/": file("page.html", "text/html"),
        "/page.css": file("page.css", "text/css"),
        "/page.js": file("page.js", "text/javascript"),
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
    """Flags of `mis-jax annotate IMAGES`; of the config, `images` counts."""
    options.define_config("sbd_vitb16")
    flags.DEFINE_string(
        "run",
        "",
        "Training run or weights file whose model answers; none: the one that comes with mis_jax.",
    )
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
    of_run = loading.config_of(run) if run else None
    reading = Reading.of(options.section("images", of_run))
    folder = Path(argv[1]).resolve().parent if Path(argv[1]).is_dir() else Path()
    output = Path(flags.FLAGS.output or folder / "annotations")
    paths, of_others = propose.find(argv[1])
    masks = (output / "masks").resolve()
    own = {name for name, path in paths.items() if masks in path.resolve().parents}
    of_others = {name: why for name, why in of_others.items() if name not in own}
    pictures = {n: p for n, p in paths.items() if n not in own and n not in of_others}
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise InputError(f"--port {port}: {error.strerror}; give another one.") from None
    alone = "no --run: the model that comes with mis_jax answers"
    source = f"loading the model of {run}, up to a minute" if run else alone
    said = [*masks_left_out(of_others), *ignored_lines(images.ignored_files(argv[1]))]
    print("\n".join([*said, f"{len(pictures)} images; {source} ..."]), flush=True)
    predictor: Predictor | FusedPredictor = Predictor.load(run) if run else shipped()
    predictor.set_image(np.zeros((*USUAL, 3), np.uint8))
    predictor.click(32, 32)  # compiles, so that the first click in the page is answered at once
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    print(f"The page is {address}, the masks go to {output}/masks. Ctrl+C ends it.", flush=True)
    if flags.FLAGS.browser:
        webbrowser.open(address)
    session = Session(predictor, pictures, output, reading)
    app = make_app(session)
    config = uvicorn.Config(app, log_config=None, log_level="warning")  # absl does the logging
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:  # Ctrl+C
        for line in session.said():
            print(line, flush=True)
