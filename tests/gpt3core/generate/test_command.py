"""python -m gpt3core.generate: what it writes, and what it says of what cannot be."""

import io
import re
import sys

import pytest

from gpt3core.data import tokenizer
from gpt3core.generate import command
from gpt3core.generate.choices import Sampling
from gpt3core.generate.decode import complete
from gpt3core.generate.sampling import Sampler
from gpt3core.generate.text import Text, encode, visible
from gpt3core.generate.trained import open_run
from gpt3core.store.rundir import RunDir
from tests.commands import called
from tests.gpt3core import stores

pytestmark = pytest.mark.xdist_group("trained store")  # trained once, in one process


@pytest.fixture
def generate(store, tmp_path):
    """The command on the store, or on another one."""

    def run(*words, runs=store[0]):
        return called(command.main, [f"runs={runs}", *words], tmp_path)

    return run


def expected(store, prompt: str, **options) -> str:
    """The text by the functions behind the command."""
    here = open_run(store[1].run_id, root=store[0])
    how = Sampling(**{"temperature": 0, **options})
    ids = encode(here.encoding, prompt)
    found = complete(here.model, [ids], tokens=20, choose=Sampler(how), end=here.encoding.eot_token)
    return here.encoding.decode(found[0].tokens)


def test_the_text_of_a_run_by_its_id_its_label_or_the_beginning_of_its_id(store, generate):
    root, done, _ = store
    before = stores.fingerprint(root)
    text = expected(store, "the king")
    assert len(text) > 10
    for name in (done.run_id, done.run_id[:-3]):
        found = generate(f"run={name}", "prompt=the king", "tokens=20", "temperature=0")
        assert (found.returncode, found.stdout, found.stderr) == (0, text + "\n", "")
    assert stores.fingerprint(root) == before, "reading leaves no trace"


def test_a_label_of_one_run_is_enough(store, generate, tmp_path):
    root = stores.copied(store[0], tmp_path)
    found = generate(f"run={store[1].label}", runs=root)
    assert found.returncode == 2
    ids = sorted(spec.run_id for spec in store[1:])
    assert re.match(rf"error: run=d16 is the name of 2 runs \({ids[0]} of 0.00\d+M tokens, {ids[1]} of", found.stderr)
    RunDir(root, store[2].run_id).path.rename(tmp_path / "away")
    assert generate(f"run={store[1].label}", runs=root).returncode == 0


@pytest.mark.parametrize("prompt", ["12", "a: b", "[x", "  two", "null", "=", "x=1\ny", "<|endoftext|>", "naïve 中"])
def test_a_prompt_is_taken_as_it_stands(store, generate, prompt, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(command, "_draw", lambda here, ids, *_: read.append(here.encoding.decode(ids)))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(prompt.encode())))
    (tmp_path / "mine.txt").write_bytes(prompt.encode())
    for word in (f"prompt={prompt}", "prompt_file=mine.txt", "prompt_file=-"):
        found = generate(f"run={store[1].run_id}", word)
        assert (found.returncode, found.stderr) == (0, "")
    assert read == [prompt] * 3


def test_without_a_prompt_a_document_starts(store, generate):
    here = open_run(store[1].run_id, root=store[0])
    assert encode(here.encoding, "") == [here.encoding.eot_token]
    options = (f"run={store[1].run_id}", "tokens=20", "temperature=0")
    assert generate(*options).stdout == generate("prompt=", *options).stdout == expected(store, "") + "\n"


def test_draws_are_those_of_the_seed(store, generate):
    options = (f"run={store[1].run_id}", "prompt=the", "tokens=20", "top_k=30", "top_p=0.99", "temperature=1.5")
    first = generate(*options, "seed=4").stdout
    assert first == expected(store, "the", seed=4, temperature=1.5, top_k=30, top_p=0.99) + "\n"
    assert first == generate(*options, "seed=4").stdout
    assert first != generate(*options).stdout
    several = generate(*options, "seed=4", "n=3").stdout
    assert several.startswith(f"--- 1 of 3\n{first}--- 2 of 3\n")
    assert len(set(re.split("--- . of 3\n", several))) == 4


def test_beams(store, generate):
    found = generate(f"run={store[1].run_id}", "prompt=the", "tokens=5", "beam=4", "n=2")
    assert re.fullmatch(r"--- 1 of 2\n.+\n--- 2 of 2\n.+\n", found.stdout, re.DOTALL)
    one = generate(f"run={store[1].run_id}", "prompt=the", "tokens=5", "beam=1", "length_penalty=0")
    greedy = generate(f"run={store[1].run_id}", "prompt=the", "tokens=5", "temperature=0")
    assert one.stdout == greedy.stdout


