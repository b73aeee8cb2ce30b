"""6-safety 3 on a prepared tree: everything that can hold a device is found, and what cannot be read is never "none"."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.parts import require_part
from tests.unit.volume_daemon.proc_tree import HEAD, ProcTree
from volume_daemon.holders.places import Scope
from volume_daemon.holders.report import Holder, HolderKind, ProcessId, Role
from volume_daemon.holders.scan import Progress, Question, Sighting, scan

SERIAL = "b3bb93101b594f6297e8"
OTHER = "aaaaaaaaaaaaaaaaaaaa"
VDB, VDB1, DM = "252:16", "252:17", "253:0"
INJECTION = ("/bin/bash", "/opt/migratekit/bin/inject-virtio-drivers.sh", "/dev/vdb")


@pytest.fixture
def tree(tmp_path: Path) -> ProcTree:
    (tmp_path / "by-id").mkdir()
    return ProcTree(tmp_path).prepare()


@pytest.fixture
def disk(tree: ProcTree) -> ProcTree:
    """A disk that says its serial itself, with a partition."""
    tree.add_disk("vdb", VDB, serial=SERIAL, partitions=["vdb1"])
    tree.add_process(10)
    return tree


@pytest.fixture
def file(tree: ProcTree) -> Path:
    """A volume that is a file, as the simulator has them where it may not make devices."""
    return add_file(tree, SERIAL)


def add_file(tree: ProcTree, serial: str) -> Path:
    path = tree.path / f"volume-{serial}"
    path.write_bytes(b"0")
    (tree.path / "by-id" / f"virtio-{serial}").symlink_to(path)
    return path


def look(tree: ProcTree, scope: Scope = "everything") -> Sighting:
    by_id = tree.path / "by-id"
    return scan(Question({SERIAL: by_id / f"virtio-{SERIAL}"}, by_id), tree.places, scope, Progress())


def holders(seen: Sighting) -> list[tuple[HolderKind, str, str | None]]:
    return [(one.kind, one.name, one.through) for one in seen.holders.get(SERIAL, ())]


def only_process(seen: Sighting) -> Holder:
    (found,) = [one for one in seen.holders[SERIAL] if one.kind is HolderKind.PROCESS]
    return found


def is_clear(seen: Sighting) -> bool:
    return not seen.unread and not seen.unclear


def test_nobody_holds_it_when_everything_could_be_read(disk: ProcTree):
    seen = look(disk)
    assert (holders(seen), is_clear(seen), seen.targets[SERIAL].number) == ([], True, os.makedev(252, 16))


def test_an_open_file_is_found_with_who_when_and_how(tree: ProcTree, file: Path):
    tree.add_process(77, "dd", start_ticks=250, command=["dd", "if=/dev/zero"], files={1: file, 3: tree.path})
    found = only_process(look(tree))
    assert found.process == ProcessId(77, 250)
    assert (found.command, found.user, found.role) == ("dd if=/dev/zero", "root", Role.UNKNOWN)
    assert found.started_at is not None
    assert found.started_at.timestamp() == 1767225600 + 250 / os.sysconf("SC_CLK_TCK")
    assert found.since == found.started_at
    assert [one.split()[:2] for one in found.access] == [["fd", "1"]]
    assert not found.endable


def test_a_hard_link_or_another_name_hides_nothing(tree: ProcTree, file: Path):
    other = tree.path / "another-name"
    other.hardlink_to(file)
    tree.add_process(77, files={9: other})
    assert holders(look(tree)) == [(HolderKind.PROCESS, "sleep", None)]


def test_a_mapping_holds_after_its_file_was_closed(tree: ProcTree, file: Path):
    found = file.stat()
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    line = f"7f0000-7f1000 rw-s 00000000 {device} {found.st_ino}    {file}\n"
    tree.add_process(
        77, maps=f"560000-561000 r-xp 00000000 00:2a 17 /usr/bin/x\n{line}7fff0-7fff1 rw-p 0 00:00 0 [stack]\n"
    )
    assert only_process(look(tree)).access == ("mapped",)


def test_a_mapped_device_is_known_by_its_node(disk: ProcTree):
    require_part("root", os.geteuid() == 0)
    node = disk.make_node("vdb-node", VDB)
    line = f"7f0000-7f1000 rw-s 00000000 00:06 {node.stat().st_ino} {node}\n"
    (disk.add_process(77, maps=line) / "root").symlink_to("/")
    assert only_process(look(disk)).access == ("mapped",)


def test_a_mapped_device_that_cannot_be_followed_is_not_passed_over(disk: ProcTree):
    disk.add_process(77, maps="7f0000-7f1000 rw-s 00000000 00:06 99 /dev/gone (deleted)\n")
    assert "/dev/gone" in look(disk).unread[0]


@pytest.mark.parametrize(("node", "through"), [(VDB, None), (VDB1, "vdb1"), (DM, "dm-0")])
def test_whoever_has_the_disk_a_partition_or_what_is_built_on_it(disk: ProcTree, node: str, through: str | None):
    require_part("root", os.geteuid() == 0)
    (disk.sys / "block/vdb/vdb1/holders/dm-0").mkdir()
    (disk.add_disk("dm-0", DM) / "dm").mkdir()
    (disk.sys / "block/dm-0/dm/name").write_text("vg-root\n")
    disk.add_process(77, files={3: disk.make_node("node", node)})
    seen = look(disk)
    assert holders(seen) == [(HolderKind.DEVICE_MAPPER, "dm-0", "vdb1"), (HolderKind.PROCESS, "sleep", through)]
    assert "vg-root" in str(seen.holders[SERIAL][0].detail)


def test_md_and_others_that_claim_it(disk: ProcTree):
    for name, number in (("md0", "9:0"), ("bcache0", "251:0")):
        (disk.sys / "block/vdb/holders" / name).mkdir()
        disk.add_disk(name, number)
    assert set(holders(look(disk))) == {(HolderKind.MD, "md0", None), (HolderKind.BLOCK, "bcache0", None)}


def test_a_loop_device_over_the_file_and_a_mount_of_it(tree: ProcTree, file: Path):
    (tree.add_disk("loop3", "7:3") / "loop").mkdir()
    (tree.sys / "block/loop3/loop/backing_file").write_text(f"{file}\n")
    tree.add_process(10, mountinfo="1 0 7:3 / /mnt/with\\040blank rw - ext4 /dev/loop3 rw\n")
    assert holders(look(tree)) == [(HolderKind.LOOP, "loop3", None), (HolderKind.MOUNT, "/mnt/with blank", "loop3")]


def test_a_loop_device_whose_file_cannot_be_told_is_not_passed_over(tree: ProcTree, file: Path):
    (tree.add_disk("loop3", "7:3") / "loop").mkdir()
    (tree.sys / "block/loop3/loop/backing_file").write_text(f"{tree.path}/gone (deleted)\n")
    assert "gone" in look(tree).unread[0]


def test_a_mount_in_another_namespace_is_read_once_for_all_its_processes(disk: ProcTree):
    mounted = "5 1 252:17 / /mnt rw shared:1 - ext4 /dev/vdb1 rw\n"
    for pid in (20, 21):
        disk.add_process(pid, namespace=2, mountinfo=mounted)
    seen = look(disk)
    assert holders(seen) == [(HolderKind.MOUNT, "/mnt", "vdb1")]
    assert seen.holders[SERIAL][0].namespace == 2


def test_a_file_system_with_a_number_of_its_own_is_known_by_its_source(disk: ProcTree):
    require_part("root", os.geteuid() == 0)
    root = disk.add_process(20, namespace=2, mountinfo="5 1 0:55 / /mnt rw - btrfs /dev/vdb1 rw\n") / "root"
    (root / "dev").mkdir(parents=True)
    disk.make_node("node", VDB1).rename(root / "dev/vdb1")
    assert holders(look(disk)) == [(HolderKind.MOUNT, "/mnt", "vdb1")]


def test_a_file_system_of_several_devices_and_swap(disk: ProcTree):
    require_part("root", os.geteuid() == 0)
    (disk.sys / "fs/btrfs/0c0ffee0/devices/vdb1").mkdir(parents=True)
    node = disk.make_node("swapped", VDB)
    (disk.proc / "swaps").write_text(f"{HEAD}{node} partition 1 0 -2\n")
    assert holders(look(disk)) == [
        (HolderKind.FILESYSTEM, "btrfs 0c0ffee0", "vdb1"),
        (HolderKind.SWAP, str(node), None),
    ]


def test_a_dead_first_thread_hides_nothing(tree: ProcTree, file: Path):
    folder = tree.add_process(77, state="Z", threads=2)
    (folder / "task/78/fd").mkdir(parents=True)
    (folder / "task/78/fd/4").symlink_to(file)
    assert only_process(look(tree)).process == ProcessId(77, 100)


def test_a_name_with_brackets_is_read_right(tree: ProcTree, file: Path):
    tree.add_process(77, "a) R 1 (b", start_ticks=9, files={3: file})
    assert only_process(look(tree)).process == ProcessId(77, 9)


def test_what_has_ended_holds_nothing_and_hides_nothing(disk: ProcTree):
    disk.add_process(77, state="Z", namespace=5)
    (disk.proc / "78").mkdir()
    assert is_clear(look(disk))


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("proc/77/stat", "process 77"),
        ("proc/77/fd", "process 77 (sleep): its open files"),
        ("proc/77/fd/5", "process 77 (sleep): its open files"),
        ("proc/77/maps", "process 77 (sleep): its memory"),
        ("proc/77/mountinfo", "process 77 (sleep): its mount namespace"),
        ("sys/block/vdb/holders", "sys/block/vdb"),
        ("sys/block/vdb/vdb1/holders", "sys/block/vdb"),
        ("sys/block", "sys/block"),
        ("proc/swaps", "proc/swaps"),
    ],
)
def test_what_cannot_be_read_is_named(disk: ProcTree, place: str, told: str):
    (disk.path / "by-id" / f"virtio-{SERIAL}").symlink_to(disk.path / "a-file")
    (disk.path / "a-file").write_bytes(b"0")
    disk.add_process(77, namespace=2, files={5: disk.path})
    disk.make_unreadable(disk.path / place)
    seen = look(disk)
    assert any(told in sentence for sentence in seen.unread), seen
    passed = look(disk, "readable")
    assert (passed.unread, passed.passed_over) == ((), len(seen.unread))


@pytest.mark.parametrize("place", ["stat", "mountinfo"])
def test_what_cannot_be_understood_is_not_passed_over(disk: ProcTree, place: str):
    (disk.add_process(77, namespace=2) / place).write_text("what is this\n")
    assert any("understood" in sentence for sentence in look(disk).unread)


def test_a_holders_folder_that_is_not_there_is_told(disk: ProcTree):
    (disk.sys / "block/vdb/holders").rmdir()
    assert any("holders" in sentence for sentence in look(disk).unread)


def test_a_device_that_sysfs_does_not_show_is_unclear(tree: ProcTree):
    require_part("root", os.geteuid() == 0)
    (tree.path / "by-id" / f"virtio-{SERIAL}").symlink_to(tree.make_node("node", VDB))
    assert "252:16" in look(tree).unclear[SERIAL][0]


def test_without_the_directory_of_links_no_device_is_known_to_be_absent(tree: ProcTree):
    (tree.path / "by-id").rmdir()
    seen = look(tree)
    assert seen.absent == frozenset()
    (sentence,) = seen.unclear[SERIAL]
    assert sentence.endswith("(No such file or directory), so that no device is known to be there or not")


def test_without_the_directory_of_links_a_disk_that_says_its_serial_is_still_found(disk: ProcTree):
    (disk.path / "by-id").rmdir()
    seen = look(disk)
    assert (seen.targets[SERIAL].number, is_clear(seen)) == (os.makedev(252, 16), True)


def test_a_link_that_leads_nowhere_is_unclear_and_no_link_is_absent(tree: ProcTree):
    assert look(tree).absent == {SERIAL}
    (tree.path / "by-id" / f"virtio-{SERIAL}").symlink_to("nowhere")
    assert "leads nowhere" in look(tree).unclear[SERIAL][0]


def test_many_that_cannot_be_read_are_counted(tree: ProcTree, file: Path):
    for pid in range(100, 150):
        tree.add_process(pid)
        tree.make_unreadable(tree.proc / str(pid) / "fd")
    unread = look(tree).unread
    assert (len(unread), unread[-1]) == (21, "and 30 more")


def test_an_injections_tree_may_be_ended_by_what_it_holds(tree: ProcTree, file: Path):
    tree.add_process(50, "sshd", command=["sshd"])
    tree.add_process(60, "inject-virtio-d", start_ticks=300, parent=50, command=INJECTION)
    tree.add_process(
        61, "virt-v2v-in-pla", start_ticks=301, parent=60, command=["/usr/bin/virt-v2v-in-place", "-i", "disk"]
    )
    tree.add_process(62, "qemu-nbd", start_ticks=302, parent=61, command=["qemu-nbd", "x"], files={8: file})
    found = only_process(look(tree))
    assert (found.process, found.tree, found.role) == (ProcessId(62, 302), ProcessId(60, 300), Role.INJECTION)
    assert (found.endable, found.why_not, found.tree_command) == (True, None, " ".join(INJECTION))


def test_an_injection_that_also_has_another_volume_is_left_alone(tree: ProcTree, file: Path):
    tree.add_process(60, command=INJECTION, files={3: file})
    tree.add_process(61, parent=60, files={3: add_file(tree, OTHER)})
    found = only_process(look(tree))
    assert (found.role, found.endable) == (Role.INJECTION, False)
    assert f"virtio-{OTHER}" in str(found.why_not)


def test_an_nbd_server_is_named_and_never_ended(tree: ProcTree, file: Path):
    tree.add_process(60, "nbd-server", command=["nbd-server", "-C", "/etc/nbd-server/config"], files={3: file})
    found = only_process(look(tree))
    assert (found.role, found.endable) == (Role.NBD_SERVER, False)
    assert "NBD" in str(found.why_not)


def test_an_nbd_server_inside_an_injections_tree_keeps_the_tree(tree: ProcTree, file: Path):
    tree.add_process(60, command=INJECTION, files={3: file})
    tree.add_process(61, "nbd-server", parent=60, command=["nbd-server"])
    assert not only_process(look(tree)).endable
