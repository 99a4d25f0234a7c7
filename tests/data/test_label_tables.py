"""Label tables as spreadsheet programs of any locale write them, and unusable rows."""

import datetime
import io
import re
import zipfile

import openpyxl
import pytest

from boneage_jax.data import tables
from boneage_jax.data.files import File
from boneage_jax.data.inputs import Kind
from boneage_jax.data.labels import LabelTable, read_children, read_labels
from boneage_jax.data.sizes import read_sizes
from boneage_jax.errors import BoneAgeError
from boneage_jax.sex import Sex
from tests.data import rsna_forms as forms


def as_file(data, name="labels.csv"):
    data = data.encode() if isinstance(data, str) else data
    return File(name, len(data), 0, data)


def table_of(data, name="labels.csv") -> LabelTable:
    found = read_labels(as_file(data, name))
    assert found is not None
    return found


def labels(data, name="labels.csv"):
    return [(label.id, label.sex, label.age) for label in table_of(data, name).labels]


def children(data):
    found = read_children(as_file(data))
    assert found is not None
    return {label.id: label for label in found}


def workbook(rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    return book


def saved(book):
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


TWO = [("7", Sex.MALE, 156.0), ("8", Sex.FEMALE, 100.5)]


@pytest.mark.parametrize(
    "text",
    [
        "id,boneage,male\n7,156,True\n8,100.5,False\n",
        "id;boneage;male\n7;156;TRUE\n8;100,5;FALSE\n",
        "id\tboneage\tmale\n7\t156\ttrue\n8\t100.5\tfalse\n",
        "id|boneage|male\n7|156|1\n8|100,5|0\n",
        "sep=;\r\nid;boneage;sex\r\n7;156;M\r\n8;100,5;F\r\n",
        "id,boneage,gender\n7,156,M\n8,100.5,w\n",
        "Image_ID,Bone Age (months),Patient Sex\n7,156,boy\n8,100.5,girl\n",
        "id,boneage,female\n7,156,no\n8,100.5,yes\n",
        "id,boneage,male\n7.png,156,1.0\n8.dcm,100.5,0.0\n",
        "id,boneage,male\n7.0,156,True\n8.0,100.5,False\n",
        'id;note;boneage;male\n7;"a; b";156;True\n8;;100,5;False\n',
        "\n\nid,boneage,male,sex\n7,156,True,M\n\n8,100.5,,F\n",
        '"Bone age\n(months)";id;sex\n156;7;M\n100,5;8;F\n',
        "id,boneage,male\r7,156,True\r8,100.5,False\r",
        "id,boneage,male,\n7,156,True,\n8,100.5,False,,\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be-with-mark"])
def test_spreadsheet_dialects_are_read(text, encoding):
    data = b"\xfe\xff" + text.encode("utf-16-be") if encoding.endswith("mark") else text.encode(encoding)
    assert labels(data) == TWO


def test_a_workbook_is_read_despite_a_csv_name_or_a_distant_cell():
    book = workbook([["id", "boneage", "male"], [7, 156, True], [None], [8, 100.5, False]])
    book.active["XFD1048576"] = 1
    for name in ("labels.xlsx", "labels.csv"):
        assert labels(saved(book), name) == TWO


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("id,male,Male\n7,True,False\n", r"has the column 'male' twice"),
        ("id,sex,sex\n7,M,M\n", r"has the column 'sex' twice"),
        ("id,boneage,boneage,male\n7,1,2,True\n", r"has the column 'boneage' twice"),
        ("id,case id,male\n7,8,True\n", r"has the columns 'id' and 'case id'"),
        ("id,male\n7,Tr\xfce\n".encode("latin-1"), r"not a csv table in UTF-8 or UTF-16 .*; save it as 'CSV UTF-8'"),
        (b"\xd0\xcf\x11\xe0" + bytes(600), r"old Excel format \(.xls\); save it as"),
        ('id,male\n"7,True\n', r"labels\.csv, row 2: this is not a valid row of a csv table"),
        ('id,male\n7,True\n"8,True\n9,True\n', r"labels\.csv, row 3: this is not a valid row of a csv table"),
    ],
)
def test_an_invalid_table_is_rejected_with_the_reason(data, message):
    with pytest.raises(BoneAgeError, match=message):
        read_labels(as_file(data))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "id,male,sex\n7,True,F\n",
            "row 2: the columns 'male' (True) and 'sex' (F) contradict each other; correct one",
        ),
        ("id,gender,sex\n7,M,O\n", "row 2: the columns 'gender' (M) and 'sex' (O) contradict each other; correct one"),
        ("id,sex,boneage,bone age (months)\n7,M,12,120\n", "'boneage' (12) and 'bone age (months)' (120) contradict"),
        ("id,sex\n7,x\n", "row 2: the sex 'x' is unknown; column 'sex' must hold F or M"),
        ("id,male\n7,M\n", "row 2: the sex 'M' is unknown; column 'male' must hold true or false"),
        ("id,sex\n7,1\n", "row 2: the sex '1' is unknown; column 'sex' must hold F or M"),
        ("id,sex\n7,M\n8,F\n7,M\n", "row 4: the id 7 appears twice, in row 2 too; keep one"),
        ("id,sex\n7,M\n7.png,F\n", "row 3: the id 7 appears twice, in row 2 too; keep one"),
        ("id,sex\n7,M\n7.0,F\n", "row 3: the id 7 appears twice, in row 2 too; keep one"),
        ("id,sex\nA/hand,M\nA\\hand,F\n", "row 3: the id A/hand appears twice, in row 2 too; keep one"),
        ("id,sex\n./hand,M\nhand.png,F\n", "row 3: the id ./hand appears twice, in row 2 too; keep one"),
        ("id,sex\nM\u00fcller,M\nMu\u0308ller,F\n", "row 3: the id M\u00fcller appears twice, in row 2 too; keep one"),
        ("id,male,boneage\n7,True,100,5\n", "row 2: 4 cells for 3 columns; write decimals with a point, and put cells"),
        ('id,male,boneage\n7,True,"100,5"\n', "row 2: the bone age '100,5' is not a number of months"),
    ],
)
def test_an_unusable_row_has_the_reason(text, fault):
    table = table_of(text)
    assert fault in table.labels[0].fault


