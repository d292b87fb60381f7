from anomaly_ae.errors import AnomalyAEError, UnknownName, UsageError, one_line


def test_an_unknown_name_suggests_the_nearest() -> None:
    error = UnknownName("data set", "mnst", ["digits", "mnist", "kmnist"])
    assert str(error) == "unknown data set 'mnst'; did you mean 'mnist'? known: digits, mnist, kmnist"


def test_a_name_like_none_gets_no_suggestion() -> None:
    assert "did you mean" not in str(UnknownName("scorer", "xyz", ["mse", "latent-knn"]))


def test_exit_codes_tell_wrong_use_from_failure() -> None:
    assert (UsageError("x").exit_code, AnomalyAEError("x").exit_code) == (2, 1)


def test_one_line_is_never_empty_and_never_two() -> None:
    assert one_line(ValueError("first\nsecond")) == "first"
    assert one_line(KeyError()) == "KeyError"