def test_the_end_of_the_context_is_said(store, generate):
    options = (f"run={store[1].run_id}", "prompt=the", "tokens=90", "temperature=0")
    found = generate(*options)
    note = "note: the text ends where the context of 32 tokens does; with roll=true the command goes on\n"
    assert (found.returncode, found.stderr) == (0, note)
    rolled = generate(*options, "roll=true")
    assert rolled.stdout.startswith(found.stdout[:-1])
    assert len(rolled.stdout) > 2 * len(found.stdout)
    assert rolled.stderr == ""
    assert generate(f"run={store[1].run_id}", "prompt=the", "tokens=0").stdout == "\n"


# ---------------------------------------------------------------------------------------------------------- checkpoints


def test_a_run_that_is_not_finished_is_used_only_if_asked(store, generate):
    _, _, begun = store
    kept = RunDir(store[0], begun.run_id).checkpoint_steps()[-1]
    found = generate(f"run={begun.run_id}")
    assert found.returncode == 2
    assert found.stderr == (
        f"error: run {begun.run_id} is not finished (it is at step {kept} of 60 at least): "
        "step=last takes the checkpoint that it has\n"
    )
    found = generate(f"run={begun.run_id}", "step=last", "tokens=20", "temperature=0")
    assert (found.returncode, found.stderr) == (0, f"{begun.run_id} at step {kept} of 60\n")
    assert found.stdout == generate(f"run={begun.run_id}", f"step={kept}", "tokens=20", "temperature=0").stdout
    found = generate(f"run={begun.run_id}", "step=7")
    assert found.stderr.endswith(f"its checkpoints are of step {kept}; give one of these, or last\n")


def test_a_damaged_checkpoint_is_one_sentence_and_another_can_be_taken(store, generate, tmp_path):
    root = stores.copied(store[0], tmp_path)
    run = RunDir(root, store[1].run_id)
    first, last = run.checkpoint_steps()
    stores.flip(run.checkpoint(last) / "model-00000.safetensors")
    before = stores.fingerprint(root)
    found = generate(f"run={run.run_id}", runs=root)
    assert found.returncode == 2
    assert re.fullmatch(
        rf"error: the checkpoint of step 40 of run {run.run_id} is damaged \(model-00000.safetensors has sha256 .*\): "
        rf"step={first} takes the one before, or bring it back from a copy\n",
        found.stderr,
    )
    assert stores.fingerprint(root) == before
    assert generate(f"run={run.run_id}", f"step={first}", runs=root).returncode == 0
    run.checkpoint(last).rename(tmp_path / "away")
    found = generate(f"run={run.run_id}", runs=root)
    assert f"the checkpoint of its last step 40 is gone: bring it back to {run.checkpoints}" in found.stderr


def test_a_run_that_diverged_is_one_sentence(store, generate, tmp_path):
    root = stores.copied(store[0], tmp_path)
    stores.diverge(root, store[2])
    found = generate(f"run={store[2].run_id}", runs=root)
    assert found.returncode == 2
    assert found.stderr.startswith(f"error: run {store[2].run_id} diverged, so its last weights are no model: its ")
    assert found.stderr.count("\n") == 1


