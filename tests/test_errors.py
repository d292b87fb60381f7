import copy
import pickle
import re

import pytest

from anomaly_ae import errors
from anomaly_ae.errors import AnomalyAEError, EstimatorError, UnknownName, UsageError, one_line

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


def test_an_unknown_name_suggests_the_nearest() -> None:
    error = UnknownName("data set", "mnst", ["digits", "mnist", "kmnist"])
    assert str(error) == "unknown data set 'mnst'; did you mean 'mnist'? known: digits, mnist, kmnist"


def test_of_a_long_catalogue_the_first_names_are_listed_and_the_others_counted() -> None:
    assert str(UnknownName("backbone", "?", map(str, range(1_200)))).endswith("98, 99 and 1,100 more")


def test_a_name_like_none_gets_no_suggestion() -> None:
    assert "did you mean" not in str(UnknownName("scorer", "xyz", ["mse", "latent-knn"]))


def test_exit_codes_tell_wrong_use_from_failure() -> None:
    assert (UsageError("x").exit_code, AnomalyAEError("x").exit_code) == (2, 1)


def test_one_line_is_never_empty_and_never_two() -> None:
    assert one_line(ValueError("first\nsecond")) == "first"
    assert one_line(KeyError()) == "KeyError"


@pytest.mark.parametrize("kind", KINDS)
def test_errors_come_whole_out_of_another_process(kind: type[Exception]) -> None:
    error = UnknownName("scorer", "mze", {"mse": 1}) if kind is UnknownName else kind("what was wrong")
    error.add_note("what was found")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301 (our own)
        assert (type(other), str(other), vars(other)) == (kind, str(error), vars(error))


def test_the_tree_that_is_drawn_is_the_tree() -> None:
    drawn = [line for line in str(errors.__doc__).splitlines() if re.match(r"    (│|├|└|AnomalyAEError)", line)]
    above: list[type] = []
    for line in drawn:
        name = str(re.search(r"[A-Z]\w+", line)[0])
        depth = (line.index(name) - 4) // 3
        above[depth:] = [getattr(errors, name)]
        assert depth == 0 or above[-1].__bases__[0] is above[-2]
    assert len(drawn) == sum(issubclass(kind, AnomalyAEError) for kind in KINDS)


def test_an_estimator_s_error_is_a_value_error_and_ours() -> None:
    assert issubclass(EstimatorError, ValueError)
    assert issubclass(EstimatorError, AnomalyAEError)
