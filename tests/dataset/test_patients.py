"""Who is a patient: by names, by a csv file, by a pattern; and names that only look like several patients."""

import pytest

from support.checking import exactly
from uncseg.config.case_lists import PatientList, read_patients
from uncseg.dataset.patients import find_patients, patient_of, similar_names
from uncseg.tasks.built_in_tasks import paper_task


@pytest.mark.parametrize(
    ("case", "patient"),
    [
        ("BraTS-GLI-00012-000", "BraTS-GLI-00012"),
        ("BraTS-GLI-00012-001", "BraTS-GLI-00012"),
        ("BraTS-GLI-02405-100", "BraTS-GLI-02405"),
        ("BraTS-MEN-RT-0003-1", "BraTS-MEN-RT-0003"),
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001"),
        ("UPENN-GBM-00001_21", "UPENN-GBM-00001"),
        ("UCSF-PDGM-0181", "UCSF-PDGM-0181"),
        ("UCSF-PDGM-0181_FU003d", "UCSF-PDGM-0181"),
        ("UCSF-PDGM-0181_nifti", "UCSF-PDGM-0181"),
        ("UCSF-PDGM-0181_FU003d_nifti", "UCSF-PDGM-0181"),
        ("sub-01_ses-02", "sub-01"),
        ("sub-01", "sub-01"),
        ("sub-A7_ses-post_run-1", "sub-A7"),
        ("Brats18_2013_1_1", "Brats18_2013_1_1"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("BraTS2021_00000", "BraTS2021_00000"),
        ("patient1_pre", "patient1_pre"),
        ("BraTS-GLI-00012-000x", "BraTS-GLI-00012-000x"),
    ],
)
def test_names_tell_the_patient(case, patient):
    assert patient_of(case, task=paper_task()) == patient
    assert find_patients([case], task=paper_task())[0].of == {case: patient}


@pytest.mark.parametrize(
    ("cases", "sentence"),
    [
        ([f"Brats18_2013_{n}_1" for n in range(34)], "34 patients, each case its own: no name tells more"),
        (["BraTS-GLI-00001-000", "BraTS-GLI-00001-001"], "1 patient, by the names BraTS-XXX-NNNNN-NNN"),
        (
            ["sub-01_ses-1", "sub-01_ses-2", "UPENN-GBM-00001_11", "other"],
            "3 patients, by the names UPENN-GBM-NNNNN_NN and sub-NN_ses-NN, and 1 case of other names, each its own",
        ),
    ],
)
def test_it_is_said_how_patients_are_known(cases, sentence):
    assert str(find_patients(cases, task=paper_task())[0]) == sentence


@pytest.mark.parametrize(
    "names",
    [
        ["patient1_pre", "patient1_post"],
        ["patient1-pre", "patient1-post"],
        ["patient1", "patient1_post"],
        ["A_1", "A_2", "B_1"],
        ["patient1_1", "patient1_2"],
        ["LUMIERE-001.week-000", "LUMIERE-001.week-044"],
        ["P07 2019-01-02", "P07 2020-03-04"],
    ],
)
def test_names_that_differ_in_a_last_part_are_warned_of(names):
    patients, problems = find_patients(["Brats18_2013_1_1", *names], task=paper_task())
    assert problems == []
    (warning,) = patients.warnings
    differing = [name for name in names if name != "B_1"]
    assert all(name in warning.found for name in differing)
    assert f"{len(differing)} patients" in warning.found
    assert "dataset.patients" in warning.advice


@pytest.mark.parametrize(
    "names",
    [
        ["Brats18_2013_1_1", "Brats18_2013_2_1", "Brats18_TCIA01_131_1", "Brats17_CBICA_AAB_1"],
        [f"BraTS20_Training_{n:03d}" for n in range(1, 9)],
        [f"BraTS2021_{n:05d}" for n in range(8)],
        ["BraTS-GLI-00001-000", "BraTS-GLI-00001-001", "sub-01_ses-1", "sub-01_ses-2"],
        [f"case_{n:03d}" for n in range(4)],
        [f"study2024_{n:03d}" for n in range(100)],
        [f"{grade}_{n:03d}" for grade in ("HGG", "LGG") for n in range(30)],
        ["anna", "berta"],
        [],
    ],
)
def test_names_that_number_patients_are_not_warned_of(names):
    assert find_patients(names, task=paper_task())[0].warnings == ()


def test_many_warnings_are_counted():
    warnings = similar_names([f"patient{n}_{when}" for n in range(100) for when in ("pre", "post")])
    assert len(warnings) == 20
    assert warnings[-1].found.startswith("81 more")


def setting(text):
    read, problems = read_patients(str(text), "dataset.patients")
    assert problems == []
    return read


def test_a_csv_tells_the_patient(tmp_path):
    file = tmp_path / "patients.csv"
    lines = ["\ufeffsite, Case ,PATIENT", "x, a_1 ,anna", "", "x,a_2, anna", ",,", "y,b,bérta", "y,b,bérta", "z,more,m"]
    file.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    patients, problems = find_patients(["a_1", "a_2", "b"], setting(file), task=paper_task())
    assert problems == []
    assert patients.of == {"a_1": "anna", "a_2": "anna", "b": "bérta"}
    assert str(patients) == "2 patients, by patients.csv"
    assert patients.warnings == ()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_spreadsheets_separators_are_understood(tmp_path, separator):
    file = tmp_path / "patients.CSV"
    file.write_text(f'case{separator}patient\n"a{separator}1"{separator}anna\n')
    assert find_patients([f"a{separator}1"], setting(file), task=paper_task())[0].of == {f"a{separator}1": "anna"}


def test_a_pattern_tells_the_patient():
    pattern = r"(patient\d+)_"
    patients, problems = find_patients(
        ["patient1_pre", "patient1_post", "patient12_pre"], setting(pattern), task=paper_task()
    )
    assert problems == []
    assert patients.of == {"patient1_pre": "patient1", "patient1_post": "patient1", "patient12_pre": "patient12"}
    assert str(patients) == r"2 patients, by the pattern (patient\d+)_"
    assert patients.warnings == ()


def test_cases_without_a_patient_are_named(tmp_path):
    file = tmp_path / "patients.csv"
    file.write_text("case,patient\na_1,anna\n")
    _, problems = find_patients(["a_1", "c", "b"], setting(file), task=paper_task())
    assert [problem.found for problem in problems] == ["no line for b", "no line for c"]
    assert problems[0].where == f"dataset.patients: {file}"
    _, problems = find_patients(["a_1", "b"], r"(\w*)_", "--patients", task=paper_task())
    (problem,) = exactly(1, problems)
    assert problem.where == "--patients"
    assert problem.found.endswith("finds no patient for b")
    _, problems = find_patients(["_1"], r"(\w*)_", task=paper_task())
    assert len(problems) == 1  # it fits, and the patient has no name


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("", [("", "an empty file")]),
        ("\n\n", [("", "an empty file")]),
        ("case,patient\n", [("", "no case")]),
        ("case,subject\na,1\n", [("", "the columns case, subject")]),
        ("a,1\nb,2\n", [("", "the columns a, 1")]),
        ("case,patient,Case\na,1,b\n", [("", "2 columns case")]),
        ("case,patient\na,1\nb,2\na,3\n", [(", line 4", "a with patient 3")]),
        (
            "case,patient\na\n,2\nb, \n",
            [(", line 2", "no patient"), (", line 3", "no case"), (", line 4", "no patient")],
        ),
        ("case,patient\na,Smith,J\n", [(", line 2", "3 values")]),
        ('case,patient\na,"1\nb,2\n', [(", line 3", "unexpected end of data")]),
        (b"case,patient\na,M\xfcller\n", [(", line 2", "not UTF-8")]),
        (b"\x1f\x8b\x00\xff", [(", line 1", "not UTF-8")]),
        ("c\u0000se,patient\na,1\n", [("", "the columns")]),
    ],
)
def test_what_is_wrong_in_a_csv_is_named_by_line(tmp_path, content, wrong):
    file = tmp_path / "patients.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    read, problems = read_patients(str(file), "--patients")
    assert read is None
    assert [problem.where for problem in problems] == [f"--patients: {file}{line}" for line, _ in wrong]
    for problem, (_, found) in zip(problems, wrong, strict=True):
        assert found in problem.found


