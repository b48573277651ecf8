"""Items from files: each benchmark's fields become GPT-3's format (appendix G), and what is wrong is one sentence."""

import gzip
import json
from pathlib import Path

import pytest

from gpt3core.evals import metrics, prompts, tasks
from gpt3core.evals.spec import EvalSpec
from gpt3core.evals.tasks import files
from gpt3core.evals.tasks.files import FromFile

ARC = {"choices": {"text": ["a lamp", "a stone"], "label": ["A", "B"]}, "answerKey": "A"}
AI2 = {"stem": "What shines?", "choices": [{"text": "a lamp", "label": "1"}, {"text": "a stone", "label": "2"}]}
SQUAD = {"title": "The_Mill", "context": "The mill burnt in 1850.", "question": "When did it burn?"}
SHINES = "Question: What shines?\nAnswer:"
PIQA = '{"goal": "a", "sol1": "b", "sol2": "c", "label": 0}\n'

# task, record, context, answer, and of the rest what there is
FORMATS = [
    (
        "hellaswag",  # figure G.9
        {
            "activity_label": "Baking bread",
            "ctx": "A man kneads dough. he",
            "ctx_a": "A man kneads dough.",
            "ctx_b": "he",
            "endings": ["bakes it.", "reads it."],
            "label": "0",
        },
        "Baking bread: A man kneads dough. He",
        " bakes it.",
        {"choices": (" bakes it.", " reads it.")},
    ),
    (
        "piqa",  # G.4
        {"goal": "How to open a jar.", "sol1": "Boil the lid.", "sol2": "Turn the lid.", "label": 1},
        "How to open a jar.",
        " Turn the lid.",
        {"choices": (" Boil the lid.", " Turn the lid.")},
    ),
    ("arc_easy", {"question": "What shines?", **ARC}, SHINES, " a lamp", {"choices": (" a lamp", " a stone")}),  # G.16
    (
        "arc_challenge",  # G.11, as AI2 has it
        {"question": AI2, "answerKey": "2"},
        SHINES,
        " a stone",
        {"choices": (" a lamp", " a stone")},
    ),
    (
        "openbookqa",  # G.8
        {"question_stem": "What shines?", **ARC},
        "What shines?",
        " a lamp",
        {"choices": (" a lamp", " a stone")},
    ),
    (
        "copa",  # G.5
        {
            "premise": "The pond froze.",
            "question": "cause",
            "choice1": "It was cold.",
            "choice2": "I sang.",
            "label": 0,
        },
        "The pond froze because",
        " it was cold.",
        {"choices": (" it was cold.", " I sang.")},
    ),
    (
        "winogrande",  # G.14
        {
            "sentence": "The cup fell off the shelf as the _ was wet.",
            "option1": "cup",
            "option2": "shelf",
            "answer": "2",
        },
        "The cup fell off the shelf as the",
        " shelf",
        {"choices": (" cup", " shelf"), "ending": " was wet."},
    ),
    (
        "winograd",  # G.13
        {
            "text": "Ann told Eve that she sings. The dog lost its bone.",
            "pronoun": "its",
            "pronoun_loc": 42,
            "options": ["Ann", "The dog"],
            "label": 1,
        },
        "Ann told Eve that she sings. The dog lost",
        " the dog's",
        {"choices": (" Ann's", " the dog's"), "ending": " bone."},
    ),
    ("lambada", {"text": "He lit the lamp and sat by the lamp"}, "He lit the lamp and sat by the", " lamp", {}),
    ("lambada_blank", {"text": "He sat by the lamp"}, "He sat by the ____. ->", " lamp", {}),  # G.21
    (
        "triviaqa",  # G.34
        {"question": "Who wrote it", "answer": {"value": "Ann Lee", "aliases": ["A. Lee", "Ann Lee"]}},
        "Q: Who wrote it?\n\nA:",
        " Ann Lee",
        {"aliases": (" A. Lee",)},
    ),
    ("natural_questions", {"question": "who ran", "answer": ["Ann"]}, "Q: Who ran?\n\nA:", " Ann", {}),  # G.24
    (
        "web_questions",
        {"qText": "who ran?", "answers": ["Ann", "Eve"]},
        "Q: Who ran?\n\nA:",
        " Ann",
        {"aliases": (" Eve",)},
    ),
    (
        "boolq",  # G.29
        {"title": "Mill", "passage": "A mill grinds.", "question": "does a mill grind", "answer": True},
        "Mill -- A mill grinds.\nquestion: does a mill grind?\nanswer:",
        " yes",
        {"choices": (" yes", " no")},
    ),
    (
        "rte",  # G.31
        {"premise": "The mill burnt.", "hypothesis": "The mill stands.", "label": 1},
        "The mill burnt.\nquestion: The mill stands. True or False?\nanswer:",
        " False",
        {"choices": (" True", " False")},
    ),
    (
        "race",  # G.1
        {"article": "A mill burnt.", "question": "What burnt?", "options": ["a mill", "a hill"], "answer": "A"},
        "Article:\n\nA mill burnt.\n\nQ: What burnt?\n\nA:",
        " a mill",
        {"choices": (" a mill", " a hill")},
    ),
    (
        "squad",  # G.28
        {**SQUAD, "answers": {"text": ["in 1850", "1850"]}},
        "Title: The Mill\n\nBackground: The mill burnt in 1850.\n\nQ: When did it burn?\n\nA:",
        " in 1850",
        {"aliases": (" 1850",)},
    ),
    ("gsm8k", {"question": "1+1?", "answer": "It is 2.\n#### 2"}, "Question: 1+1?\nAnswer:", " It is 2.\n#### 2", {}),
    (
        "humaneval",
        {"prompt": "def f():\n", "canonical_solution": "    return 1\n"},
        "def f():",
        "\n    return 1",
        {},
    ),
    (
        "humaneval_pass",
        {
            "prompt": "def f():\n",
            "canonical_solution": "    return 1\n",
            "test": "def check(f): ...",
            "entry_point": "check",
        },
        "def f():",
        "\n    return 1",
        {"test": "\ndef check(f): ...\ncheck(check)\n"},
    ),
    ("translation", {"source": "Guten Tag.", "target": "Good day."}, "Guten Tag. =", " Good day.", {}),  # G.36
    (
        "addition_2",
        {"context": "\n\nQ: What is 1 plus 2?\n\nA:", "completion": " 3"},
        "Q: What is 1 plus 2?\n\nA:",
        " 3",
        {},
    ),
]


