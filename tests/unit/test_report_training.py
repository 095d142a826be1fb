"""The report says how a training went: its curves in words and numbers, what was set, kept and stored."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
from test_report import HOSTILE, Page, result

import tiny_trials as tiny
from graftwork.records import Result
from graftwork.report import render
from graftwork.report.course import MEANINGS, course, facts, options, smoothing_floor
from graftwork.strategies.options import Options

Curve = tuple[tuple[int, float, float | None], ...]


def curved(*curve: tuple[float, float | None], **settings: Any) -> Result:
    """A result of three classes whose training went so: (training, validation) by epoch."""
    numbered = tuple((i + 1, *losses) for i, losses in enumerate(curve))
    return replace(result(), settings=settings, training_curve=numbered)


FALLING = [(1.0 / (1 + i), held) for i, held in enumerate((0.9, 0.7, 0.5, 0.41, 0.45, 0.52, 0.58))]


def test_a_large_gap_that_grows_is_said_to_be_memorising_with_its_numbers() -> None:
    found = course(curved(*FALLING[:-1], (0.12, 0.58)))
    assert found is not None and found.kind == "memorises"
    assert found.sentence == (
        "Training loss 0.12, validation 0.58 and rising since epoch 4 (0.41): the network memorises its "
        "training rows."
    )
    assert "fewer epochs" in found.remedies and "more labels" in found.remedies


def test_a_large_gap_that_does_not_grow_is_memorising_too() -> None:
    found = course(curved((0.9, 0.8), (0.3, 0.6), (0.1, 0.59)))
    assert found is not None and found.kind == "memorises" and "rising" not in found.sentence


@pytest.mark.parametrize(
    ("gap", "kind"), [(0.15 * math.log(3) + 0.001, "memorises"), (0.15 * math.log(3) - 0.001, "fine")]
)
def test_a_gap_is_large_from_a_share_of_the_loss_of_guessing_on(gap: float, kind: str) -> None:
    found = course(curved((0.5, 0.31), (0.3 - gap, 0.305), (0.3 - gap, 0.3)))
    assert found is not None and found.kind == kind


def test_high_losses_that_lie_together_are_no_memory() -> None:
    # a gap of 0.3 nats, but a quarter of the validation loss alone
    found = course(curved((1.1, 1.25), (0.9, 1.2), (0.9, 1.2)))
    assert found is not None and found.kind == "fine"


def test_a_validation_loss_past_its_best_is_said_even_without_a_gap() -> None:
    found = course(curved((0.6, 0.5), (0.5, 0.4), (0.45, 0.44), kept_epoch=2))
    assert found is not None and found.kind == "past its best"
    assert "rising since epoch 2 (0.40)" in found.sentence and "after epoch 2 were kept" in found.sentence


def test_a_small_rise_is_noise() -> None:
    found = course(curved((0.6, 0.5), (0.5, 0.4), (0.45, 0.41)))
    assert found is not None and found.kind == "fine"


def test_a_training_that_still_fell_says_so_unless_it_stopped_by_itself() -> None:
    curve = ((1.0, 0.9), (0.8, 0.7), (0.6, 0.5))
    first, second = course(curved(*curve)), course(curved(*curve, stopped_by="patience"))
    assert first is not None and first.kind == "unfinished" and "more epochs" in first.remedies[0]
    assert second is not None and second.kind == "fine"


def test_without_held_rows_nothing_is_claimed() -> None:
    found = course(curved((0.5, None), (0.01, None)))
    assert found is not None and found.kind == "alone" and "No rows were held" in found.sentence
    assert course(curved()) is None
    assert course(curved((math.nan, 0.4))) is None


def test_label_smoothing_is_taken_off_before_losses_are_compared() -> None:
    floor = smoothing_floor(0.1, 3)
    assert floor == pytest.approx(-(0.9333 * math.log(0.9333) + 2 * 0.0333 * math.log(0.0333)), abs=1e-3)
    assert smoothing_floor(0.0, 10) == 0.0
    curve = ((0.6, 0.45), (floor + 0.02, 0.45))
    plain, smoothed = course(curved(*curve)), course(curved(*curve, options={"smoothing": 0.1}))
    assert plain is not None and plain.kind == "fine"
    assert smoothed is not None and smoothed.kind == "memorises"
    assert f"({floor:.2f} of it from label smoothing)" in smoothed.sentence
    of_scratch = course(curved(*curve, plan={"smoothing": 0.1}))
    assert of_scratch is not None and of_scratch.kind == "memorises"


@pytest.mark.parametrize(
    ("strategy", "settings", "said", "unsaid"),
    [
        ("partial", {"options": {"augment": "strong"}}, "fewer blocks that learn", "more augmentation"),
        ("partial", {"blocks": 1}, "more augmentation", "fewer blocks that learn"),
        ("full", {}, "partial, which learns fewer weights", "fewer blocks"),
        ("lora", {}, "a lower rank", "partial, which"),
        ("scratch", {"augment": "light"}, "a source to start from", "a lower rank"),
        ("auto", {"chosen": "lora"}, "a lower rank", "a source to start from"),
    ],
)
def test_remedies_are_those_that_are_left(
    strategy: str, settings: dict[str, Any], said: str, unsaid: str
) -> None:
    found = course(replace(curved((0.9, 0.8), (0.1, 0.9), **settings), strategy=strategy))
    assert found is not None and said in found.remedies and not any(unsaid in one for one in found.remedies)


def test_everything_about_a_tuned_model_is_on_its_page() -> None:
    text = Page(render(tiny.tuned(result()))).text
    for said in (
        "Training loss 0.52", "validation 0.58 and rising since epoch 4 (0.41)", "memorises",
        "epoch 4 of 10", "as the score got no better", "5.2 s", "341", "70% tuned, 30% the source's",
        "3.5 MB in 24 tensors", "for 4 epochs", "logits shifted", "gains 2.1 points", "--set NAME=VALUE",
        "layer_decay", "0.7", "0.0003", "learning rate of the last layers", "layer.15",
    ):  # fmt: skip
        assert said in text, said


def test_what_the_training_shows_is_not_listed_twice() -> None:
    html = render(tiny.tuned(result()))
    record = html[html.index('id="provenance"') :]
    assert "seconds an epoch" not in record and ">options<" not in record and "1729" in record


def test_every_shared_option_has_its_meaning() -> None:
    assert {field.name for field in fields(Options)} <= MEANINGS.keys()


def test_trouble_is_shown_and_a_model_without_curve_still_shows_its_settings() -> None:
    stopped = tiny.tuned(result(), trouble="the loss was no number at step 31", stopped_by="trouble")
    text = Page(render(stopped)).text
    assert "It did not go to its end" in text and "The loss was no number at step 31." in text
    bare = replace(stopped, training_curve=())
    assert "training" in Page(render(bare)).sections and "layer_decay" in Page(render(bare)).text


def test_a_remark_is_among_what_to_know_first() -> None:
    said = "the budget of 3 s left no time for auto, so the answer is the probe's"
    text = Page(render(replace(result(), settings={"remark": said}))).text
    assert "Before you trust the numbers" in text and said[1:] in text


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"kept_epoch": 0, "epochs": 3}, [("Kept", "the start, before any epoch")]),
        ({"share_of_tuned": 1.0}, [("Mix of weights", "the tuned weights alone")]),
        ({"share_of_tuned": 1.0, "kept_epoch": 0}, [("Kept", "the start, before any epoch")]),
        ({"refit_epochs": 4}, [("Learnt once more from all rows", "for 4 epochs")]),
        ({"share_of_tuned": 0.4}, [("Mix of weights", "40% tuned, 60% the source's")]),
        ({"bytes": 0, "tensors": 0}, [("Changed and stored", "nothing: the network is the source's own")]),
        ({"balance": "none"}, [("Unequal classes", "left as they are")]),
        ({"memory": 2_000_000_000}, [("Peak memory of the device", "2.0 GB")]),
        (
            {"held_rows": 0, "bytes": None, "share_of_tuned": "odd", "balance": 3, "seconds_an_epoch": "no"},
            [],
        ),
    ],
)
def test_facts_are_what_was_recorded(settings: dict[str, Any], wanted: list[tuple[str, str]]) -> None:
    assert facts(settings) == wanted


def test_options_of_another_shape_are_left_out() -> None:
    assert options({"options": None}) == [] == options({}) == options({"options": 3})
    assert options({"blocks": 2, "options": {"still": True}}) == [("blocks", "2"), ("still", "yes")]


def hostile(text: str) -> Result:
    balance = {"method": text, "reason": text}
    return tiny.tuned(
        result(), trouble=text, balance=balance, options={text: text, "augment": text}, block=text,
        remark=text, chosen=text, stopped_by=text,
    )  # fmt: skip


SHAPE = [(tag, sorted(attributes)) for tag, attributes in Page(render(hostile("plain"))).elements]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_setting_changes_the_page(text: str) -> None:
    html = render(hostile(text))
    assert [(tag, sorted(attributes)) for tag, attributes in Page(html).elements] == SHAPE


def test_what_a_rising_validation_means_is_said_only_where_there_is_one() -> None:
    assert "Where validation rises" in render(curved((0.9, 0.8), (0.5, 0.4)))
    assert "Where validation rises" not in render(curved((0.9, None), (0.5, None)))