@pytest.mark.parametrize(
    ("exact", "rounded"), [("168.5", "169"), ("168.5", "168"), ("12.4", "12.6"), ("168.93", "169")]
)
def test_a_bone_age_agrees_with_the_same_one_rounded(exact, rounded):
    assert labels(f"id,sex,boneage,bone age (months)\n7,M,{exact},{rounded}\n") == [("7", Sex.MALE, float(exact))]
    assert (
        "contradict"
        in table_of(f"id,sex,boneage,bone age (months)\n7,M,{exact},{float(exact) + 0.6}\n").labels[0].fault
    )


def test_an_unusable_row_does_not_affect_other_rows():
    table = table_of("id,boneage,sex\n1,12,M\n2,12,O\n3,old,F\n,12,F\n4,12,F\n")
    assert [bool(label.fault) for label in table.labels] == [False, True, True, True, False]


def test_a_row_is_named_by_its_number_in_the_spreadsheet():
    table = table_of('id,note,sex\n1,"first line\nsecond line",M\n\n2,,x\n')
    assert [label.fault for label in table.labels] == [
        "",
        "labels.csv, row 4: the sex 'x' is unknown; column 'sex' must hold F or M",
    ]


def test_notes_beside_the_table_of_a_workbook_are_ignored():
    book = workbook([["id", "boneage", "male"], [7, 156, True, None, "ask again"], [8, 100.5, False]])
    assert labels(saved(book), "labels.xlsx") == TWO


def test_ids_keep_their_suffix_only_where_it_distinguishes_them():
    assert list(children("id,sex\n1.png,M\n1.dcm,F\n2.png,F\n")) == ["1.png", "1.dcm", "2"]
    assert list(children("id,sex\nA/1.png,M\nA\\1.dcm,F\n")) == ["A/1.png", "A\\1.dcm"]


def test_ids_keep_leading_zeros_and_the_zeros_before_a_suffix():
    assert list(children("id,sex\n0007,M\n7,F\n007.0,M\n10.0.png,F\n")) == ["0007", "7", "007", "10.0"]