def write(folder, *records, name="items.jsonl"):
    path = folder / name
    text = "".join(json.dumps(record) + "\n" for record in records)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return str(path)


def words(text):
    return [ord(letter) for letter in text]  # a token a character


@pytest.mark.parametrize(("task", "record", "context", "answer", "rest"), FORMATS, ids=[f[0] for f in FORMATS])
def test_a_record_becomes_the_papers_format(task, record, context, answer, rest, tmp_path):
    (item,) = tasks.items(task, 1, paths=(write(tmp_path, record),)).queries
    assert (item.context, item.answer) == (context, answer)
    assert {
        name: getattr(item, name) for name in ("choices", "ending", "aliases", "test") if getattr(item, name)
    } == rest


@pytest.mark.parametrize(
    ("choice", "clause"),
    [
        ("The sun rose.", " the sun rose."),
        ("It's late.", " it's late."),
        ("Her aunt came.", " her aunt came."),
        ("Paris was cold.", " Paris was cold."),
        ("Ann's aunt came.", " Ann's aunt came."),
        ("I'm late.", " I'm late."),
    ],
)
def test_a_clause_of_copa_keeps_the_capital_of_a_name(choice, clause, tmp_path):
    record = {"premise": "He sang.", "question": "cause", "choice1": choice, "choice2": "We ran.", "label": 0}
    (item,) = tasks.items("copa", 1, paths=(write(tmp_path, record),)).queries
    assert item.choices == (clause, " we ran.")
    with pytest.raises(ValueError, match=r"line 1 is no such item .its choice2 is no text: ' '"):
        tasks.items("copa", 1, paths=(write(tmp_path, {**record, "choice2": " "}, name="blank.jsonl"),))


