"""Published weights of ViTs in the cache folder: fetched, verified, checked by their tensors."""

import http.client
import sys
from dataclasses import dataclass
from pathlib import Path

from mis_jax.downloads.fetch import File, fetch, verify
from mis_jax.errors import InputError
from mis_jax.files import cache_folder, locked
from mis_jax.models import licences, state_dicts, vit


@dataclass(frozen=True)
class Source:
    """A published checkpoint: its licence, and files that hold the same weights, mirrors last."""

    licence: str
    files: tuple[File, ...]


def _published(path: str, digest: str = "", size: int = 0) -> File:
    return File(f"https://dl.fbaipublicfiles.com/{path}", digest, size)


def _timm(name: str) -> File:
    return File(f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors")


def _dino(folder: str, digest: str, mirror: str, size: int = 0) -> Source:
    official = _published(f"dino/{folder}/{folder}.pth", digest, size)
    return Source(licences.LICENCES["dino"], (official, _timm(f"{mirror}.dino")))


def _dinov2(size: str, mirror: str, digest: str = "", length: int = 0) -> Source:
    official = _published(f"dinov2/dinov2_{size}/dinov2_{size}_pretrain.pth", digest, length)
    return Source(
        licences.LICENCES["dinov2"], (official, _timm(f"{mirror}_patch14_dinov2.lvd142m"))
    )


def _mae(size: str, digest: str, mirror: str) -> Source:
    official = _published(f"mae/pretrain/mae_pretrain_vit_{size}.pth", digest)
    return Source(licences.LICENCES["mae"], (official, _timm(f"{mirror}.mae")))


def _mocov3(size: str) -> Source:
    file = _published(f"moco-v3/{size}-300ep/{size}-300ep.pth.tar")
    return Source(licences.LICENCES["mocov3"], (file,))


# MD5 prefixes: of MAE from its README.md, of DINO from oml/models/vit_dino/extractor.py of OML.
# Size of DINO S/8, size and SHA-256 of DINOv2 S/14: as several public projects pin them.
KNOWN = {
    "dino-vits8": _dino(
        "dino_deitsmall8_pretrain", "md5:230cd5", "vit_small_patch8_224", 86_728_949
    ),
    "dino-vits16": _dino("dino_deitsmall16_pretrain", "md5:cf0f22", "vit_small_patch16_224"),
    "dino-vitb8": _dino("dino_vitbase8_pretrain", "md5:556550", "vit_base_patch8_224"),
    "dino-vitb16": _dino("dino_vitbase16_pretrain", "md5:552daf", "vit_base_patch16_224"),
    "dinov2-vits14": _dinov2(
        "vits14",
        "vit_small",
        "sha256:b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
        88_283_115,
    ),
    "dinov2-vitb14": _dinov2("vitb14", "vit_base"),
    "dinov2-vitl14": _dinov2("vitl14", "vit_large"),
    "dinov2-vitg14": _dinov2("vitg14", "vit_giant"),
    "mocov3-vits16": _mocov3("vit-s"),
    "mocov3-vitb16": _mocov3("vit-b"),
    "mae-vitb16": _mae("base", "md5:8cad7c", "vit_base_patch16_224"),
    "mae-vitl16": _mae("large", "md5:b8b06e", "vit_large_patch16_224"),
    "mae-vith14": _mae("huge", "md5:9bdbb0", "vit_huge_patch14_224"),
}


def find_weights(name: str, cache: str | Path | None = None) -> Path | None:
    """The file of checkpoint `name` (a key of `KNOWN`) in the cache folder, if it is there."""
    paths = [_cached(name, file, cache) for file in KNOWN[name].files]
    return next((path for path in paths if path.is_file()), None)


def download_weights(name: str, cache: str | Path | None = None) -> Path:
    """Puts checkpoint `name` (a key of `KNOWN`) into the cache folder, unless it is there.

    Tries each file in turn; goes on where an interrupted download stopped; installs a file only
    whole, with the published size and digest where there are some, and with the tensors of the
    model it is for.

    Args:
        cache: folder; by default $MIS_JAX_CACHE, else ~/.cache/mis_jax.

    Raises:
        InputError: an unknown name; or no URL gave the file: says what to fetch by hand, and
            where to put it.
    """
    if name not in KNOWN:
        raise InputError(f'there are no known weights "{name}"; there are {", ".join(KNOWN)}.')
    source, failures = KNOWN[name], []
    with locked(cache_folder(cache) / f"{name}.lock"):
        if found := find_weights(name, cache):
            return found
        for file in source.files:
            path = _cached(name, file, cache)
            part = path.with_name(path.name + ".part")
            print(f"downloading {name} (licence {source.licence}): {file.url}", file=sys.stderr)
            try:
                fetch(file.url, part, name)
                print(f"{name}: verified by {_verify(part, name, file)}", file=sys.stderr)
                part.replace(path)
                return path
            except (OSError, http.client.HTTPException, InputError) as error:
                failures.append(f"{file.url}: {error}".rstrip("."))
    raise InputError(
        f"{name} could not be downloaded ({'; '.join(failures)}); fetch {source.files[0].url} by "
        f"hand and put it at {_cached(name, source.files[0], cache)}."
    )


def _cached(name: str, file: File, cache: str | Path | None) -> Path:
    suffix = ".safetensors" if file.url.endswith(".safetensors") else ".pth"
    return cache_folder(cache) / (name + suffix)


def _verify(part: Path, name: str, file: File) -> str:
    """What `part` was verified by; removes it and raises if it is not the published file."""
    try:
        by = verify(part, file)
        vit.port_published(name, state_dicts.load_state_dict(part))
    except InputError:
        part.unlink()
        raise
    return ", ".join([*by, "the names and shapes of its tensors"])
