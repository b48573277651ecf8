"""What a benchmark publishes in one JSON document is read as all its questions."""

import json

import pytest

from gpt3core.evals import tasks
from tests.gpt3core.evals.test_task_files import write

MILL = "Title: The Mill\n\nBackground: It burnt in 1850.\n\nQ: {}\n\nA:"
QAS = [
    {"question": "When?", "id": "1", "answers": [{"text": "1850", "answer_start": 12}], "is_impossible": False},
    {"question": "Who?", "id": "2", "answers": [], "plausible_answers": [{"text": "It"}], "is_impossible": True},
]
SQUAD_2 = {
    "version": "v2.0",
    "data": [{"title": "The_Mill", "paragraphs": [{"context": "It burnt in 1850.", "qas": QAS}]}],
}
RACE = {
    "answers": ["B", "A"],
    "options": [["a hill", "a mill"], ["in May", "in June"]],
    "questions": ["What burnt?", "When?"],
    "article": "A mill burnt in May.",
    "id": "high1.txt",
}
TRIVIA = {"Aliases": ["A. Lee"], "NormalizedAliases": ["a lee"], "Value": "Ann Lee", "Type": "WikipediaEntity"}
TRIVIA = {
    "Data": [{"Answer": TRIVIA, "Question": "Who wrote it?", "QuestionId": "tc_1"}],
    "Domain": "Web",
    "Version": 1.0,
}
WEB = r'(list (description "Ann \"A.\" Lee") (description Eve))'
WEB = [{"url": "http://e", "targetValue": WEB, "utterance": "who ran?"}]


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize(
    ("task", "document", "items"),
    [
        ("squad", SQUAD_2, [(MILL.format("When?"), " 1850", ()), (MILL.format("Who?"), " unknown", ())]),
        (
            "race",
            RACE,
            [
                ("Article:\n\nA mill burnt in May.\n\nQ: What burnt?\n\nA:", " a mill", ()),
                ("Article:\n\nA mill burnt in May.\n\nQ: When?\n\nA:", " in May", ()),
            ],
        ),
        ("triviaqa", TRIVIA, [("Q: Who wrote it?\n\nA:", " Ann Lee", (" A. Lee",))]),
        ("web_questions", WEB, [("Q: Who ran?\n\nA:", ' Ann "A." Lee', (" Eve",))]),
    ],
)
def test_a_published_document_is_all_its_questions(task, document, items, indent, tmp_path):
    (tmp_path / "dev.json").write_text(json.dumps(document, indent=indent))
    split = tasks.items(task, len(items), paths=(str(tmp_path / "dev.json"),))
    assert [(item.context, item.answer, item.aliases) for item in split.pool] == items


def test_the_number_of_a_question_is_that_of_its_line(tmp_path):
    """Overlap with training text is known line by line: of an article all its questions, of a document nothing."""
    path = write(tmp_path, RACE, RACE)
    assert [item.number for item in tasks.items("race", 4, paths=(path,)).pool] == [0, 0, 1, 1]
    (tmp_path / "list.jsonl").write_text(json.dumps([RACE, RACE]))
    assert {item.number for item in tasks.items("race", 4, paths=(str(tmp_path / "list.jsonl"),)).pool} == {None}


@pytest.mark.parametrize("indent", [None, 4])
@pytest.mark.parametrize(("task", "document", "count"), [("squad", SQUAD_2, 2), ("triviaqa", TRIVIA, 1)])
def test_questions_of_a_document_have_no_number(task, document, count, indent, tmp_path):
    """Else one bit, whether anything of the document is in the training text, would mark all of them."""
    (tmp_path / "dev.json").write_text(json.dumps(document, indent=indent))
    pool = tasks.items(task, count, paths=(str(tmp_path / "dev.json"),)).pool
    assert [item.number for item in pool] == [None] * count


@pytest.mark.parametrize("content", [SQUAD_2, [SQUAD_2, SQUAD_2]])
@pytest.mark.parametrize("between", [", ", "["])
def test_a_document_may_break_anywhere_between_values(content, between, tmp_path):
    whole = json.dumps(content)
    (tmp_path / "dev.json").write_text(whole.replace(between, f"{between}\n"))
    (tmp_path / "line.json").write_text(whole)
    read = [tasks.items("squad", 2, paths=(str(tmp_path / name),)) for name in ("dev.json", "line.json")]
    assert read[0] == read[1]


@pytest.mark.parametrize("task", ["triviaqa", "natural_questions", "web_questions"])
def test_a_question_is_taken_before_what_it_was_searched_by(task, tmp_path):
    path = write(tmp_path, {"question": "Who ran?", "qText": "runner", "answer": ["Ann"]})
    assert tasks.items(task, 1, paths=(path,)).pool[0].context == "Q: Who ran?\n\nA:"


def test_a_list_is_read_as_its_lines_are(tmp_path):
    records = [{"text": f"word {n}"} for n in range(3)]
    (tmp_path / "list.json").write_text(json.dumps(records, indent=1))
    paths = (str(tmp_path / "list.json"),), (write(tmp_path, *records),)
    assert tasks.items("lambada", 3, paths=paths[0]) == tasks.items("lambada", 3, paths=paths[1])
