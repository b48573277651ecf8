"""What is wrong with an item of a file is one sentence, and no prompt spells it out."""

import pytest

from gpt3core.evals import tasks
from tests.gpt3core.evals.test_task_files import FORMATS, PIQA, write


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"items.jsonl cannot be read \(No such file or directory\)"),
        (b"", "items.jsonl is empty"),
        (b"\xff\xfe", "items.jsonl is not UTF-8 text"),
        (PIQA.encode() + b'{"goal": "a", "so', "items.jsonl, line 2 is not JSON"),
        (PIQA.encode() + b"[1, 2]\n", "items.jsonl, line 2 is no JSON object"),
        (
            PIQA.encode() + b'\n{"goal": "a", "sol1": "b", "label": 0}\n',
            "items.jsonl, line 3 has no 'sol2': goal, sol1, sol2, label .* are needed, and it has goal, sol1, label",
        ),
        (PIQA.replace("0", "7").encode(), "line 1 is no such item .label is 7, and 0, '0', 1, '1' are allowed.: goal"),
        (PIQA.replace("0", "-1").encode(), "line 1 is no such item .label is -1, and 0"),
        (PIQA.replace("0", "1.5").encode(), "line 1 is no such item .label is 1.5, and 0"),
        (PIQA.replace("0", "null").encode(), "line 1 is no such item .label is None, and 0"),
        (PIQA.replace("0", "9" * 5000).encode(), "items.jsonl, line 1 is not JSON"),
        (PIQA.replace("0", "true").encode(), "line 1 is no such item .label is True, and 0"),
        (b"[" + PIQA.encode(), "items.jsonl is not JSON .Expecting ',' delimiter: line 2"),
        (b"[" + PIQA.encode() + b", 4]", "items.jsonl, record 2 is no JSON object: 4"),
        (b"[]", "items.jsonl is empty"),
        (PIQA.replace("0", '""').encode(), "line 1 is no such item .label is '', and 0"),
        (PIQA.replace('"a"', "4").encode(), "line 1 is no such item .its context is no text: 4"),
        (PIQA.replace('"a"', '" "').encode(), "line 1 is no such item .its context is no text"),
        (PIQA.encode(), "items.jsonl has 1 items, and 2 are asked for: set items lower"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(content, sentence, tmp_path):
    if content is not None:
        (tmp_path / "items.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=f"task piqa: .*{sentence}"):
        tasks.items("piqa", 2, paths=(str(tmp_path / "items.jsonl"),))


@pytest.mark.parametrize(
    ("task", "change", "sentence"),
    [
        ("hellaswag", {"activity_label": None}, "its activity_label is no text: None"),
        ("hellaswag", {"ctx_a": None}, "its ctx_a is no text: None"),
        ("arc_easy", {"question": None}, "its question is no text: None"),
        ("arc_easy", {"answerKey": "E"}, "answerKey is 'E', and 'A', 'B' are allowed"),
        ("rte", {"premise": None}, "its premise is no text: None"),
        ("boolq", {"passage": " "}, "its passage is no text: ' '"),
        ("race", {"article": ["a"]}, "its article is no text: ..a.."),
        ("squad", {"context": None}, "its context is no text: None"),
        ("gsm8k", {"question": 3}, "its question is no text: 3"),
        ("translation", {"target": None}, "its target is no text: None"),
        ("web_questions", {"qText": ""}, "its qText is no text: ''"),
        ("winogrande", {"answer": "-1"}, "answer is '-1', and 1, '1', 2, '2' are allowed"),
        ("winogrande", {"sentence": "a _ b _ c"}, "its sentence has 2 _, where one stands for the options"),
        ("winograd", {"label": -1}, "label is -1, and 0, '0', 1, '1' are allowed"),
        ("winograd", {"pronoun_loc": -4}, "at its pronoun_loc stands 'one', and its pronoun is 'its'"),
        ("winograd", {"options": ["Ann", " "]}, r"its options\[1\] is no text: ' '"),
        ("hellaswag", {"endings": ["bakes it.", ""]}, r"its endings\[1\] is no text: ''"),
        ("hellaswag", {"endings": "abc"}, "its endings is no list: 'abc'"),
        ("hellaswag", {"ctx_b": None}, "its ctx_b is no text: None"),
        ("piqa", {"sol1": " "}, "its sol1 is no text: ' '"),
        ("arc_easy", {"choices": {"text": ["a lamp", None], "label": ["A", "B"]}}, r"its text\[1\] is no text: None"),
        ("arc_easy", {"choices": {"text": ["a", "b"], "label": "AB"}}, "its label is no list: 'AB'"),
        (
            "arc_easy",
            {"choices": {"text": ["a", "b"], "label": ["A", "A"]}},
            "its 2 choices have the labels A, A: one of",
        ),
        (
            "arc_easy",
            {"choices": {"text": ["a", "b"], "label": ["A"]}},
            "its 2 choices have the labels A: one of its own",
        ),
        ("rte", {"label": True}, "label is True, and 0, 1, 'entailment', 'not_entailment' are allowed"),
        ("lambada", {"text": "lamp"}, "nothing comes before the last word: 'lamp'"),
        ("triviaqa", {"answer": {"value": "<unk>", "aliases": []}}, "it has no answer: .'<unk>'."),
        ("race", {"questions": ["Who?"], "answers": []}, "it has 1 questions, 2 options and 0 answers"),
        ("squad", {"data": [{"title": "a", "paragraphs": "b"}]}, "its paragraphs is no list: 'b'"),
        ("openbookqa", {"choices": {"text": "ab", "label": ["A", "B"]}}, "its text is no list: 'ab'"),
        ("race", {"options": ["a mill", 5]}, r"its options\[1\] is no text: 5"),
        ("boolq", {"title": 5}, "its title is no text: 5"),
        ("boolq", {"title": None}, "its title is no text: None"),
        ("squad", {"title": " "}, "its title is no text: ' '"),
        ("squad", {"answers": {"text": [None]}}, r"its text\[0\] is no text: None"),
        ("squad", {"answers": {"text": ["x", ""]}}, r"its text\[1\] is no text: ''"),
        ("squad", {"answers": {"text": "1850"}}, "its text is no list: '1850'"),
        ("triviaqa", {"answer": {"value": "Ann Lee", "aliases": "Ann"}}, "its aliases is no list: 'Ann'"),
        ("humaneval_pass", {"test": None}, "its test is no text: None"),
        ("humaneval_pass", {"entry_point": ""}, "its entry_point is no text: ''"),
        ("addition_2", {"choices": "ab"}, "its choices is no list: 'ab'"),
        ("addition_2", {"choices": [" 3", " "]}, r"its choices\[1\] is no text: ' '"),
    ],
)
def test_a_field_that_a_prompt_would_spell_out_is_refused(task, change, sentence, tmp_path):
    record = next(one[1] for one in FORMATS if one[0] == task)
    path = write(tmp_path, {**record, **change})
    with pytest.raises(ValueError, match=rf"items.jsonl, line 1 is no such item .{sentence}"):
        tasks.items(task, 1, paths=(path,))


@pytest.mark.parametrize(
    ("task", "change", "without", "context"),
    [
        ("hellaswag", {"ctx_b": ""}, (), "Baking bread: A man kneads dough. he"),  # as of WikiHow, which has none
        ("hellaswag", {}, ("ctx_a", "ctx_b"), "Baking bread: A man kneads dough. he"),
        ("boolq", {}, ("title",), "A mill grinds.\nquestion: does a mill grind?\nanswer:"),  # as SuperGLUE has it
    ],
)
def test_a_field_that_a_benchmark_leaves_out_may_be_missing(task, change, without, context, tmp_path):
    record = {**next(one[1] for one in FORMATS if one[0] == task), **change}
    path = write(tmp_path, {name: value for name, value in record.items() if name not in without})
    assert tasks.items(task, 1, paths=(path,)).queries[0].context == context


def test_a_question_without_an_answer_is_unknown(tmp_path):
    record = next(one[1] for one in FORMATS if one[0] == "squad")
    path = write(tmp_path, {**record, "answers": {"text": [], "answer_start": []}})  # as SQuAD 2.0 has it
    assert tasks.items("squad", 1, paths=(path,)).queries[0].answer == " unknown"


def test_a_value_that_is_none_of_the_allowed_is_one_sentence(tmp_path):
    path = write(tmp_path, {"premise": "a", "hypothesis": "b", "label": -1})
    with pytest.raises(
        ValueError, match=r"line 1 is no such item \(label is -1, and 0, 1, 'entailment', .* are allowed"
    ):
        tasks.items("rte", 1, paths=(path,))


@pytest.mark.parametrize(
    ("task", "choices", "sentence"),
    [
        ("copy", [], "a question has the choices .*: two or more, ' a' among them"),
        ("copy", [" b", " c"], "a question has the choices .*: two or more, ' a' among them"),
        ("addition_2", [" a", " b"], "a question has the choices .*, and the task is no multiple choice"),
    ],
)
def test_choices_that_a_task_cannot_ask_are_refused(task, choices, sentence, tmp_path):
    path = write(tmp_path, {"context": "a =", "completion": " a", "choices": choices})
    with pytest.raises(ValueError, match=f"task {task}: {sentence}"):
        tasks.items(task, 1, paths=(path,))
