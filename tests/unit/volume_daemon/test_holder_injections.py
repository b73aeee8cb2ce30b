"""Which commands are a driver injection: the only thing that is ever ended."""

from __future__ import annotations

import pytest

from volume_daemon.holders.injections import is_export_server, is_injection, is_nbd_server


@pytest.mark.parametrize(
    "command",
    [
        ["/opt/migratekit/bin/inject-virtio-drivers.sh", "/dev/vdb"],
        ["/bin/bash", "/opt/migratekit/bin/inject-virtio-drivers.sh", "/dev/vdb"],
        ["bash", "-e", "--", "inject-virtio-drivers.sh"],
        ["/bin/sh", "-x", "inject-virtio-drivers.sh"],
        ["virt-v2v-in-place", "-i", "disk", "/dev/vdb"],
        ["/usr/bin/virt-v2v"],
    ],
)
def test_known(command):
    assert is_injection(command)


@pytest.mark.parametrize(
    "command",
    [
        [],
        [""],
        ["vim", "inject-virtio-drivers.sh"],
        ["grep", "virt-v2v", "log"],
        ["bash", "-c", "virt-v2v /dev/vdb"],
        ["bash", "-lc", "inject-virtio-drivers.sh"],
        ["bash", "deploy.sh", "inject-virtio-drivers.sh"],
        ["bash"],
        ["/usr/bin/qemu-system-x86_64", "virt-v2v"],
        ["virt-v2/virt"],
        ["not-virt-v2v"],
        ["inject-virtio-drivers.sh.bak"],
        ["sudo", "virt-v2v-in-place"],
    ],
)
def test_unknown(command):
    assert not is_injection(command)


def test_nbd_servers_are_known_by_name_or_command():
    assert is_nbd_server("nbd-server", [])
    assert is_nbd_server("main", ["/usr/bin/qemu-nbd"])
    assert not is_nbd_server("sleep", ["sleep"])
    assert is_export_server("nbd-server", [])
    assert not is_export_server("qemu-nbd", ["qemu-nbd"])