# --------------------------------------------------------------------------------------------------------- wrong inputs


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "run=ID is needed"),
        (["run=d17"], r"run=d17: no run of .* has this id or label; did you mean d16"),
        (["run=zzz"], r"run=zzz: no run of .*; its runs are d16-"),
        (["run=../x"], r"run=\.\./x: no run of"),
        (["run="], "run= has no value"),
        (["run=DONE", "tokens=-1"], "tokens=-1: zero or more"),
        (["run=DONE", "tokens=x"], "tokens=x: .*Integer"),
        (["run=DONE", "temperature=-0.5"], "temperature=-0.5: zero"),
        (["run=DONE", "temperature=nan"], "temperature=nan"),
        (["run=DONE", "top_p=0"], "top_p=0.0: it must lie above 0"),
        (["run=DONE", "top_p=1.1"], "top_p=1.1: it must lie above 0 and be at most 1"),
        (["run=DONE", "top_k=0"], "top_k=0"),
        (["run=DONE", "top_k=300"], "top_k=300 has no effect: this run knows 300 tokens"),
        (["run=DONE", "seed=-3"], "seed=-3"),
        (["run=DONE", "n=0"], "n=0: 1 or more"),
        (["run=DONE", "threads=0"], "threads=0: a whole number of 1 or more"),
        (["run=DONE", "n=2", "temperature=0"], "n=2 has no effect with temperature=0"),
        (["run=DONE", "top_k=5", "temperature=0"], "top_k=5 has no effect with temperature=0"),
        (["run=DONE", "beam=4", "temperature=0.7"], "beam=4 searches .*temperature=0.7 has no effect"),
        (["run=DONE", "beam=4", "seed=1"], ".*seed=1 has no effect"),
        (["run=DONE", "beam=4", "roll=true"], ".*roll=True has no effect"),
        (["run=DONE", "beam=0"], "beam=0: 1 or more"),
        (["run=DONE", "beam=2", "n=3"], "n=3: a search of beam=2 ends with 2 texts"),
        (["run=DONE", "beam=2", "length_penalty=-1"], "length_penalty=-1.0: zero"),
        (["run=DONE", "length_penalty=0.6"], "length_penalty=0.6 has no effect without beam="),
        (["run=DONE", "prompt=" + "word " * 40], r"the prompt has \d+ tokens, and 32 fit"),
        (["run=DONE", "prompt=a", "prompt_file=b"], "prompt= and prompt_file= are both given"),
        (["run=DONE", "prompt=a", "prompt=b"], "prompt=b: prompt=a was given too"),
        (["run=DONE", "prompt=\udcff"], "prompt: it is not UTF-8"),
        (["run=DONE", "prompt_file=none.txt"], r"prompt_file=none.txt cannot be read \(No such file"),
        (["run=DONE", "prompt_file=bytes.txt"], "prompt_file=bytes.txt is not UTF-8 text"),
        (["run=DONE", "prompt_file=."], "prompt_file=. cannot be read"),
        (["run=DONE", "step=first"], "step=first of run .*: its checkpoints are of step"),
        (["run=DONE", "tmperature=0"], "unknown key 'tmperature', did you mean temperature"),
        (["run=DONE", "--beam"], "unknown flag --beam"),
    ],
)
def test_what_cannot_be_is_one_sentence(store, generate, tmp_path, words, sentence):
    (tmp_path / "bytes.txt").write_bytes(b"caf\xe9")
    found = generate(*(word.replace("DONE", store[1].run_id) for word in words))
    assert (found.returncode, found.stdout) == (2, "")
    assert re.match(f"error: {sentence}", found.stderr), found.stderr
    assert found.stderr.count("\n") == 1
    assert len(found.stderr) < 500


def test_a_store_without_runs_or_none_at_all(generate, tmp_path):
    from gpt3core.store.rundir import open_root

    assert "holds no isoflop store" in generate("run=x", runs=tmp_path / "none").stderr
    open_root(tmp_path / "empty", create=True)
    assert "has no runs yet: train one" in generate("run=x", runs=tmp_path / "empty").stderr


def test_help_and_keys(generate):
    assert "python -m gpt3core.generate run=ID" in generate("--help").stdout
    keys = generate("--keys").stdout
    for key in command.GenerateSettings().__dict__:
        assert f"{key}:" in keys
        assert f"{key}=" in (command.__doc__ or "")


# --------------------------------------------------------------------------------------------------------------- UTF-8

HARD = "naïve — 中文 👩‍👩‍👧 e\u0301 \U0010ffff"


@pytest.mark.parametrize("name", ["gpt2:257", "gpt2:1024", "gpt2"])
def test_no_character_is_written_by_halves(name, monkeypatch):
    encoding = tokenizer.load(name)
    ids = encoding.encode_ordinary(HARD)

    here = type("Here", (), {"encoding": encoding})
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    out = command.Output(here, 1)
    for length in range(1, len(ids) + 1):
        out.show([ids[:length]])
        so_far = encoding.decode_bytes(ids[:length])
        whole = sys.stdout.getvalue()
        assert HARD.startswith(whole)
        assert 0 <= len(so_far) - len(whole.encode()) < 4, "all that is whole is out, and no more than that"
    out.close()
    assert sys.stdout.getvalue() == HARD + "\n"


def test_what_never_becomes_a_character_is_shown_as_such():
    encoding = tokenizer.load("gpt2:257")
    for raw in (b"a\xc3", b"\xe4\xb8x", b"\xff\xfe", b"\xf0\x9f\x91\xf0\x9f\x91\xa9", bytes(range(256))):
        text = Text(encoding)
        found = "".join(text.push(encoding.encode_single_token(bytes([b]))) for b in raw) + text.close()
        assert found == raw.decode(errors="replace")


def test_a_terminal_is_not_steered():
    assert visible("a\n\tb\x1b[2Jc\x07\x9b\x7f\r中\u2028") == "a\n\tb\\x1b[2Jc\\x07\\x9b\\x7f\\r中\u2028"
