"""Folders are removed, and what links in them lead to stays."""

from isopod.volumes.removal import remove_folder


def test_everything_goes_and_nothing_that_a_link_leads_to(tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    (outside / "inner").mkdir(parents=True)
    (outside / "file").write_text("kept")
    (folder / "a" / "b" / "c").mkdir(parents=True)
    for place in (folder, folder / "a", folder / "a" / "b"):
        (place / "file").write_text("gone")
        (place / "link").symlink_to(outside)
    remove_folder(folder)
    assert not folder.exists()
    folder.symlink_to(outside)
    remove_folder(folder)
    assert not folder.is_symlink()
    assert sorted(one.name for one in outside.iterdir()) == ["file", "inner"]
