"""Questions about images: circular evaluation, the files of MMMU, open answers."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_models import Scripted, picture, write_jsonl

from trainer.tasks._answers import chosen_option, normalised, says_yes, vqa_accuracy
from trainer.tasks.contract import run_task

KIND = {"kind": "visual_question_answering"}
CHOICE = {"image": picture(1), "question": "what is it?", "options": ["a cat", "a dog", "a fox"], "answer": "B"}


def ask(folder: Path, model: Scripted, *items: dict[str, Any], **settings: Any) -> list[float]:
    return run_task(str(write_jsonl(folder, KIND | settings, items)), model, 2).scores


def options_of(prompt: str) -> list[str]:
    return [line[3:] for line in prompt.splitlines() if line[1:3] == ". "]


def test_the_option_that_fits_best_is_the_answer(tmp_path: Path) -> None:
    model = Scripted(lambda n, text: {"what is it? a dog": 3.0, "what is it? a cat": n}.get(text, 0.0))
    assert ask(tmp_path, model, CHOICE, CHOICE | {"image": picture(5)}, CHOICE | {"answer": "a dog"}) == [1, 0, 1]


def test_templates_of_the_task_and_of_an_item(tmp_path: Path) -> None:
    seen = set[str]()

    def fits(number: int, text: str) -> float:
        seen.add(text)
        return float("dog" in text)

    item = {**CHOICE, "options": ["a cat", "{question}"]}
    ask(tmp_path, Scripted(fits), item, CHOICE | {"template": "it is {option}"}, template="{question} {option}!")
    assert seen == {
        "what is it? a cat!", "what is it? {question}!", "it is a cat", "it is a dog", "it is a fox"
    }  # fmt: skip


def test_of_equals_the_first_is_taken_so_only_one_order_is_right(tmp_path: Path) -> None:
    folder = write_jsonl(tmp_path, KIND, [CHOICE | {"answer": "A"}, CHOICE])
    done = run_task(str(folder), Scripted(lambda n, text: 1.0), 2)
    assert (done.value, done.metrics["accuracy_one_order"]) == (0, 1 / 2)


@pytest.mark.parametrize(
    ("habit", "circular", "one_order"),
    [("knows", 1, 1), ("always says B", 0, 1), ("always says the first", 0, 0), ("wrong in the last order", 0, 1)],
)
def test_only_who_is_right_in_every_order_knows(tmp_path: Path, habit: str, circular: int, one_order: int) -> None:
    """The right option is the second, so that saying B is right in one of three orders."""

    def says(number: int, prompt: str) -> str:
        options = options_of(prompt)
        assert sorted(options) == ["a cat", "a dog", "a fox"]
        if habit == "always says B":
            return "B"
        if habit == "always says the first":
            return f"A. {options[0]}"
        if habit == "wrong in the last order" and options[0] == "a fox":
            return "A"
        return f"The answer is ({'ABC'[options.index('a dog')]})."

    folder = write_jsonl(tmp_path, KIND | {"answer_by": "generate"}, [CHOICE])
    done = run_task(str(folder), Scripted(says=says), 8)
    assert (done.value, done.metrics["accuracy_one_order"]) == (circular, one_order)


def test_files_of_mmmu(tmp_path: Path) -> None:
    image = {"bytes": picture(3), "path": "3.png"}
    row = {
        "question": "<image 1> What?",
        "options": "['x', \"it's\"]",
        "answer": "B",
        "question_type": "multiple-choice",
    }
    rows = [
        row | {"id": "validation_Art_1", "image_1": image, "image_2": None},
        row | {"id": "validation_Art_2", "image_1": image, "image_2": image},
        row | {"id": "validation_Art_3", "image_1": image, "image_2": None, "options": "['<image 1>', '<image 2>']"},
        row
        | {"id": "validation_Art_4", "image_1": image, "image_2": None, "options": "[]", "answer": "['7', 'seven']"},
        row | {"id": "validation_Art_5", "image_1": None, "image_2": None},
        row | {"id": "validation_Art_6", "image_1": image, "image_2": None, "answer": "C"},
    ]
    (tmp_path / "task.json").write_text(json.dumps(KIND))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "validation.parquet")
    model = Scripted(lambda n, text: float(text == "What? it's"), lambda n, prompt: "Seven.")
    done = run_task(str(tmp_path), model, 8)
    assert done.keys == ["validation_Art_1", "validation_Art_4"]
    assert done.scores == [1, 1]
    assert done.skipped == {"needs several images": 2, "no answer": 1, "no image": 1}
    closed = run_task(str(tmp_path), Scripted(model.fits), 8)
    assert closed.items == 1
    assert closed.skipped["an open question, and the family writes no text"] == 1


def test_fields_of_mmbench_and_of_vqa(tmp_path: Path) -> None:
    letters = {"image": picture(1), "question": "what?", "A": "a cat", "B": "a dog", "C": "", "answer": "A"}
    people = [{"answer": word, "answer_id": n} for n, word in enumerate(["cat"] * 2 + ["dog"] * 8)]
    opened = {"image": picture(1), "question": "what?", "answers": people}
    model = Scripted(lambda n, text: float("cat" in text), lambda n, prompt: "A cat.")
    assert ask(tmp_path, model, letters, opened) == pytest.approx([1, (2 * 1 / 3 + 8 * 2 / 3) / 10])


@pytest.mark.parametrize(
    "wrong",
    [{"answer_by": "guess"}, {"template": "no place for it"}],
)
def test_wrong_settings_are_refused(tmp_path: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=f"task.json: {next(iter(wrong))} "):
        ask(tmp_path, Scripted(lambda n, text: 0.0), CHOICE, **wrong)


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        ("The red bus.", "red bus"), ("two", "2"), ("a  man's hat", "mans hat"), ("black-and-white", "black and white"),
        ("1,000", "1000"), ("yes, it is!", "yes it is"), ("none", "0"), ("3.5 m", "3.5 m"), ("10 o'clock", "10 oclock"),
        ("N/A", "n"), ("an apple, a pear", "apple pear"), ("A (small) dog?", "small dog"), ("U.S.A", "usa"),
        ("the the", ""), ('"stop"', "stop"),
    ],
)  # fmt: skip
def test_answers_are_normalised_as_vqa_does(answer: str, same: str) -> None:
    """As the processor that lmms-eval 0.7.3 carries, apostrophes aside; tests/experiments/task_references.py."""
    assert normalised(answer) == same


def test_three_of_the_others_make_an_answer_right() -> None:
    people = ["yes"] * 3 + ["no"] * 7
    assert vqa_accuracy("Yes.", people) == pytest.approx((3 * 2 / 3 + 7 * 1) / 10)
    assert vqa_accuracy("no", people) == 1
    assert vqa_accuracy("maybe", people) == 0
    assert (vqa_accuracy("a cat", ["cat", "kitten"]), vqa_accuracy("dog", ["cat"])) == (1, 0)


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("B", 1), ("b.", 1), ("(C)", 2), ("B. a dog", 1), ("The answer is C", 2), ("a dog", 1), ("It is a fox!", 2),
        ("A cat sits here", 0), ("a dog or a fox", None), ("I do not know", None), ("D", None), ("", None),
    ],
)  # fmt: skip
def test_what_an_answer_chooses(answer: str, choice: int | None) -> None:
    assert chosen_option(answer, ["a cat", "a dog", "a fox"]) == choice


@pytest.mark.parametrize(
    ("answer", "yes"),
    [("Yes", True), ("No, there is none", False), ("It is not there.", False), ("Yes. But no dog", True), ("", True)],
)
def test_what_denies(answer: str, yes: bool) -> None:
    assert says_yes(answer) is yes
