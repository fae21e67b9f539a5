import os
import stat
from pathlib import Path

import pytest

from schemas.errors import InvalidFieldError, UnavailableError
from streams.local.cache import FileLock, cache_folder, locked


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        pytest.param(
            {"STOPLOSS_CACHE_DIR": "{}/named", "XDG_CACHE_HOME": "{}/xdg", "HOME": "{}/home"},
            "named",
            id="named by us",
        ),
        pytest.param({"XDG_CACHE_HOME": "{}/xdg", "HOME": "{}/home"}, "xdg/stoploss", id="XDG"),
        pytest.param({"HOME": "{}/home"}, "home/.cache/stoploss", id="home, made where missing"),
        pytest.param(
            {"XDG_CACHE_HOME": "relative", "HOME": "{}/home"},
            "home/.cache/stoploss",
            id="a relative XDG folder is no folder, as the XDG specification says",
        ),
    ],
)
def test_the_cache_is_the_first_folder_named(
    tmp_path: Path, environ: dict[str, str], expected: str
) -> None:
    folder = cache_folder({name: value.format(tmp_path) for name, value in environ.items()})
    assert folder == tmp_path / expected
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_without_a_home_to_write_the_cache_is_a_temporary_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("not a folder")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = cache_folder({"HOME": str(tmp_path / "home")})
    assert folder == tmp_path / f"stoploss-cache-{os.getuid()}"


def test_a_named_folder_that_cannot_be_used_is_an_error_not_another_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidFieldError, match=r"^STOPLOSS_CACHE_DIR: '.*/file' is not allowed; "):
        cache_folder({"STOPLOSS_CACHE_DIR": str(tmp_path / "file"), "HOME": str(tmp_path)})


def test_a_folder_that_others_can_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = tmp_path / f"stoploss-cache-{os.getuid()}"
    planted.mkdir()
    planted.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(UnavailableError, match="name one that you can write in STOPLOSS_CACHE_DIR"):
        cache_folder({})


async def test_a_lock_has_one_holder_and_a_deadline(tmp_path: Path) -> None:
    holder = FileLock(tmp_path / "lock")
    assert holder.take()
    with pytest.raises(
        UnavailableError, match=r"lock: another process is baking for more than 0.05"
    ):
        async with locked(tmp_path / "lock", deadline_s=0.05, purpose="baking"):
            pass
    holder.free()
    async with locked(tmp_path / "lock", deadline_s=10, purpose="baking"):
        assert not holder.take()
    assert holder.take()
    holder.free()
