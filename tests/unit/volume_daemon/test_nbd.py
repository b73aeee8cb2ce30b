from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.volume_daemon.builders import VOLUME_ID
from volume_daemon.server.nbd import NbdFiles, NbdUnwritable, ReloadFailed, build_text, plan_exports, with_device
from volume_daemon.server.records import RecordedExport, VolumeRecords

LINK = "/dev/disk/by-id/virtio-b3bb93101b594f6297e8"


def records(**fields: object) -> VolumeRecords:
    empty = VolumeRecords(VOLUME_ID, frozenset(), None, (), None, None)
    return replace(empty, **fields)  # type: ignore[arg-type]


def export(name: str = "migration-vol-x", text: str | None = None, **fields: object) -> RecordedExport:
    return replace(RecordedExport(name, 10809, "/dev/vdb", None, "active", text), **fields)  # type: ignore[arg-type]


def test_a_volume_without_a_recorded_export_gets_the_one_that_existing_daemons_make(tmp_path):
    (made,) = plan_exports(records(), LINK, tmp_path, 10809, "ctx-1")
    assert (made.name, made.port, made.device_path) == (f"migration-vol-{VOLUME_ID}", 10809, LINK)
    assert made.config_path == str(tmp_path / f"migration-vol-{VOLUME_ID}.conf")
    assert made.text == build_text(made.name, LINK)


def test_a_recorded_export_comes_back_under_its_name_and_port_on_the_devices_path_of_today(tmp_path):
    old = export("custom", "[custom]\nexportname = /dev/vdb\nreadonly = true\n", port=10999)
    (made,) = plan_exports(records(recorded=(old,)), LINK, tmp_path, 10809, None)
    assert (made.name, made.port) == ("custom", 10999)
    assert made.text == f"[custom]\nexportname = {LINK}\nreadonly = true\n"


def test_exports_that_stand_are_kept_before_older_recordings(tmp_path):
    made = plan_exports(records(exports=(export("now"),), recorded=(export("then"),)), LINK, tmp_path, 10809, None)
    assert [one.name for one in made] == ["now"]


def test_a_path_with_backslashes_is_not_taken_for_a_pattern():
    assert with_device("exportname = /old\n", r"/dev/\1") == "exportname = /dev/\\1\n"


async def test_files_are_recorded_withdrawn_and_put_back_as_they_were(tmp_path):
    nbd = NbdFiles(tmp_path, None)
    text = "[migration-vol-x]\nexportname = /dev/vdb\n# by hand\n"
    file = tmp_path / "migration-vol-x.conf"
    file.write_text(text)
    recorded = await nbd.record([export()], [])
    await nbd.withdraw(recorded)
    assert list(tmp_path.iterdir()) == []
    await nbd.withdraw(recorded)
    await nbd.put(recorded)
    assert file.read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


async def test_a_file_that_others_share_is_never_removed(tmp_path):
    shared = tmp_path / "config-base"
    shared.write_text("[generic]\n")
    directory = tmp_path / "conf.d"
    directory.mkdir()
    nbd = NbdFiles(directory, None)
    await nbd.withdraw([export(config_path=str(shared))])
    assert shared.exists()


async def test_an_export_name_cannot_lead_out_of_the_directory(tmp_path):
    directory = tmp_path / "conf.d"
    directory.mkdir()
    await NbdFiles(directory, None).put([export("../../evil", "[x]\n")])
    assert [path.parent for path in tmp_path.rglob("*.conf")] == [directory]


async def test_a_directory_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NbdUnwritable, match="cannot be written"):
        await NbdFiles(tmp_path / "file" / "conf.d", None).check_writable()


async def test_many_changes_share_a_reload_that_begins_after_them(tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", f"open({str(log)!r}, 'a').write('x')"]
    nbd = NbdFiles(tmp_path, command)
    await asyncio.gather(*(nbd.reload() for _ in range(20)))
    assert 1 <= len(log.read_text()) <= 2


@pytest.mark.parametrize("command", [[sys.executable, "-c", "raise SystemExit('no such pid')"], ["/nonexistent/x"]])
async def test_a_reload_that_fails_is_told_with_its_words(tmp_path: Path, command):
    with pytest.raises(ReloadFailed, match=r"no such pid|cannot be run"):
        await NbdFiles(tmp_path, command).reload()