def test_children_have_a_sex_or_an_age_or_both():
    found = children("id,sex,age\n1,M,9.5\n2,O,\n3,,10\n4,u,11\n")
    assert [(one.sex, one.chronological_age) for one in found.values()] == [
        *((Sex.MALE, 114.0), ("unknown", None), (None, 120.0), ("unknown", 132.0))
    ]
    assert children("id,age_months\n1,114\n")["1"].chronological_age == 114
    assert children("id;Age (years)\n1;9,5\n")["1"].chronological_age == 114
    assert children("id,age,age months\n1,9.4,113\n")["1"].chronological_age == 113
    assert read_children(as_file("id,boneage\n1,114\n")) is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (
            "id,age\n1,114\n",
            "row 2: the age 114 lies outside 0 to 25 years; ages in months belong in a column age_months",
        ),
        ("id,age_months\n1,400\n", "row 2: the age months 400 lies outside 0 to 25 years"),
        ("id,age\n1,nan\n", "lies outside"),
        ("id,age\n1,old\n", "row 2: the age 'old' is not a number"),
        ("id,age,age_months\n1,9,9\n", "'age' (9) and 'age months' (9) contradict each other"),
    ],
)
def test_an_invalid_chronological_age_is_named(text, fault):
    assert fault in children(text)["1"].fault


def test_an_invalid_bone_age_does_not_prevent_reading_children():
    assert children("id,sex,boneage\n1,M,n/a\n")["1"].fault == ""


def test_image_sizes_are_read_in_the_same_dialects():
    assert read_sizes(as_file("id;width;height\n7.png;1000;2000\n8.0;900;800\n")) == {
        "7": (1000, 2000),
        "8": (900, 800),
    }


def test_tables_above_the_size_limits_are_rejected(monkeypatch):
    with pytest.raises(BoneAgeError, match=r"labels\.csv has 33,554,433 bytes, more than the limit of 33,554,432"):
        read_labels(as_file(b" " * (32 * 2**20 + 1)))
    monkeypatch.setattr(tables, "_MAX_ROWS", 3)
    assert labels("id,boneage,male\n7,156,True\n8,100.5,False\n") == TWO
    for data in (
        "id,boneage,male\n7,156,True\n8,100.5,False\n9,1,True\n",
        saved(workbook([["id", "boneage", "male"], [7, 156, True], [8, 100.5, False], [9, 1, True]])),
    ):
        with pytest.raises(BoneAgeError, match=r"has a row 4, beyond the last of 3"):
            read_labels(as_file(data))


def test_a_workbook_above_the_unpacked_size_limit_is_rejected(monkeypatch):
    data = saved(workbook([["id", "boneage", "male"], [7, 156, True]]))
    monkeypatch.setattr(tables, "_MAX_BYTES", len(data) + 1)
    with pytest.raises(BoneAgeError, match=r"labels\.xlsx, unpacked, has .* bytes, more than"):
        read_labels(as_file(data, "labels.xlsx"))


def parts():
    data = saved(workbook([["id", "boneage", "male"], [7, 156, True]]))
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {info.filename: file.read(info) for info in file.infolist()}


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("xl/worksheets/sheet1.xml", lambda data: data[:-20]),
        ("xl/worksheets/sheet1.xml", lambda data: data.replace(b'r="A2"', b'r="99"')),
        ("xl/worksheets/sheet1.xml", lambda data: data.replace(b"<v>7</v>", b"<v>seven</v>")),
        ("xl/workbook.xml", lambda data: data.replace(b"<sheets>", b"<sheet>")),
        ("xl/workbook.xml", None),
        ("[Content_Types].xml", lambda data: b""),
        ("xl/_rels/workbook.xml.rels", None),
    ],
)
def test_a_damaged_workbook_is_a_clear_error(part, change):
    entries = parts()
    content = entries.pop(part)
    if change:
        assert change(content) != content
        entries[part] = change(content)
    with pytest.raises(BoneAgeError, match=r"^labels\.xlsx is not an intact xlsx workbook \(.*\); save it again$"):
        read_labels(as_file(forms.archive(entries), "labels.xlsx"))


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bits_give_a_table_or_a_clear_error(seed):
    import random

    chance = random.Random(seed)
    data = bytearray(saved(workbook([["id", "boneage", "male"], [7, 156, True]])))
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    try:
        table = read_labels(as_file(bytes(data), "labels.xlsx"))
    except BoneAgeError as error:
        assert "labels.xlsx" in str(error)  # noqa: PT017 (either outcome is right)
    else:
        assert table is None or table.name == "labels.xlsx"


