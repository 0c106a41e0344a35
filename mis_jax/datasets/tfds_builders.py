"""The four evaluation sets, built as TFDS datasets without TensorFlow; tfds.py reads them.

`tools/data/build_benchmarks.py` builds them, from folders as `mis-jax download` leaves them.
`benchmarks.open_benchmark` takes the folder of a built set; so does `tfds.builder_from_directory`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from mis_jax.datasets import benchmarks
from mis_jax.datasets.samples import Sample
from mis_jax.datasets.tfds import IGNORED, SPLIT, imported

imported()  # or a sentence that says what to install

import tensorflow_datasets as tfds  # noqa: E402


def _png(channels: int) -> tfds.features.Image:
    return tfds.features.Image(shape=(None, None, channels), encoding_format="png")


# TFDS has no types, so mypy does not know its keyword.
class _Objects(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """An evaluation set, from the folder that is TFDS's manual directory."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "mis-jax download prints the folder to give as the manual_dir."
    code_path = None  # nothing lies beside the code; TFDS's search needs an undeclared package
    benchmark: ClassVar[str]  # as `benchmarks.open_benchmark` calls it

    def _info(self) -> tfds.core.DatasetInfo:
        image, mask = (_png(channels) for channels in (3, 1))
        features = {"id": tfds.features.Text(), "index": np.int64, "image": image, "mask": mask}
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"Objects of {self.benchmark} to click on.",
            features=tfds.features.FeaturesDict(features),
            metadata=tfds.core.MetadataDict(ids=[], skipped={}),
            disable_shuffling=True,  # else the records are in the order of hashes
        )

    def _split_generators(self, dl_manager: Any) -> dict:
        return {SPLIT: self._generate_examples(dl_manager.manual_dir)}

    def _generate_examples(self, folder: Any) -> Iterator[tuple[int, dict]]:
        opened = benchmarks.open_benchmark(self.benchmark, str(folder))
        ids: list[str] = []
        for sample in opened:
            yield len(ids), _record(sample, len(ids))
            ids.append(sample.id)
        if not ids:
            raise opened.nothing_usable()
        self.info.metadata.update(ids=ids, skipped=dict(opened.skipped))


class Grabcut(_Objects):
    """GrabCut: 50 objects."""

    name = "grabcut"
    benchmark = "grabcut"


class Berkeley(_Objects):
    """Berkeley: 100 objects."""

    name = "berkeley"
    benchmark = "berkeley"


class Davis345(_Objects):
    """DAVIS: 345 frames with one object each; TFDS has another set of the name davis."""

    name = "davis345"
    benchmark = "davis"


class SbdInstances(_Objects):
    """SBD: every instance of its validation images."""

    name = "sbd_instances"
    benchmark = "sbd"


BUILDERS = {cls.benchmark: cls for cls in (Grabcut, Berkeley, Davis345, SbdInstances)}


def build(name: str, folder: str | Path, output: str | Path) -> Path:
    """Builds set `name` (a key of `BUILDERS`) into a folder of its own below `output`.

    Args:
        folder: the set as `benchmarks.open_benchmark` takes it.

    Returns:
        The folder to open; one that was built before is left as it is.

    Raises:
        InputError: the set cannot be opened, or no object of it can be used.
    """
    benchmarks.open_benchmark(name, folder)
    # The default format needs TensorFlow.
    builder = BUILDERS[name](data_dir=str(output), file_format="array_record")
    config = tfds.download.DownloadConfig(manual_dir=str(folder))
    builder.download_and_prepare(download_config=config)
    return Path(builder.data_dir)


def _record(sample: Sample, index: int) -> dict[str, Any]:
    mask = np.where(sample.mask == -1, IGNORED, sample.mask).astype(np.uint8)
    return {
        "id": sample.id,
        "index": index,
        "image": cv2.imencode(".png", sample.image[..., ::-1])[1].tobytes(),
        "mask": cv2.imencode(".png", mask)[1].tobytes(),
    }