def test_files_that_cannot_be_read_are_named(tmp_path):
    for file in (tmp_path / "absent.csv", tmp_path / "folder.csv"):
        (tmp_path / "folder.csv").mkdir(exist_ok=True)
        read, (problem,) = read_patients(str(file), "dataset.patients")
        assert read is None
        assert problem.where == f"dataset.patients: {file}"


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("(a", "no regular expression"),
        ("(?P<1>a)", "no regular expression"),
        (r"a\d+", "no group"),
        ("patients.txt", "no group"),
        ("(.*)", "without letters"),
        ("(a)?", "without letters"),
    ],
)
def test_patterns_that_cannot_work_are_refused(pattern, found):
    read, (problem,) = read_patients(pattern, "dataset.patients")
    assert read is None
    assert problem.where == "dataset.patients"
    assert pattern in problem.found
    assert found in problem.found


def test_many_problems_are_counted(tmp_path):
    file = tmp_path / "patients.csv"
    file.write_text("case,patient\n" + "x,\n" * 1000)
    problems = read_patients(str(file), "dataset.patients")[1]
    assert len(problems) == 20
    assert problems[-1].found == "981 more of this kind"
    given = PatientList(read_from=file, patients={"a": "1"})
    assert len(find_patients([f"c{n}" for n in range(1000)], given, task=paper_task())[1]) == 20
