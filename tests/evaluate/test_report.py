"""The files of an evaluation: correct rows and groups, and clear errors without partial output."""

import csv
import json
import re

import numpy as np
import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.evaluate import report


@pytest.fixture
def evaluation():
    return {
        "ids": ["1377", "1378", "4560", "4561", "4562"],
        "sex": np.array([1, 0, 0, 1, 1], np.int32),
        "age": np.array([20, 24, 168.93, 216, 240], np.float32),
        "predicted": np.array([26.5, 20, 170, 210, 231], np.float32),
        "hospital": ["Stanford", "Stanford", "Colorado", "Colorado", ""],
        "split": "validation",
    }


def test_predictions_csv_has_one_row_per_image(tmp_path, evaluation):
    report.write(tmp_path, **evaluation)
    text = (tmp_path / "predictions.csv").read_bytes().decode()
    assert text.splitlines()[:2] == ["id,sex,age,predicted,error", "1377,M,20.0000,26.5000,6.5000"]
    assert "\r" not in text
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["id"] for row in rows] == evaluation["ids"]
    assert [row["sex"] for row in rows] == ["M", "F", "F", "M", "M"]
    np.testing.assert_allclose([float(row["age"]) for row in rows], evaluation["age"], atol=5e-5)
    np.testing.assert_allclose(
        [float(row["error"]) for row in rows], evaluation["predicted"] - evaluation["age"], atol=1e-4
    )


def test_the_groups_contain_the_right_images(tmp_path, evaluation):
    result = report.write(tmp_path, **evaluation)
    counts = {
        group: {name: values["count"] for name, values in result[group].items()}
        for group in ("by_sex", "by_hospital", "by_age_in_years")
    }
    assert counts == {
        "by_sex": {"F": 2, "M": 3},
        "by_hospital": {"Colorado": 2, "Stanford": 2},
        # 24 months is in the second bin; 216 and 240 months are in 18+.
        "by_age_in_years": {"0-2": 1, "2-4": 1, "14-16": 1, "18+": 2},
    }
    assert result["by_age_in_years"]["18+"]["mae"]["value"] == pytest.approx(7.5)
    assert result["by_hospital"]["Stanford"]["bias"]["value"] == pytest.approx(1.25)
    assert result["overall"]["count"] == 5


def test_metrics_json_is_what_write_returns(tmp_path, evaluation):
    result = report.write(tmp_path, loss=np.array([0.1, 0.2, 0.3, 0.4, 0.5], np.float32), **evaluation)
    assert json.loads((tmp_path / "metrics.json").read_text()) == result
    assert result["overall"]["loss"]["value"] == pytest.approx(0.3)
    assert result["by_sex"]["F"]["loss"]["value"] == pytest.approx(0.25)


def test_equal_predictions_give_byte_identical_files(tmp_path, evaluation):
    for folder in ("first", "second"):
        report.write(tmp_path / folder, **evaluation)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert names == ["bland_altman.png", "metrics.json", "predictions.csv", "scatter.png"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_single_image_is_reported(tmp_path, evaluation):
    one = {key: value if key == "split" else value[:1] for key, value in evaluation.items()}
    result = report.write(tmp_path, **one)
    assert result["overall"]["r2"]["value"] is None
    assert "MAE (months)                    6.50\n" in report.table(result)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_predictions_that_are_not_finite_are_refused_by_id(tmp_path, evaluation, bad):
    evaluation["predicted"][[1, 3]] = bad
    with pytest.raises(BoneAgeError, match=r"predicted is not finite for 2 of 5 images \(ids 1378, 4561\)"):
        report.write(tmp_path, **evaluation)
    assert not list(tmp_path.iterdir())


def test_at_most_ten_faulty_images_are_named(tmp_path):
    count = 12
    with pytest.raises(BoneAgeError, match=r"12 of 12 images \(ids 0, 1, .*, 9, \.\.\.\)"):
        report.write(
            tmp_path,
            ids=[str(i) for i in range(count)],
            sex=np.zeros(count, np.int32),
            age=np.ones(count, np.float32),
            predicted=np.full(count, np.nan, np.float32),
            hospital=[""] * count,
            split="train",
        )


def test_an_unknown_sex_is_refused_by_id(tmp_path, evaluation):
    evaluation["sex"][2] = 2
    with pytest.raises(BoneAgeError, match=r"sex is neither 0 nor 1.*4560"):
        report.write(tmp_path, **evaluation)


def test_columns_of_different_length_are_refused(tmp_path, evaluation):
    evaluation["hospital"] = evaluation["hospital"][:4]
    with pytest.raises(BoneAgeError, match="5 ids but 4 values of hospital"):
        report.write(tmp_path, **evaluation)


def test_an_empty_split_is_refused(tmp_path, evaluation):
    empty = {key: value if key == "split" else value[:0] for key, value in evaluation.items()}
    with pytest.raises(BoneAgeError, match=r"'validation': there is no image"):
        report.write(tmp_path, **empty)


def test_the_table_shows_every_metric_and_every_group(tmp_path, evaluation):
    interval, loss = (evaluation["predicted"] - 5, evaluation["predicted"] + 5), np.full(5, 0.5)
    result = report.write(tmp_path, interval=interval, loss=loss, **evaluation)
    text = report.table(result)
    labels = (
        *("MAE (months)", "median absolute error (months)", "RMSE (months)", "MSE (months²)", "R²"),
        *("concordance (Lin)", "bias (months)", "lower limit of agreement", "upper limit of agreement"),
        *(f"within {months} months (%)" for months in (6, 12, 24)),
        *("within its 90 % interval (%)", "loss"),
    )
    shown = dict(re.findall(r"^  (\S.*?) {2,}(-?[\d.]+) \[", text, re.MULTILINE))
    assert [label for label in labels if label in shown] == list(labels)
    assert len(labels) == len(result["overall"].keys() - {"count"})
    for group in ("all", "girls", "boys", "Colorado", "Stanford", "0-2 years", "2-4 years", "14-16 years", "18+ years"):
        assert re.search(rf"^  {re.escape(group)} ", text, re.MULTILINE), group
    line = next(line for line in text.splitlines() if line.strip().startswith("girls"))
    assert re.search(r"girls +2 +2\.54 \[1\.07, 4\.00\] +-1\.46 \[-4\.00, 1\.07\] +2\.93 +100\.0 %", line)
    assert max(map(len, text.splitlines())) <= 100


def test_intervals_are_written_with_the_predictions_and_coverage(tmp_path, evaluation):
    low, high = evaluation["predicted"] - 5, evaluation["predicted"] + 5
    result = report.write(tmp_path, interval=(low, high), std=np.full(5, 2.5), **evaluation)
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert (rows[0]["std"], rows[0]["low"], rows[0]["high"]) == ("2.5000", "21.5000", "31.5000")
    assert result["overall"]["coverage"]["value"] == pytest.approx(2 / 5)
    assert result["by_sex"]["F"]["coverage"]["value"] == 1
    assert "within its 90 % interval (%)    40.0 [0.0, 80.0]" in report.table(result)


def test_an_interval_that_is_not_finite_is_refused_by_id(tmp_path, evaluation):
    high = evaluation["predicted"] + np.array([1, np.nan, 1, 1, 1])
    with pytest.raises(BoneAgeError, match=r"high is not finite for 1 of 5 images \(ids 1378\)"):
        report.write(tmp_path, interval=(evaluation["predicted"], high), **evaluation)