@pytest.mark.parametrize(
    "row",
    ["7,2024-05-31,2014-05-31", "7,20240531,20140531", "7,2024-05-31 00:00:00,2014-05-31T08:30"],
)
def test_dates_of_birth_and_examination_give_the_age(row):
    child = children(f"id,date,birth_date\n{row}\n")["7"]
    assert child.date == datetime.date(2024, 5, 31)
    assert child.chronological_age == pytest.approx(120, abs=0.05)
    assert (child.sex, child.fault) == (None, "")


def test_a_single_date_gives_no_age_and_dates_override_whole_years():
    assert children("id,Study Date\n7,2024-05-31\n")["7"].chronological_age is None
    text = "id,age,date,date of birth\n7,10,2024-11-30,2014-05-31\n"
    assert children(text)["7"].chronological_age == pytest.approx(126, abs=0.05)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("id,date\n7,31.05.2024\n", r"row 2: the date '31\.05\.2024' is not a date such as 2024-05-31"),
        ("id,date,birth_date\n7,2024-05-31,05/31/2014\n", "the birth date '05/31/2014' is not a date"),
        ("id,date,birth_date\n7,2014-05-31,2024-05-31\n", "give an age of -10.0 years"),
        ("id,date,birth_date\n7,2024-05-31,1964-05-31\n", "give an age of 60.0 years"),
        ("id,age,date,birth_date\n7,8,2024-05-31,2014-05-31\n", "the age is 96 months, but the dates are 120 months"),
    ],
)
def test_invalid_or_implausible_dates_are_reported(text, fault):
    assert re.search(fault, children(text)["7"].fault)


@pytest.mark.parametrize(
    "title", ["chronological_age", "Chronological Age", " Chronological  Age ", "CHRONOLOGICAL__AGE"]
)
def test_a_further_input_is_found_under_every_spelling_of_its_title(title):
    table = read_labels(as_file(f"id,boneage,sex,{title}\n7,156,M,150\n"), {"chronological_age": "number"})
    assert table is not None
    assert table.lacks == ()
    assert table.labels[0].inputs == {"chronological_age": 150.0}


@pytest.mark.parametrize(
    ("years", "months", "age"),
    [
        ("8", "107", 107),
        ("9", "107.4", 107.4),
        ("9.0", "100", 100),
        ("8.9", "107", 107),
        ("", "107", 107),
        ("8", "", 96),
    ],
)
def test_an_age_in_rounded_years_agrees_with_one_in_months(years, months, age):
    for text in (f"id,age,age_months\n7,{years},{months}\n", f"id,age_months,age\n7,{months},{years}\n"):
        child = children(text)["7"]
        assert (child.chronological_age, child.fault) == (age, "")


@pytest.mark.parametrize(("years", "months"), [("8", "109"), ("9", "95"), ("8.9", "105"), ("8.5", "103.5")])
def test_contradicting_ages_are_rejected(years, months):
    fault = children(f"id,age,age_months\n7,{years},{months}\n")["7"].fault
    assert f"the columns 'age' ({years}) and 'age months' ({months}) contradict each other" in fault


def test_further_inputs_may_have_a_decimal_comma_in_a_semicolon_table():
    text = "id;boneage;male;chronological_age;ward\n7;100,5;TRUE;107,5;a,b\n"
    kinds: dict[str, Kind] = {"chronological_age": "number", "ward": ("a,b", "c")}
    found = read_labels(as_file(text), kinds)
    assert found is not None
    assert [(one.inputs, one.fault) for one in found.labels] == [({"chronological_age": 107.5, "ward": "a,b"}, "")]


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_an_overlong_field_is_an_error_with_its_row(delimiter):
    text = delimiter.join(["id", "x" * 140_000, "male"]) + delimiter.join(["\n7", "", "True\n"])
    with pytest.raises(BoneAgeError, match=r"labels.csv, row 1: .* \(field larger than field limit \(131072\)\)"):
        read_labels(as_file(text))


def test_a_size_of_thousands_of_digits_is_rejected():
    with pytest.raises(BoneAgeError, match=r"row 2: the size of 7 is '9+' x '10'; expected width and height"):
        read_sizes(as_file(f"id,width,height\n7,{'9' * 5000},10\n"))
