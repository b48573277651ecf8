"""What lies in a prepared folder, every file of it read through: ``python -m gpt3core.data.check corpus=DIR``.

Runs read a folder through once on each machine, and then go by its files' sizes and times; this reads in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpt3core import cli
from gpt3core.errors import UsageError


@dataclass(kw_only=True)
class CheckSettings:
    """Which folder."""

    corpus: str | None = None


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(CheckSettings(), argv)
    if not given.corpus:
        raise UsageError("corpus=DIR is needed: a folder that was prepared")

    from gpt3core.data import corpus, shards

    spec = corpus.prepared(given.corpus)
    made = shards.prepare(spec, again=True)
    for name, source in made.sources.items():
        train, held = source.tokens["train"], source.tokens["validation"]
        print(
            f"{name}: weight {source.weight:.1%}, {sum(source.documents.values()):,} documents, {train:,} tokens to "
            f"train on, {held:,} held out"
        )
    print(f"sound: {given.corpus}, sha256 {spec.corpus_sha256[:12]}, data.tokenizer={spec.tokenizer}")
    return 0


if __name__ == "__main__":
    cli.run(main)
