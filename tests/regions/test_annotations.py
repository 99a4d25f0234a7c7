import pytest

from boneage_jax.errors import BoneAgeError
from boneage_jax.regions.annotations import COLUMNS, read_annotations

HEADER = ",".join(COLUMNS)


def table(tmp_path, *rows, header=HEADER):
    path = tmp_path / "boxes.csv"
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


def test_boxes_are_grouped_by_radiograph_and_reader(tmp_path):
    path = table(
        tmp_path,
        "4200,test,expert,PIP,10,20,30,40,100,200",
        "7,train,,Ulna,0,0,10,10,50,50",
        "4200,test,non-expert,PIP,11,20,30,40,100,200",
        "4200,test,expert,Wrist,50,150,90,200,100,200",
    )
    found = read_annotations(path)
    assert [(one.id, one.set, one.reader) for one in found] == [
        ("7", "train", ""),
        ("4200", "test", "expert"),
        ("4200", "test", "non-expert"),
    ]
    assert found[1].labels.tolist() == [1, 5]
    assert found[1].boxes.tolist() == [[10, 20, 30, 40], [50, 150, 90, 200]]


def test_boxes_are_scaled_to_the_size_of_a_copy(tmp_path):
    (found,) = read_annotations(table(tmp_path, "1,train,,DIP,10,20,30,40,100,200"))
    assert found.boxes_in((600, 150)).tolist() == [[15, 60, 45, 120]]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("1,Training,,DIP,0,0,1,1,9,9", "row 2: the set 'Training' is unknown; expected train or test"),
        ("1,train,,Thumb,0,0,1,1,9,9", "row 2: the label 'Thumb' is unknown"),
        ("1,train,,DIP,0,0,x,1,9,9", "row 2: expected numbers"),
        ("1,train,,DIP,0,0,1,1,9", "row 2: expected numbers"),
        ("1,train,,DIP,0,nan,1,1,9,9", "row 2: expected numbers"),
        ("1,train,,DIP,0,0,1,1,inf,9", "row 2: expected numbers"),
        ("1,train,,DIP,5,0,5,1,9,9", "row 2: the box .* is empty"),
        ("1,train,,DIP,0,0,10,1,9,9", "extends beyond its image of 9 x 9 pixels"),
    ],
)
def test_an_invalid_row_is_named(tmp_path, row, message):
    with pytest.raises(BoneAgeError, match=message):
        read_annotations(table(tmp_path, row))


def test_two_sizes_for_one_radiograph_are_refused(tmp_path):
    with pytest.raises(BoneAgeError, match="row 3: 1 has two sizes"):
        read_annotations(table(tmp_path, "1,train,,DIP,0,0,1,1,9,9", "1,train,,PIP,0,0,1,1,9,8"))


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path):
    path = table(tmp_path, "1,train,,DIP,10,20,30,40,100,200")
    path.write_text(path.read_text(), encoding="utf-8-sig")  # as "CSV UTF-8", with a byte order mark
    (found,) = read_annotations(path)
    assert (found.id, found.boxes.tolist()) == ("1", [[10, 20, 30, 40]])


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", HEADER.encode() + b"\n" + b"1" * 200_000])
def test_a_file_that_is_no_csv_table_is_named(tmp_path, content):
    (tmp_path / "boxes.csv").write_bytes(content)
    with pytest.raises(BoneAgeError, match=r"boxes\.csv is not a csv table in UTF-8 \(.*\); save it"):
        read_annotations(tmp_path / "boxes.csv")


def test_a_missing_column_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(BoneAgeError, match="lacks the columns reader"):
        read_annotations(table(tmp_path, header=HEADER.replace(",reader", "")))
    with pytest.raises(BoneAgeError, match=r"none\.csv cannot be read"):
        read_annotations(tmp_path / "none.csv")
