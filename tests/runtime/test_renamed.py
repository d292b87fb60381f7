import pytest

import anomaly_ae


def test_a_function_is_found_by_the_name_that_it_had_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert anomaly_ae.run_plan is anomaly_ae.run_pipeline  # type: ignore[attr-defined]
    assert capsys.readouterr().err == ("warning: run_plan is called run_pipeline now; the old name goes on to work\n")
    assert "run_plan" not in dir(anomaly_ae)
