"""A settings file that nobody named, and those that come with the package."""

from __future__ import annotations

import os

import pytest

from bulkbind.errors import UsageError
from bulkbind.settings import (
    FOUND,
    ConfigFile,
    find_config,
    load,
    load_settings,
    read_config,
    shipped_names,
)
from bulkbind.settings.load import _SHIPPED
from tests.support.configs import OWN
from tests.support.paths import ROOT

TEXT = "endpoint: https://found.example\nrate: 5\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(mode=0o600, text=TEXT):
    """Write the file with a mode, whatever the umask."""
    FOUND.write_text(text)
    FOUND.chmod(mode)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400, 0o444])
def test_a_file_of_ours_is_found(mode):
    """As long as nobody else can write it."""
    write(mode)

    found = find_config()

    assert isinstance(found, ConfigFile)
    assert found.is_found
    loaded = load(found, {"rate": "7"})
    assert loaded.found == FOUND
    assert (loaded.settings.api.endpoint, loaded.settings.send.rate) == ("https://found.example", 7)
    assert loaded.from_file == {"endpoint"}  # a flag has the other


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o664])
def test_a_file_that_others_can_write_is_not(mode):
    """By group or others; the mode is told."""
    write(mode)

    assert find_config() == f"others can write it (mode {mode:04o})"


def test_a_file_of_another_user_is_not(monkeypatch):
    """Not even for root."""
    write()
    monkeypatch.setattr(os, "geteuid", lambda: FOUND.stat().st_uid + 1)

    assert find_config() == "it belongs to another user"


def test_a_link_is_not_followed(tmp_path):
    """Whoever may write to the folder could point it at any settings of ours."""
    (tmp_path / "elsewhere.yaml").write_text(TEXT)
    FOUND.symlink_to("elsewhere.yaml")
    assert find_config() == "it is a link"

    FOUND.unlink()
    FOUND.symlink_to("nowhere")
    assert find_config() == "it is a link"


def test_what_is_no_file_holds_nobody_up():
    """A FIFO is not waited for, a folder not read."""
    os.mkfifo(FOUND)
    assert find_config() == "it is no regular file"

    FOUND.unlink()
    FOUND.mkdir()
    assert find_config() == "it is no regular file"


def test_what_takes_the_place_meanwhile_does_not_count(monkeypatch):
    """Owner, mode and text are of one descriptor."""
    write()
    real = os.fstat

    def swapped(number):
        FOUND.unlink()
        FOUND.write_text("endpoint: https://evil.example\n")
        return real(number)

    monkeypatch.setattr(os, "fstat", swapped)
    found = find_config()

    assert isinstance(found, ConfigFile)
    assert found.values["endpoint"] == "https://found.example"


def test_only_this_folder_is_looked_at(tmp_path, monkeypatch):
    """Neither its parents nor the home."""
    write()
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.setenv("HOME", str(tmp_path))

    assert find_config() is None


def test_a_broken_one_is_told():
    """It is ours, so somebody means it."""
    write(text="rate: [")

    with pytest.raises(UsageError, match=r"settings file bulkbind\.yaml is not YAML"):
        find_config()


def test_a_library_finds_nothing():
    """`load_settings` reads what it is given."""
    write()

    assert load_settings(None, {}).api.endpoint is None


# --- shipped settings ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_shipped_settings_are_those_of_configs(name):
    """Letter by letter: `python -m tests.support.configs` writes both."""
    assert (_SHIPPED / name).read_text("utf-8") == (ROOT / "configs" / name).read_text("utf-8")
    assert name.removesuffix(".yaml") in shipped_names()


def test_shipped_settings_are_taken_by_name(tmp_path):
    """A file of that name wins; values tell where they come from."""
    name = tmp_path.__class__("koodrive-cn")
    loaded = load(name, {})
    assert loaded.settings.api.endpoint == "https://cn.myhuaweicloud-koodrive.com"
    assert loaded.origins["endpoint"] == "koodrive-cn, line 8"
    assert loaded.found is None

    name.write_text("rate: 3\n")
    assert read_config(name).values == {"rate": "3"}


def test_an_unknown_name_lists_those_that_there_are(tmp_path):
    """And is no file either."""
    with pytest.raises(UsageError, match="No such file") as caught:
        read_config(tmp_path.__class__("koodrive-eu"))

    assert "koodrive-cn, koodrive-intl, sandbox" in caught.value.hint
