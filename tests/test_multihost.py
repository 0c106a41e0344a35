"""Two processes train one model, and one process goes on from their checkpoint."""

import json
import socket

import pytest
import tiny_run


def losses(run):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_one_goes_on(tmp_path):
    tiny_run.write_records(tmp_path)
    config = tiny_run.write_config(tmp_path)

    def train(run, steps, *words):
        return tiny_run.start(
            "train", tmp_path / "records", "--workdir", tmp_path / run, f"--config={config}",
            f"--config.optim.steps={steps}", *words, cache=tmp_path / "cache",
        )  # fmt: skip

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = [f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
    pair = [train("two", 3, *together, f"--process_id={i}") for i in range(2)]
    for process in pair:
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    for run, steps in (("one", 5), ("two", 5)):
        process = train(run, steps)
        _, errors = process.communicate(timeout=400)
        assert process.returncode == 0, errors
    alone, resumed = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(alone) == 5
    assert resumed == pytest.approx(alone, rel=1e-4)
