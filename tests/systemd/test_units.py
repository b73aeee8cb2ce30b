"""The units are valid, hardened, keep what the programs need, and give them time to drain."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from appliance.settings import Settings, load_settings
from oma.runtime.daemon import CLOSE_S
from tests.parts import require_part
from tests.systemd.units import FOLDER, UNITS, copy_units, read_unit, run

# Exposure as `systemd-analyze security` counts it, times ten. Root and the host's devices cost the Volume Daemon the rest.
THRESHOLDS = {"oma.service": 13, "volume-daemon.service": 35}


def test_the_units_are_valid(tmp_path: Path) -> None:
    checked = run("systemd-analyze", "verify", "--man=no", *copy_units(tmp_path))
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS)
def test_the_units_are_hardened(unit: str, tmp_path: Path) -> None:
    copy_units(tmp_path)
    checked = run(
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={THRESHOLDS[unit]}",
        "--no-pager",
        tmp_path / unit,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("unit", UNITS)
def test_the_service_manager_is_told_and_asked(unit: str) -> None:
    values = read_unit(unit)
    assert values["Type"] == ["notify"]
    assert values["NotifyAccess"] == ["main"]
    assert values["Restart"] == ["on-failure"]
    assert int(values["WatchdogSec"][0]) >= 10
    assert int(values["StartLimitBurst"][0]) * int(values["RestartSec"][0]) < int(values["StartLimitIntervalSec"][0])


@pytest.mark.parametrize("unit", UNITS)
def test_a_stop_has_time_to_reach_a_safe_point(unit: str) -> None:
    """The runs' own time, then sockets, loops, requests (twice), clients and database, each with its deadline."""
    drain_s = Settings().workflow.stop_timeout_s
    assert float(read_unit(unit)["TimeoutStopSec"][0]) > drain_s + 6 * CLOSE_S


def test_the_volume_daemon_keeps_what_finding_and_ending_holders_needs() -> None:
    values = read_unit("volume-daemon.service")
    assert values["User"] == ["root"]
    capabilities = set(" ".join(values["CapabilityBoundingSet"]).split())
    assert {"CAP_SYS_PTRACE", "CAP_KILL", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE"} <= capabilities
    # The scan for holders proves itself on a child that it runs as another user.
    assert {"CAP_SETUID", "CAP_SETGID"} <= capabilities
    assert (values["ProtectProc"], values["ProcSubset"], values["PrivateDevices"]) == (["default"], ["all"], ["no"])
    # Each of these would bring a device list or another view of processes and users.
    assert not {"ProtectClock", "DeviceAllow", "DevicePolicy", "PrivateUsers", "PrivatePIDs", "RootDirectory"} & set(
        values
    )
    assert str(Settings().volume_daemon.nbd_config_dir) in values["ReadWritePaths"][0].split()


def test_the_oma_daemon_has_no_privilege() -> None:
    values = read_unit("oma.service")
    assert values["User"] == ["oma"]
    assert values["CapabilityBoundingSet"] == [""]


def test_user_and_folders_come_to_be_as_the_units_want_them(tmp_path: Path) -> None:
    require_part("root", os.geteuid() == 0)
    (tmp_path / "etc").mkdir()
    users = run("systemd-sysusers", f"--root={tmp_path}", FOLDER / "sysusers.d" / "oma.conf")
    assert users.returncode == 0, users.stderr
    passwd = (tmp_path / "etc/passwd").read_text(encoding="utf-8")
    uid, gid = map(int, next(line for line in passwd.splitlines() if line.startswith("oma:")).split(":")[2:4])

    folders = run("systemd-tmpfiles", f"--root={tmp_path}", "--create", FOLDER / "tmpfiles.d" / "oma.conf")

    assert folders.returncode == 0, folders.stderr

    def look(name: str) -> tuple[str, int, int]:
        found = (tmp_path / name).stat()
        return stat.filemode(found.st_mode), found.st_uid, found.st_gid

    assert look("etc/oma") == ("drwxr-x---", 0, gid)
    assert look("var/lib/oma") == ("drwxr-x---", uid, gid)
    assert look("var/lib/oma/oma.db") == ("-rw-------", uid, gid)
    assert look("etc/nbd-server/conf.d") == ("drwxr-xr-x", 0, 0)


def test_the_example_settings_are_the_defaults_and_name_every_key() -> None:
    example = FOLDER / "oma.toml.example"
    assert load_settings(example, {}) == Settings()
    text = example.read_text(encoding="utf-8")
    sections = text.split("\n[")
    for section in Settings.model_fields:
        assert f"[{section}]" in text
        body = next(part for part in sections if part.lstrip("[").startswith(f"{section}]"))
        named = {line.lstrip("# ").partition("=")[0].strip() for line in body.splitlines() if "=" in line}
        assert set(type(getattr(Settings(), section)).model_fields) - named == set(), section