def test_a_blank_answer_is_none(tmp_path):
    record = {"question": "which type?", "answer": {"value": "", "aliases": ["AB+", " ", "A+"]}}
    (item,) = tasks.items("triviaqa", 1, paths=(write(tmp_path, record),)).queries
    assert (item.answer, item.aliases) == (" AB+", (" A+",))
    said = {
        text: metrics.mean("match", [text], [[item.answer, *item.aliases]])[0] for text in ("", "ab", " A+", "a", "!")
    }
    assert [text for text, score in said.items() if score] == ["ab", " A+"]
    for answers in ([], ["", " "], ""):
        path = write(tmp_path, {"question": "who ran?", "answers": answers})
        with pytest.raises(ValueError, match=r"line 1 is no such item .it has no answer: "):
            tasks.items("web_questions", 1, paths=(path,))


def test_every_task_from_a_file_has_its_format_here():
    read = {name for name, task in tasks.TASKS.items() if isinstance(task.source, FromFile)}
    assert read == {f[0] for f in FORMATS} - {"addition_2"}


def test_examples_and_a_blank_are_joined_as_in_the_paper(tmp_path):
    sentence = "The {} fell off the shelf as the _ was wet."
    records = [
        {"sentence": sentence.format(w), "option1": w, "option2": "shelf", "answer": "1"} for w in ("cup", "pan")
    ]
    split = tasks.items("winogrande", 1, paths=(write(tmp_path, *records),))
    (prompt,) = prompts.asked("winogrande", tasks.named("winogrande"), split, 1, words, 500)
    query, shown = ("cup", "pan") if split.queries[0].answer == " cup" else ("pan", "cup")
    assert prompt.text == (
        f"The {shown} fell off the shelf as the {shown} was wet.\n\nThe {query} fell off the shelf as the"
    )
    assert prompt.continuations == ((f" {query}", " was wet."), (" shelf", " was wet."))


def lambada(folder, count, name="items.jsonl", prefix="word"):
    return write(folder, *({"text": f"the {prefix} {n} is {n}"} for n in range(count)), name=name)


def test_examples_are_other_items_or_those_of_their_own_file(tmp_path):
    own, train = lambada(tmp_path, 6), lambada(tmp_path, 9, "train.jsonl", "example")
    task = tasks.named("lambada")
    for prompt in prompts.asked("lambada", task, tasks.items("lambada", 6, paths=(own,)), 5, words, 5000):
        assert len(set(prompt.text.split("\n\n"))) == 6, "all others, and the question once"
    for prompt in prompts.asked("lambada", task, tasks.items("lambada", 6, paths=(own, train)), 5, words, 5000):
        assert [part.split()[1] for part in prompt.text.split("\n\n")] == ["example"] * 5 + ["word"]


def test_as_many_examples_as_fit_are_shown(tmp_path):
    split = tasks.items("lambada", 4, paths=(lambada(tmp_path, 4),))
    one = len("the word 0 is 0\n\n")
    whole = one * 4 - 2 - 2 + len(" 0")  # three examples and the question; the answer's last token is read by nobody
    for n_ctx, shown in ((whole, 3), (whole - 1, 2), (whole - one, 2), (whole - one - 1, 1), (whole - 3 * one, 0)):
        found = prompts.asked("lambada", tasks.named("lambada"), split, 3, words, n_ctx)
        assert {prompt.shown for prompt in found} == {shown}
        assert all(prompts.length(tasks.named("lambada"), prompt, words) <= n_ctx for prompt in found)
    full = prompts.asked("lambada", tasks.named("lambada"), split, 3, words, whole)
    cut = prompts.asked("lambada", tasks.named("lambada"), split, 3, words, whole - 1)
    assert all(a.text.endswith("\n\n" + b.text) for a, b in zip(full, cut, strict=True)), "the first is left out"
    with pytest.raises(ValueError, match="task lambada: 4 of 4 questions are longer than the context of 14 tokens"):
        prompts.asked("lambada", tasks.named("lambada"), split, 3, words, whole - 3 * one - 1)


