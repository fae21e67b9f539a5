"""An error is one line that names field, value and what is allowed."""

from schemas.errors import InvalidFieldError, InvalidFileError, Remedy


def test_a_field_says_its_value_cut_to_what_fits_a_line() -> None:
    error = InvalidFieldError("subject", "x" * 5_000, "at most 200 characters")
    assert str(error) == f"subject: '{'x' * 79} is not allowed; use at most 200 characters"
    assert (error.field, error.allowed, error.remedy) == (
        "subject",
        "at most 200 characters",
        Remedy.DEAD_LETTER,
    )


def test_a_file_says_its_whole_path_and_what_is_wrong_with_it() -> None:
    path = f"/{'x' * 300}/policy.toml"
    error = InvalidFileError("POLICY", path, "a file of TOML", "no such file")
    assert str(error) == (f"POLICY: '{path}' is not allowed; use a file of TOML (no such file)")
    assert error.problem == "no such file"
