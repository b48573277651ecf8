"""The grammar of all commands: key=value over dataclasses, errors of one sentence that name what was meant."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gpt3core import cli, errors
from gpt3core.errors import UsageError


@dataclass
class Inner:
    lr_max: float = 0.1
    lr_times_width: float = 0.6
    names: list[str] = field(default_factory=list)


@dataclass
class Point:
    x: int = 0


@dataclass
class Settings:
    budgets: list[float] = field(default_factory=list)
    widths_at: dict[float, list[int]] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    limit: float | None = None
    seed: int = 0
    optim: Inner = field(default_factory=Inner)


def read(*words):
    return cli.settings(Settings(), list(words))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["budgets=1e12"], Settings(budgets=[1e12])),
        (["budgets=[1e12,2e12]"], Settings(budgets=[1e12, 2e12])),
        (["widths_at={1e12: 8}"], Settings(widths_at={1e12: [8]})),
        (["points={x: 3}"], Settings(points=[Point(3)])),
        (["points=[{x: 3}, {x: 4}]"], Settings(points=[Point(3), Point(4)])),
        (["optim.names=a"], Settings(optim=Inner(names=["a"]))),
        (["limit=2"], Settings(limit=2.0)),
        (["limit=null"], Settings()),
    ],
)
def test_values_are_typed_and_one_is_a_list_of_one(words, expected):
    assert read(*words) == expected


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("lr", ["optim.lr_max", "optim.lr_times_width"]),
        ("optim.lr", ["optim.lr_max", "optim.lr_times_width"]),
        ("sed", ["seed"]),
        ("budget", ["budgets"]),
        ("names", ["optim.names"]),
        ("width_at", ["widths_at"]),
        ("qqqq", []),
    ],
)
def test_an_unknown_key_names_the_nearest_and_the_command_that_prints_all(key, nearest):
    with pytest.raises(UsageError) as caught:
        cli.merge(Settings(), [f"{key}=1"], command="python x.py --keys")
    said = str(caught.value)
    assert said.startswith(f"unknown key '{key}'")
    assert said.endswith("python x.py --keys prints all keys")
    assert ("did you mean " + " or ".join(nearest) + "?" in said) == bool(nearest)
    assert len(said) < 160


def test_every_commands_hint_prints_its_own_keys(capsys):
    with pytest.raises(UsageError, match=r"did you mean seed\? --keys prints all keys"):
        read("sead=1")
    command = [sys.executable, "-m", "dashboards.gpt3"]
    wrong = subprocess.run([*command, "uot=x"], capture_output=True, text=True, check=False)
    hint = "python -m dashboards.gpt3 --keys prints all keys"
    assert wrong.stderr == f"error: unknown key 'uot', did you mean out? {hint}\n"
    assert wrong.returncode == 2
    printed = subprocess.run([*command, "--keys"], capture_output=True, text=True, check=True)
    assert "out:" in printed.stdout
    with pytest.raises(SystemExit) as ended:
        read("seed=3", "--keys")
    assert ended.value.code == 0
    assert "seed: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("seed=[1]", "seed=\\[1\\]: .*could not be converted to Integer; seed is int 0 now"),
        ("seed=1e20", "seed=1e20: .*Integer"),
        ("budgets=many", "budgets=many: .*Float"),
        ("budgets=" + 400 * "9", "budgets=9+\\.\\.\\.: int too large"),
        ("budgets={a: 1}", "a list of float is meant"),
        ("optim.names=[[a]]", "a list of str is meant"),
        ("optim=3", "optim=3: "),
        ("widths_at.1e11=[8]", "widths_at.1e11=.*give the whole mapping, widths_at='{1e11: ...}'"),
        ("budgets=" + 3000 * "[" + 3000 * "]", "budgets=.*: it is nested too deeply"),
        ("seed=${oc.env:NOTHING_OF_THIS_NAME}", "settings: .*NOTHING_OF_THIS_NAME"),
        ("seed=???", "seed=\\?\\?\\?: '\\?\\?\\?' is not a value"),
        ("seed", "'seed' is neither key=value nor a flag"),
        ("--kys", "unknown flag --kys, did you mean --keys?"),
        (400 * "x" + "=1", "unknown key 'x{120}...'"),
    ],
)
def test_what_cannot_be_is_one_sentence(word, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        read(word)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_key_given_twice_is_not_ignored():
    with pytest.raises(UsageError, match="seed=2: seed=1 was given too"):
        read("seed=1", "seed=2")


BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(c)}: &{chr(c)} [{','.join([f'*{chr(c - 1)}'] * 9)}]\n" for c in range(ord("b"), ord("k"))
)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (BOMB, "aliases that stand for more than 100000 values"),
        ("a: &a [*a]", "aliases that stand for more than"),
        ("a: " + 3000 * "[", "not readable YAML"),
        ("a: [1", "not readable YAML"),
        ("- 1", "must hold key: value lines"),
        ("3: 1", "must hold key: value lines"),
        ("a: 1\na: 2", "not readable YAML .*duplicate"),
        ("#" + 1_000_001 * "x", "larger than 1000000 bytes"),
        ("a: !!python/object/apply:os.getcwd []", "not readable YAML"),
    ],
)
def test_a_file_that_is_no_settings_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=rf"mine\.yaml.*{sentence}") as caught:
        cli.read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_file_is_read_with_its_aliases_and_numbers(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a [1e12, 2.0e+3]\nb: *a\n")
    assert cli.read_yaml(path) == {"a": [1e12, 2000.0], "b": [1e12, 2000.0]}
    path.write_text("")
    assert cli.read_yaml(path) == {}


THREADS = "starts no further thread (its memory, ulimit -u, or a container's limit of processes): make room"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("give more"), 2, "error: give more\n"),
        (ValueError("not so"), 2, "error: not so\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (
            RuntimeError("can't start new thread"),
            2,
            f"error: this machine {THREADS}, and start the same command again\n",
        ),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_exit_codes(error, code, said, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x"])

    def main(argv):
        raise error

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == code
    assert capsys.readouterr().err == said


STOP = "os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize(
    "imported",
    [
        f"try:\n    {STOP}\nexcept BaseException:\n    pass",
        f"{STOP}\nraise ImportError",
        f"{STOP}\n{STOP}\nprint('goes on')",
    ],
    ids=["swallows it", "is not there", "takes long, so that it is pressed again"],
)
def test_ctrl_c_while_a_command_imports_in_its_midst_ends_it_and_what_it_opened(tmp_path, imported):
    (tmp_path / "lazy.py").write_text(f"import os, signal\n{imported}\n")
    code = """if True:
        import signal
        from gpt3core import cli
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
        def main(argv):
            try:
                import lazy
            except ImportError:
                pass
            finally:
                print("closed")
            print("goes on")
            return 0
        cli.run(main)
    """
    path = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(cli.__file__).parents[1]}"}
    words = [sys.executable, "-c", code]
    ended = subprocess.run(words, capture_output=True, text=True, check=False, env=path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "closed\n", "interrupted\n")


@pytest.mark.parametrize(("lines", "buffered"), [(1, True), (1, False), (10**5, True)])
def test_output_that_nobody_takes_ends_a_command_in_one_sentence_at_most(lines, buffered):
    code = f"from gpt3core import cli; cli.run(lambda argv: print({lines} * 'a line\\n') or 0)"
    words = [sys.executable, *([] if buffered else ["-u"]), "-c", code]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb", 0) as closed, Path("/dev/full").open("wb") as full:
        ended = [
            subprocess.run(words, stdout=o, stderr=subprocess.PIPE, text=True, check=False) for o in (closed, full)
        ]
    sentence = "error: the output cannot be written (No space left on device)\n"
    assert [(one.returncode, one.stderr) for one in ended] == [(141, ""), (2, sentence)]


def test_a_librarys_error_is_a_defect_of_ours_and_shows_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x"])
    library = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    code = compile("raise ValueError('deep inside')", str(library / "made_up.py"), "exec")
    with pytest.raises(ValueError, match="deep inside"):
        cli.run(lambda argv: exec(code) or 0)  # noqa: S102  # a frame of a library's file


def test_an_error_of_ours_is_the_users_wherever_we_are_installed(monkeypatch, capsys):
    library = next(p for p in map(Path, sys.path) if p.name == "site-packages")
    monkeypatch.setattr(errors, "CODE", library)
    monkeypatch.setattr(sys, "argv", ["x"])
    code = compile("raise ValueError('no such budget')", str(library / "sweeps" / "made_up.py"), "exec")
    with pytest.raises(SystemExit, match="2"):
        cli.run(lambda argv: exec(code) or 0)  # noqa: S102  # a frame of an installed file of ours
    assert capsys.readouterr().err == "error: no such budget\n"