def test_a_written_answer_has_all_its_room_or_fewer_examples(tmp_path):
    path = write(tmp_path, *({"question": f"who is {n}", "answer": "Ann"} for n in range(4)))
    task, split = tasks.named("triviaqa"), tasks.items("triviaqa", 4, paths=(path,))
    query = len(split.queries[0].context)
    example, room = query + len(" Ann") + len("\n\n"), task.answer_tokens
    for n_ctx, shown, cut in (
        (3 * example + query + room, 3, False),
        (3 * example + query + room - 1, 2, False),
        (query + room, 0, False),
        (query + room - 1, 0, True),
        (query + len(" Ann") + 1, 0, True),
    ):
        found = prompts.asked("triviaqa", task, split, 3, words, n_ctx)
        assert {(prompt.shown, prompt.cut) for prompt in found} == {(shown, cut)}
        assert {p.cut for p in prompts.asked("triviaqa", task, split, 0, words, n_ctx)} == {cut}
    with pytest.raises(ValueError, match="4 of 4 questions are longer than the context of"):
        prompts.asked("triviaqa", task, split, 3, words, query + len(" Ann"))


def test_the_instruction_comes_first_and_changes_nothing_else():
    with_it, without = (tasks.items(name, 3) for name in ("anagrams_2+instruction", "anagrams_2"))
    assert with_it == without
    shown = [
        prompts.asked(name, tasks.named(name), with_it, 4, words, 5000)
        for name in ("anagrams_2+instruction", "anagrams_2")
    ]
    line = "Please unscramble the letters into a word, and write that word:"
    assert [prompt.text for prompt in shown[0]] == [f"{line}{prompt.text}" for prompt in shown[1]]
    with pytest.raises(ValueError, match=r"addition_2 has no instruction; python -m gpt3core\.evals says which do"):
        tasks.named("addition_2+instruction")


def test_files_count_by_content_wherever_they_lie(tmp_path):
    (tmp_path / "moved").mkdir()
    plain, moved = lambada(tmp_path, 5), lambada(tmp_path / "moved", 5, "again.jsonl.gz")
    assert (
        files.fingerprint([plain]) == files.fingerprint([moved]) != files.fingerprint([lambada(tmp_path, 6, "b.jsonl")])
    )
    one, other = (
        EvalSpec(tasks=("lambada",), files={"lambada": [path]}, contents={"lambada": files.fingerprint([path])})
        for path in (plain, moved)
    )
    assert (one.eval_id, one.questions) == (other.eval_id, other.questions)
    assert one == other
    assert one.eval_id != EvalSpec(tasks=("lambada",)).eval_id
    assert one.of("copy").files == {}
    assert tasks.items("lambada", 5, paths=(plain,)).queries == tasks.items("lambada", 5, paths=(moved,)).queries


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path):
    plain, marked = lambada(tmp_path, 5), tmp_path / "marked.jsonl"
    marked.write_text(Path(plain).read_text(), encoding="utf-8-sig")
    assert tasks.items("lambada", 5, paths=(str(marked),)) == tasks.items("lambada", 5, paths=(plain,))


def test_a_damaged_gzip_a_changed_file_and_too_many_files_are_one_sentence(tmp_path):
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(PIQA.encode())[:-9])
    with pytest.raises(ValueError, match=r"cut\.jsonl\.gz is a damaged gzip file"):
        tasks.items("piqa", 1, paths=(str(tmp_path / "cut.jsonl.gz"),))
    path = lambada(tmp_path, 5)
    with pytest.raises(ValueError, match="has changed since the evaluation was asked for: ask again"):
        tasks.items("lambada", 2, paths=(path,), content="0" * 64)
    with pytest.raises(ValueError, match="3 files: give that of the questions, and that of the examples"):
        files.located(["a", "b", "c"])


def test_a_split_of_datasets_is_read_as_its_lines_are(tmp_path, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    path = lambada(tmp_path / "data", 5, "train.jsonl")
    named = f"datasets:{tmp_path / 'data'}:train"
    assert tasks.items("lambada", 5, paths=(named,)) == tasks.items("lambada", 5, paths=(path,))
    with pytest.raises(ValueError, match="cannot be loaded"):
        files.fingerprint([f"datasets:{tmp_path / 'data'}:test"])


def test_a_name_of_datasets_without_a_split_is_one_sentence():
    with pytest.raises(ValueError, match="datasets:piqa: datasets:NAME:SPLIT or datasets:NAME:CONFIG:SPLIT is meant"):
        files.fingerprint(["datasets:piqa"])
