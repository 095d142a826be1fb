"""Settings reach the strategy as its fields ask, and a slip is one line that says what would do."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from graftwork import registry
from graftwork.errors import RequestError, UnknownName
from graftwork.strategies.options import Options
from graftwork.strategies.setting import configured, known_settings, pairs


@dataclass(frozen=True)
class Recipe:
    """A strategy with a field of every kind."""

    count: int = 2
    share: float = 0.5
    deep: bool = False
    start: int | str = 2
    how: Literal["slow", "fast"] = "slow"
    places: tuple[str, ...] = ("a",)
    most: int | None = 3
    rate: str = "own"
    options: Options = field(default_factory=Options)
    like: object = None
    name: str = "recipe"
    transfers: bool = True
    quick: bool = False


def made(**settings: object) -> Any:
    return configured(Recipe(), settings)  # type: ignore[arg-type]  # it is never fitted


@pytest.mark.parametrize(
    ("name", "said", "value"),
    [
        ("count", "7", 7),
        ("share", "1e-3", 0.001),
        ("share", "2", 2.0),
        ("deep", "yes", True),
        ("deep", "false", False),
        ("start", "3", 3),
        ("start", "layer4", "layer4"),
        ("how", "fast", "fast"),
        ("places", "b,c", ("b", "c")),
        ("most", "none", None),
        ("most", "5", 5),
    ],
)
def test_text_is_read_as_the_field_asks(name: str, said: str, value: object) -> None:
    found = getattr(made(**{name: said}), name)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "value"), [("count", 7), ("share", 0.25), ("deep", True), ("start", "x"), ("most", None)]
)
def test_values_of_python_go_as_they_are(name: str, value: object) -> None:
    assert getattr(made(**{name: value}), name) == value


def test_a_name_goes_to_the_strategy_s_own_field_first_then_to_its_options() -> None:
    recipe = made(rate="mine", epochs="4", still="no")
    assert recipe.rate == "mine" and recipe.options == Options(epochs=4, still=False)
    assert Recipe().options == Options(), "the default was changed in place"


def test_settings_change_a_copy_of_the_strategy_given() -> None:
    given = Recipe(count=5, options=Options(batch=8))
    changed: Any = configured(given, {"epochs": 2})  # type: ignore[arg-type]
    assert changed.count == 5 and changed.options == Options(batch=8, epochs=2)
    assert configured(given) is given  # type: ignore[arg-type, comparison-overlap]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epoch": "3"}, "no setting 'epoch'; did you mean 'epochs'?"),
        ({"like": "x"}, "no setting 'like'"),
        ({"name": "x"}, "no setting 'name'"),
        ({"count": "few"}, "count=few seen; expected a whole number"),
        ({"count": "1.5"}, "expected a whole number"),
        ({"count": True}, "expected a whole number"),
        ({"share": "nan"}, "expected a finite number"),
        ({"share": "-1"}, "expected a finite number, zero or more"),
        ({"deep": "perhaps"}, "expected true or false"),
        ({"how": "quick"}, "expected slow or fast"),
        ({"places": ""}, "values with commas"),
        ({"epochs": "0"}, "epochs=0 seen; expected 1 or more"),
        ({"epochs": "-1"}, "epochs=-1 seen; expected 1 or more"),
        ({"smoothing": "1"}, "less than 1"),
        ({"precision": "f8"}, "expected auto, f32 or bf16"),
    ],
    ids=str,
)
def test_a_slip_is_one_line(settings: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError) as caught:
        made(**settings)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_strategy_without_settings_says_so() -> None:
    with pytest.raises(RequestError, match="'classical' has no settings; leave epochs out"):
        configured("classical", {"epochs": 1})
    with pytest.raises(UnknownName, match="did you mean 'partial'"):
        configured("partail")


@pytest.mark.parametrize("name", registry.names("strategies"))
def test_every_registered_strategy_can_be_asked_for_its_settings(name: str) -> None:
    recipe = configured(name)
    assert recipe.name == name
    for setting, (_, shared) in known_settings(recipe).items():
        value = getattr(recipe.options if shared else recipe, setting)  # type: ignore[attr-defined]
        again = configured(recipe, {setting: value}) if value is not None else recipe
        assert again == recipe, setting


def test_settings_that_are_no_mapping_are_refused() -> None:
    with pytest.raises(RequestError, match="settings: a list seen; expected name -> value"):
        configured("full", ["epochs=5"])  # type: ignore[arg-type]


def test_pairs_are_read_and_slips_in_them_said() -> None:
    assert pairs(["layer-decay=0.5", " blocks = a=b "]) == {"layer_decay": "0.5", "blocks": "a=b"}
    for wrong in (["epochs"], ["=3"], ["epochs=1", "epochs=2"]):
        with pytest.raises(RequestError, match="--set"):
            pairs(wrong)
