"""scripts/download_dataset.sh with a fake gdown: downloads are checked, and no incomplete file is left."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tiny_runs import ROOT, read_tree

FILE_NAME = "mnist_10color_jitter_var_0.030.npy"
FILE_SIZE = 100_000_001  # bytes, above the smallest size that the script accepts
# A fake gdown: stores its arguments, copies the file $DELIVERED, if set, to the path after -O, and exits with $CODE.
FAKE_GDOWN = """#!/bin/sh
echo "$@" > "$(dirname "$0")/arguments"
while [ "$1" != -O ]; do shift; done
[ -z "$DELIVERED" ] || cp "$DELIVERED" "$2"
exit "$CODE"
"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip file that contains one file with the official name and size, and one with another name."""
    path = tmp_path_factory.mktemp("archive") / "good.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zip_file:
        zip_file.writestr("colored_mnist/readme.txt", "hello")
        zip_file.writestr(f"colored_mnist/{FILE_NAME}", bytes(FILE_SIZE))
    return path


class Download:
    """The script in an empty folder, with a fake gdown that delivers the file of the test."""

    def __init__(self, folder: Path) -> None:
        self.target = folder / "repository/data/colored_mnist"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "gdown").write_text(FAKE_GDOWN)
        (self.bin / "gdown").chmod(0o755)
        (self.bin / "python3").symlink_to(sys.executable)
        self.script = folder / "repository/scripts/download_dataset.sh"
        self.script.parent.mkdir(parents=True)
        for name in ("download_dataset.sh", "unpack_archive.py"):
            shutil.copy(ROOT / "scripts" / name, self.script.parent)

    def __call__(self, delivered_file: Path | None, code: int = 0, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the script; the fake gdown delivers the file, if any, and exits with the code."""
        return subprocess.run(
            ["/bin/bash", str(self.script), *arguments],
            env={"PATH": f"{self.bin}:/usr/bin:/bin", "DELIVERED": str(delivered_file or ""), "CODE": str(code)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def file_names(self) -> list[str]:
        """Return the names of the files in the target folder."""
        return sorted(read_tree(self.target))

    def run_and_get_error(self, delivered_file: Path | None, code: int = 0) -> str:
        """Run the script, which must fail and suggest alternatives; return its message."""
        process = self(delivered_file, code)
        assert process.returncode == 1
        assert "Just run: make train" in process.stderr
        assert f"put {FILE_NAME}" in process.stderr
        return process.stderr


@pytest.fixture
def download(tmp_path: Path) -> Download:
    """The script, with a fake gdown."""
    return Download(tmp_path)


def test_a_valid_archive_is_unpacked(download: Download, archive: Path) -> None:
    process = download(archive)
    assert process.returncode == 0, process.stderr
    assert download.file_names() == [FILE_NAME]
    assert (download.target / FILE_NAME).stat().st_size == FILE_SIZE
    assert "--continue" in (download.bin / "arguments").read_text()


def test_the_file_is_put_into_the_target_folder(download: Download, archive: Path, tmp_path: Path) -> None:
    other_target = tmp_path / "other folder, with blanks"
    assert download(archive, 0, str(other_target)).returncode == 0
    assert list(read_tree(other_target)) == [FILE_NAME]
    assert not download.target.exists()


def test_existing_files_are_not_replaced(download: Download, archive: Path) -> None:
    download.target.mkdir(parents=True)
    (download.target / FILE_NAME).write_text("existing")
    assert download(archive).returncode == 0
    assert (download.target / FILE_NAME).read_text() == "existing"


def test_nothing_is_downloaded_if_all_files_exist(download: Download) -> None:
    download.target.mkdir(parents=True)
    for variance in range(20, 55, 5):
        (download.target / f"mnist_10color_jitter_var_0.0{variance}.npy").write_text("")
    process = download(None, 1)
    assert process.returncode == 0
    assert "nothing to do" in process.stdout
    assert not (download.bin / "arguments").exists()


def test_an_html_page_is_refused(download: Download, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    message = download.run_and_get_error(page)
    assert "not a whole zip or tar archive; it starts with b'<!DOCTYPE html>" in message
    assert download.file_names() == []


@pytest.mark.parametrize("share", [0.3, 0.999])
def test_a_truncated_archive_is_deleted(download: Download, archive: Path, tmp_path: Path, share: float) -> None:
    truncated_archive = tmp_path / "cut.zip"
    truncated_archive.write_bytes(archive.read_bytes()[: int(share * archive.stat().st_size)])
    assert "it was deleted" in download.run_and_get_error(truncated_archive)
    assert download.file_names() == []


def test_a_damaged_archive_is_deleted(download: Download, archive: Path, tmp_path: Path) -> None:
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "damaged.zip").write_bytes(content)
    assert "it was deleted" in download.run_and_get_error(tmp_path / "damaged.zip")
    assert download.file_names() == []


def test_a_file_that_is_too_small_is_refused(download: Download, tmp_path: Path) -> None:
    small_archive = tmp_path / "small.zip"
    with zipfile.ZipFile(small_archive, "w") as zip_file:
        zip_file.writestr(FILE_NAME, bytes(1000))
    assert "1,000 bytes, too few for 70,000 images" in download.run_and_get_error(small_archive)
    assert download.file_names() == []


def test_without_network_a_partial_download_is_kept_for_the_next_try(
    download: Download, archive: Path, tmp_path: Path
) -> None:
    partial_archive = tmp_path / "part"
    partial_archive.write_bytes(archive.read_bytes()[:1000])
    assert "no network" in download.run_and_get_error(partial_archive, code=1)
    assert download.file_names() == ["official_archive.part"]
    assert download(archive).returncode == 0
    assert download.file_names() == [FILE_NAME]


def test_without_network_no_file_is_left(download: Download) -> None:
    assert "no network" in download.run_and_get_error(None, code=1)
    assert download.file_names() == []


def test_gdown_that_succeeds_without_a_file_is_an_error(download: Download) -> None:
    assert "gdown left no file behind" in download.run_and_get_error(None, code=0)


def test_a_target_that_cannot_be_written_to_is_refused(download: Download) -> None:
    download.target.parent.mkdir(parents=True)
    download.target.write_text("a regular file")
    assert "cannot be written to" in download.run_and_get_error(None)
    assert download.target.read_text() == "a regular file"


def test_a_missing_gdown_is_reported(download: Download) -> None:
    (download.bin / "gdown").unlink()
    assert "gdown is not installed" in download.run_and_get_error(None)
