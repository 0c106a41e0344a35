"""What became of the images of a `mis-jax propose`, and what their merge trees are like."""

import collections
import dataclasses
import itertools
import re
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from mis_jax.datasets import Notes, note_lines
from mis_jax.proposals import Tree

AREA_EDGES = (0.0, 0.01, 0.05, 0.10, 0.25, 0.50, 1.0)  # of the report, fractions of the image
LARGE = 0.05  # the report counts proposals over this fraction, which Algorithm 2 accepts
SHOWN_KINDS = 6  # reasons that it counts
NAMED = 20  # skipped images that the printed summary names


@dataclasses.dataclass
class Report:
    """What became of some images; the file beside each shard holds its fields, among others.

    The lists of integers have one entry a tree.
    """

    skipped: list[list[str]] = dataclasses.field(default_factory=list)  # [id, reason]
    notes: list[list[str]] = dataclasses.field(default_factory=list)  # [id, what is odd about it]
    patches: list[int] = dataclasses.field(default_factory=list)
    large: list[int] = dataclasses.field(default_factory=list)  # proposals over LARGE
    depths: list[int] = dataclasses.field(default_factory=list)
    areas: list[int] = dataclasses.field(default_factory=lambda: [0] * (len(AREA_EDGES) - 1))
    seconds: float = 0.0

    @classmethod
    def of(cls, note: dict) -> "Report":
        """The report in the file beside a shard; TypeError if there is none, or it is damaged."""
        names = {field.name for field in dataclasses.fields(cls)} & note.keys()
        report = cls(**{name: note[name] for name in names})
        numbers = [*report.patches, *report.large, *report.depths, *report.areas, report.seconds]
        words = [word for pair in (*report.skipped, *report.notes) for word in pair]
        pairs = all(len(pair) == 2 for pair in (*report.skipped, *report.notes))
        whole = len(report.patches) == len(report.large) == len(report.depths)
        whole &= pairs and len(report.areas) == len(AREA_EDGES) - 1
        whole &= all(type(number) in (int, float) for number in numbers)
        if "patches" not in note or not whole or not all(type(word) is str for word in words):
            raise TypeError("no report")
        return report

    def add(self, other: "Report") -> None:
        """Takes in what another report says."""
        for name in ("skipped", "notes", "patches", "large", "depths"):
            getattr(self, name).extend(getattr(other, name))
        self.areas = [a + b for a, b in zip(self.areas, other.areas, strict=True)]
        self.seconds += other.seconds


@dataclasses.dataclass(frozen=True)
class Summary:
    """All finished shards of a folder: of this run, of runs before it, and of other processes."""

    folder: str
    shards: int  # of the whole set of images
    finished: int  # shards that are there
    images: int  # records in them
    images_per_second: float  # of one process
    ignored: dict[str, int]  # files of the folder that do not look like images, by suffix
    report: Report
    said: tuple[str, ...] = ()  # lines on what was left out, and what has changed since

    def __str__(self) -> str:
        there = f"{self.finished} of {self.shards} shards"
        lines = [f"{self.images:,} images in {there}: {self.folder}"]
        lines += skipped_lines(self.report.skipped, " (skipped.txt names them)")
        lines += self.said
        lines += note_lines(_by_name(self.report.notes))
        lines += ignored_lines(self.ignored)
        lines.append(f"{self.images_per_second:.1f} images/s")
        return "\n".join(lines + (describe_trees(self.report) if self.images else []))


def skipped_lines(skipped: Sequence[Sequence[str]], where: str = "") -> list[str]:
    """Lines of text on what cannot be used, [id, reason] each: counted by reason, and the first."""
    if not skipped:
        return []
    kinds = collections.Counter(re.split(r" \(|: ", reason)[0] for _, reason in skipped)
    told = ", ".join(f"{count:,} {kind}" for kind, count in kinds.most_common(SHOWN_KINDS))
    lines = [f"skipped {len(skipped):,} that cannot be used{where}: {told}"]
    lines += [f"  {name}: {reason}" for name, reason in skipped[:NAMED]]
    return lines + ([f"  and {len(skipped) - NAMED:,} more"] if len(skipped) > NAMED else [])


def ignored_lines(ignored: Mapping[str, int]) -> list[str]:
    """A line on the files of a folder that do not look like images, by suffix, if there are any."""
    kinds = ", ".join(f"{suffix} {count:,}" for suffix, count in ignored.items())
    return [f"ignored files that do not look like images: {kinds}"] if ignored else []


def masks_left_out(masks: Mapping[str, str]) -> list[str]:
    """A line for each reason why images are masks of others: how many, and the first."""
    names: dict[str, list[str]] = {}
    for name, reason in masks.items():
        names.setdefault(reason, []).append(name)
    return [f"left out {len(found):,}: {why} ({found[0]})" for why, found in names.items()]


def _by_name(pairs: Sequence[Sequence[str]]) -> dict[str, Notes]:
    found: dict[str, Notes] = {}
    for name, note in pairs:
        found[name] = (*found.get(name, ()), note)
    return found


def describe(tree: Tree) -> Report:
    """The report of one tree. Proposals are the merged regions without the whole image."""
    fractions = tree.areas()[tree.n : tree.root] / tree.n
    return Report(
        patches=[tree.n],
        large=[int((fractions > LARGE).sum())],
        depths=[int(tree.depths().max())],
        areas=np.histogram(fractions, AREA_EDGES)[0].tolist(),
    )


def describe_trees(report: Report) -> list[str]:
    """Lines of text: sizes and depths of the trees, and their proposals by area."""
    lists = report.patches, report.large, report.depths
    patches, large, depth = (statistics.median(values) for values in lists)
    lines = [
        f"trees: {patches:g} patches, {large:g} proposals over {LARGE:.0%} of the image, depth "
        f"{depth:g} (medians); deepest {max(report.depths)}",
        "proposals by area",
    ]
    total = max(sum(report.areas), 1)  # a single patch has no proposal
    for (low, high), count in zip(itertools.pairwise(AREA_EDGES), report.areas, strict=True):
        lines.append(f"{low:>5.0%} to {high:>4.0%} {count:>12,} {count / total:>7.2%}")
    return lines
