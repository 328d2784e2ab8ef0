"""What a folder holds, measured while somebody changes it."""

from isopod.volumes.size import disk_bytes, everything, folder_bytes


def test_a_folder_that_becomes_a_link_while_it_is_measured_leads_nowhere(tmp_path):
    data, outside = tmp_path / "data", tmp_path / "outside"
    (data / "a" / "b").mkdir(parents=True)
    (outside / "b").mkdir(parents=True)
    (outside / "b" / "large").write_bytes(b"x" * 1_000_000)
    seen = everything(data)
    assert [next(seen).st_ino, next(seen).st_ino] == [
        (data / "a").stat().st_ino,
        (data / "a" / "b").stat().st_ino,
    ]
    (data / "a").rename(data / "c")
    (data / "a").symlink_to(outside)
    assert list(seen) == []


def test_a_file_with_many_names_counts_for_each_and_is_on_the_disk_once(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "once").write_bytes(b"x" * 1_000_000)
    for number in range(9):
        (data / f"again-{number}").hardlink_to(data / "once")
    assert folder_bytes(data) >= 10_000_000
    assert 1_000_000 <= disk_bytes(data) < 2_000_000
    assert folder_bytes(tmp_path / "gone") > 1 << 60
