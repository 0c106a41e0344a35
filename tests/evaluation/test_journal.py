"""What is kept of finished objects: by whom, of which pixels, and after a kill."""

import json

from mis_jax.evaluation.journal import Journal


def record(id, digest, iou=0.5):
    return {"id": id, "digest": digest, "ious": [iou], "clicks": [[1, 2, 1]], "seconds": 0.25}


def test_finished_objects_are_known_by_id_and_digest(tmp_path):
    first = Journal(tmp_path / "new" / "folder", "clicks")
    assert first.latest() == {}
    first.add(record("a", 1))
    again = Journal(tmp_path / "new" / "folder", "clicks")
    assert again.recall("a", 1)
    assert not again.recall("a", 2)
    assert not Journal(tmp_path / "new" / "folder", "random0").recall("a", 1)
    assert (tmp_path / "new" / "folder" / "clicks.jsonl").read_text().count("\n") == 1


def test_a_cut_line_is_dropped_and_the_next_one_whole(tmp_path):
    Journal(tmp_path, "clicks").add(record("a", 1))
    with (tmp_path / "clicks.jsonl").open("a") as file:
        file.write('{"id": "b", "di')
    journal = Journal(tmp_path, "clicks")
    journal.add(record("b", 3))
    lines = (tmp_path / "clicks.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["a", "b"]


def test_processes_have_files_of_their_own_and_know_of_each_other(tmp_path):
    mine, other = Journal(tmp_path, "clicks", (0, 2)), Journal(tmp_path, "clicks", (1, 2))
    mine.add(record("a", 1))
    other.add(record("b", 2))
    with (tmp_path / "clicks-1of2.jsonl").open("a") as file:
        file.write('{"id": "c", "di')  # being written
    assert set(mine.latest()) == {"a", "b"}
    assert (tmp_path / "clicks-1of2.jsonl").read_text().endswith('"di')  # not mine to mend
    alone = Journal(tmp_path, "clicks")
    assert alone.recall("a", 1)
    assert alone.recall("b", 2)


def test_of_several_records_the_last_counts(tmp_path):
    one, two = Journal(tmp_path, "clicks", (0, 2)), Journal(tmp_path, "clicks", (1, 2))
    two.add(record("a", 1, 0.1))
    one.add(record("a", 2, 0.2))
    one.add({"id": "b", "skipped": "the mask is empty"})
    two.add(record("b", 5, 0.3))
    assert one.latest()["a"]["ious"] == [0.2]
    assert one.latest()["b"]["ious"] == [0.3]
    two.add(record("a", 1, 0.4))
    assert two.latest()["a"]["ious"] == [0.4]


def test_pixels_that_come_back_count_again(tmp_path):
    Journal(tmp_path, "clicks").add(record("a", 1, 0.1))
    Journal(tmp_path, "clicks").add(record("a", 2, 0.2))
    Journal(tmp_path, "clicks").add({"id": "b", "skipped": "gone"})
    journal = Journal(tmp_path, "clicks")
    assert journal.recall("a", 1)
    assert journal.latest()["a"]["ious"] == [0.1]
    assert journal.latest()["b"]["skipped"] == "gone"
    journal.add(record("b", 3))
    Journal(tmp_path, "clicks").add({"id": "b", "skipped": "gone"})
    assert Journal(tmp_path, "clicks").recall("b", 3)
    assert journal.latest()["b"]["ious"] == [0.5]
