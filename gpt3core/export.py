"""A trained run as a folder that transformers opens: ``python -m gpt3core.export run=ID out=DIR``.

run=ID               a finished run of the store, by its id, the beginning of it, or its label
out=DIR              the new folder; one that holds something is refused
replace=true         the folder is an earlier export, which this one replaces
runs=FOLDER          the store (default: ISOFLOP_ROOT or ~/.isoflop/runs)
step=last            the newest checkpoint of a run that is not finished; step=1200: that of a step that is kept

AutoModelForCausalLM.from_pretrained(DIR) gives the model in fp32, AutoTokenizer.from_pretrained(DIR) its tokenizer. A
model of dense layers becomes a GPT2LMHeadModel, one of alternating bands a GPTNeoForCausalLM; both compute what the
run's model computes, of a run with data.mask_documents for one document at a time: transformers masks nothing before an
end of text. Of a fine-tuned run the language model is written, and not its classifier. isoflop.json says which run and
step it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt3core import cli
from gpt3core.errors import UsageError
from gpt3core.store import places


@dataclass(kw_only=True)
class ExportSettings:
    """Which run, and where to."""

    run: str | None = None
    out: str | None = None
    replace: bool = False
    runs: str | None = None
    step: str | None = None


def main(argv: Sequence[str]) -> int:
    """The command."""
    if "--help" in argv:
        print(__doc__)
        return 0
    given = cli.settings(ExportSettings(), argv)
    if given.run is None or not given.out:
        raise UsageError("run=ID and out=DIR are needed: a trained run, and the folder to write")

    from gpt3core.generate import trained
    from gpt3core.interop import folder

    root = places.local(given.runs) if given.runs else None
    out = Path(given.out).expanduser().absolute()
    here = trained.open_run(given.run, root=root, step=given.step)
    name = folder.export_gpt2(
        here.model,
        out,
        tokenizer=here.spec.data.tokenizer,
        replace=given.replace,
        about={"run_id": here.run.run_id, "step": here.step, "tokenizer": here.spec.data.tokenizer},
    )
    print(f"written: {out}, a {name} of {here.run.run_id} at step {here.step}, with its tokenizer")
    if here.spec.model.document_end is not None:
        print(
            "note: the run was trained with data.mask_documents, which this layout has not: give it one document a text"
        )
    if here.spec.labelled is not None:
        print("note: the run was fine-tuned: this is its language model, without the classifier, which no layout has")
    return 0


if __name__ == "__main__":
    cli.run(main)
