"""Which files are images, and what they are called."""

import numpy as np
import pytest
from damage import damaged

from mis_jax.datasets import images
from mis_jax.errors import InputError


def touch(folder, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_folder_is_searched_recursively(tmp_path):
    touch(tmp_path, "b.JPG", "a/z.png", "a/deep/y.TiFf", ".hidden.png", ".git/x.png", "a/._z.png")
    touch(tmp_path, "notes.txt", "labels/a.xml", "labels/b.xml", "README")
    paths = images.find_images(tmp_path)
    assert images.image_ids(tmp_path, paths) == ["a/deep/y.TiFf", "a/z.png", "b.JPG"]
    assert images.ignored_files(tmp_path) == {".txt": 1, ".xml": 2, "no suffix": 1}


def test_linked_folders_are_followed_once(tmp_path):
    touch(tmp_path, "data/a.png", "elsewhere/b.png")
    (tmp_path / "data/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/self").symlink_to(tmp_path / "data")
    found = images.find_images(tmp_path / "data")
    assert images.image_ids(tmp_path / "data", found) == ["a.png", "more/b.png"]


def test_list_file(tmp_path):
    touch(tmp_path, "one/a.png", "two/b.data", "one/c.jpg")
    listed = tmp_path / "list.txt"
    listed.write_text(
        f"one/c.jpg\r\n\n two/b.data \n{tmp_path}/one/a.png\none/c.jpg\n", "utf-8-sig"
    )
    paths = images.find_images(str(listed))
    assert images.image_ids(listed, paths) == ["one/a.png", "one/c.jpg", "two/b.data"]
    assert images.ignored_files(listed) == {}
    listed.write_text("one/a.png\nmissing.png\n")
    with pytest.raises(InputError, match=r"1 of 2 files that do not exist.*missing\.png"):
        images.find_images(listed)
    listed.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        images.find_images(listed)


def test_glob_and_single_file(tmp_path):
    touch(tmp_path, "x/a.png", "x/deep/b.png", "y/c.png", "y/c.xml")
    paths = images.find_images(f"{tmp_path}/x/**/*.png")
    assert images.image_ids("anything", paths) == ["a.png", "deep/b.png"]
    assert [p.name for p in images.find_images(f"{tmp_path}/y/*")] == ["c.png", "c.xml"]
    assert images.find_images(tmp_path / "y/c.png") == [tmp_path / "y/c.png"]


def test_names_that_are_not_utf8(tmp_path):
    (tmp_path / "caf\udce9.png").write_bytes(b"x")
    paths = images.find_images(tmp_path)
    assert images.image_ids(tmp_path, paths) == ["caf\\xe9.png"]


@pytest.mark.parametrize("source", ["nowhere", "*.nothing", "empty", "table.csv", "empty.txt"])
def test_no_images(source, tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "table.csv")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(InputError, match=source.replace("*", r"\*")):
        images.find_images(str(tmp_path / source))


def test_500_damaged_lists(tmp_path):
    names = [f"sub/{k:02d}.jpg" for k in range(20)]
    touch(tmp_path, *names)
    listed, data, rng = tmp_path / "list.txt", "\n".join(names).encode(), np.random.default_rng(0)
    said = []
    for _ in range(500):
        listed.write_bytes(damaged(data, rng))
        try:
            assert set(images.find_images(listed)) <= {tmp_path / name for name in names}
        except InputError as error:
            said.append(str(error))
    assert len(said) > 250
    assert all(str(listed) in text for text in said)


def test_names_that_no_file_can_have(tmp_path):
    for name in ("x" * 300, "x/" * 3000, "x\0"):
        (tmp_path / "list.txt").write_text(name)
        with pytest.raises(InputError, match="names 1 of 1 files that do not exist"):
            images.find_images(tmp_path / "list.txt")
        with pytest.raises(InputError, match="does not exist"):
            images.find_images(name)
