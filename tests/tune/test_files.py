"""Files are replaced as a whole or not at all."""

import pytest

from convgen.files import replaced


def test_what_was_there_stays_until_all_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replaced(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_nothing_changes_where_writing_fails(tmp_path):
    path = tmp_path / "file"
    with pytest.raises(KeyError), replaced(path) as file:
        file.write(b"half")
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError), replaced(tmp_path / "none" / "file"):
        pass


def test_a_link_goes_on_pointing_to_the_file(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(path)
    with replaced(link) as file:
        file.write(b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"
