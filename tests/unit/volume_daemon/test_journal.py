"""The rows, on tables of ours and on those of an older installation."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Connection, create_engine, insert, text, update

from database.errors import SchemaOutdated
from database.tables import metadata, ossea_volumes
from tests.unit.volume_daemon.builders import NOW, OMA_ID, OPERATION_ID, TEST_VM_ID, VOLUME_ID
from volume_daemon.models import Operation, OperationStatus, OperationType
from volume_daemon.server import journal, mappings, unfinished
from volume_daemon.server.records import Entry, Filter, MappingRow, Order, RecordedExport, Stage, Tracking
from volume_daemon.server.refusals import Problem
from volume_daemon.server.shape import read_shape

OLD_MAPPINGS = """CREATE TABLE device_mappings (
  id varchar(64) NOT NULL PRIMARY KEY, vm_context_id varchar(64), volume_uuid varchar(64) NOT NULL UNIQUE,
  volume_id_numeric bigint, vm_id varchar(64) NOT NULL, operation_mode varchar(10) DEFAULT 'oma',
  cloudstack_device_id int, requires_device_correlation tinyint DEFAULT 1, device_path varchar(255) NOT NULL UNIQUE,
  cloudstack_state varchar(32) NOT NULL, linux_state varchar(32) NOT NULL, size bigint NOT NULL, last_sync timestamp,
  created_at timestamp, updated_at timestamp, ossea_snapshot_id varchar(191), snapshot_status varchar(50))"""
OLD_EXPORTS = """CREATE TABLE nbd_exports (
  id varchar(64) NOT NULL PRIMARY KEY, job_id varchar(191), volume_id varchar(64) NOT NULL, device_mapping_uuid
  varchar(64) REFERENCES device_mappings (volume_uuid) ON DELETE CASCADE, export_name varchar(191) NOT NULL UNIQUE,
  port int NOT NULL, device_path text NOT NULL, config_path text DEFAULT '', status varchar(191) NOT NULL,
  created_at datetime, updated_at datetime)"""


@pytest.fixture(params=["ours", "older"])
def connection(request):
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        opened.execute(text("PRAGMA foreign_keys=ON"))
        if request.param == "older":
            opened.execute(text(OLD_MAPPINGS))
            opened.execute(text(OLD_EXPORTS))
        metadata.create_all(opened)
        yield opened
    engine.dispose()


def order(**fields: object) -> Order:
    base = Order(OPERATION_ID, OperationType.ATTACH, VOLUME_ID, OMA_ID, {"vm_id": OMA_ID}, None)
    return replace(base, **fields)  # type: ignore[arg-type]


def accept(connection: Connection, **fields: object) -> Entry:
    return journal.accept(connection, order(**fields), NOW)[0]


def row(**fields: object) -> MappingRow:
    base = MappingRow("m-1", VOLUME_ID, OMA_ID, None, "oma", "/dev/x", 1, "attached", "detected", 1024)
    return replace(base, **fields)  # type: ignore[arg-type]


EXPORT = RecordedExport("migration-vol-1", 10809, "/dev/x", "/etc/x.conf", "active", "[x]\n", job_id="gone")


def test_a_key_stands_for_one_change(connection):
    first, is_new = journal.accept(connection, order(), NOW)
    again, is_new_again = journal.accept(connection, order(), NOW + timedelta(seconds=1))
    assert (is_new, is_new_again) == (True, False)
    assert again == first
    with pytest.raises(Problem, match="another change"):
        journal.accept(connection, order(vm_id=TEST_VM_ID), NOW)


def test_a_newer_holder_takes_over_the_same_change_and_the_older_one_is_fenced(connection):
    accept(connection, fence=3)
    assert accept(connection, fence=5).fence == 5
    with pytest.raises(Problem) as fenced:
        accept(connection, fence=4)
    assert fenced.value.code == "fenced"
    assert fenced.value.fields["seen"] == 5


def test_an_intent_is_refused_once_a_newer_holder_has_spoken(connection):
    entry = accept(connection, fence=3)
    accept(connection, id="44444444-4444-4444-8444-444444444444", fence=4)
    sent = replace(entry, stage=Stage.SENT, status=OperationStatus.EXECUTING)
    with pytest.raises(Problem):
        journal.mark_sent(connection, sent)
    found = journal.find_entry(connection, OPERATION_ID)
    assert found is not None
    assert found.stage is Stage.ACCEPTED


def test_an_entry_is_read_as_it_was_written(connection):
    entry = replace(
        accept(connection, fence=3),
        stage=Stage.SENT,
        status=OperationStatus.EXECUTING,
        request_id=OPERATION_ID,
        queue_vm_id=OMA_ID,
        sent_at=NOW,
        expires_at=NOW + timedelta(seconds=60),
        exports=(EXPORT,),
        tracking=Tracking("m-1", "ctx", "s-1", "ready", NOW),
    )
    journal.mark_sent(connection, entry)
    assert journal.find_entry(connection, OPERATION_ID) == entry
    assert unfinished.list_open(connection) == ([entry], {})
    history = connection.execute(text("SELECT previous_status, new_status FROM volume_operation_history")).all()
    assert [tuple(one) for one in history] == [("pending", "executing")]


def test_what_was_sent_can_not_be_taken_back_and_what_ended_not_be_changed(connection):
    entry = accept(connection)
    sent = replace(entry, stage=Stage.SENT, status=OperationStatus.EXECUTING)
    journal.mark_sent(connection, sent)
    with pytest.raises(journal.JournalConflict):
        journal.mark_cancelled(connection, entry.ended(OperationStatus.CANCELLED, NOW))
    journal.mark_ended(connection, sent.ended(OperationStatus.COMPLETED, NOW))
    with pytest.raises(journal.JournalConflict):
        journal.mark_ended(connection, sent.ended(OperationStatus.FAILED, NOW))
    assert unfinished.list_open(connection) == ([], {})


def test_an_operation_of_another_generation_is_listed_and_left_alone(connection):
    connection.execute(
        text(
            "INSERT INTO volume_operations (id, type, status, volume_id, request, error, created_at, updated_at) VALUES"
            " ('op-1', 'attach', 'executing', 'v', 'no json', 'boom', '2026-01-01 00:00:00', '2026-01-01 00:00:00')"
        )
    )
    (found,) = journal.list_entries(connection, Filter())
    assert (found.journaled, found.error_text, found.request) == (False, "boom", {})
    assert unfinished.list_open(connection) == ([], {})


def test_filters(connection):
    accept(connection)
    assert len(journal.list_entries(connection, Filter(volume_id=VOLUME_ID, vm_id=OMA_ID))) == 1
    for nothing in (
        Filter(type=OperationType.DETACH),
        Filter(status=OperationStatus.FAILED),
        Filter(vm_id=TEST_VM_ID),
        Filter(volume_id="x"),
    ):
        assert journal.list_entries(connection, nothing) == []


def test_mapping_and_export_come_and_go_together(connection):
    shape = read_shape(connection)
    mappings.save_mapping(connection, shape, row(), [EXPORT], NOW)
    records = mappings.read_volume(connection, shape, VOLUME_ID)
    assert records.mapping == row(last_sync=NOW, snapshot_status="none")
    # The replication job that made it is gone, and rows refer to it: it comes back without.
    assert records.exports == (replace(EXPORT, text=None, job_id=None),)
    mappings.save_mapping(connection, shape, row(device_path="/dev/y", size=2048), [], NOW)
    records = mappings.read_volume(connection, shape, VOLUME_ID)
    assert records.mapping is not None
    assert (records.mapping.device_path, records.exports) == ("/dev/y", ())
    mappings.save_mapping(connection, shape, row(), [EXPORT], NOW)
    mappings.remove_mapping(connection, VOLUME_ID)
    records = mappings.read_volume(connection, shape, VOLUME_ID)
    assert (records.mapping, records.exports) == (None, ())


def test_another_volumes_path_or_name_is_not_taken_over(connection):
    shape = read_shape(connection)
    other = "55555555-5555-4555-8555-555555555555"
    mappings.save_mapping(connection, shape, row(), [EXPORT], NOW)
    with pytest.raises(mappings.PathTaken):
        mappings.save_mapping(connection, shape, row(id="m-2", volume_uuid=other), [], NOW)
    with pytest.raises(mappings.ExportNameTaken):
        mappings.save_mapping(connection, shape, row(id="m-2", volume_uuid=other, device_path="/y"), [EXPORT], NOW)


def add_configs(connection: Connection, *configs: tuple[int, str, int]) -> None:
    for id_, oma_vm_id, is_active in configs:
        connection.execute(
            text("INSERT INTO ossea_configs (id, name, oma_vm_id, is_active) VALUES (:i, :n, :o, :a)"),
            {"i": id_, "n": f"config-{id_}", "o": oma_vm_id, "a": is_active},
        )


def add_volume_row(connection: Connection, config_id: int | None) -> None:
    connection.execute(insert(ossea_volumes).values(volume_id=VOLUME_ID, volume_name="d", ossea_config_id=config_id))


def oma_of(connection: Connection) -> frozenset[str]:
    return mappings.read_volume(connection, read_shape(connection), VOLUME_ID).oma_vm_ids


def test_the_oma_is_the_vm_of_the_configuration_that_the_row_names_else_of_the_active_one(connection):
    add_configs(connection, (1, OMA_ID.upper(), 1), (2, "OLD", 0), (3, "", 1))
    assert oma_of(connection) == {OMA_ID}
    add_volume_row(connection, None)
    assert oma_of(connection) == {OMA_ID}
    connection.execute(update(ossea_volumes).values(ossea_config_id=2))
    assert oma_of(connection) == {"old"}
    connection.execute(update(ossea_volumes).values(ossea_config_id=3))
    assert oma_of(connection) == frozenset()
    connection.execute(update(ossea_volumes).values(ossea_config_id=99))
    assert oma_of(connection) == frozenset()


def test_several_active_configurations_of_one_vm_are_one_and_of_several_are_several(connection):
    add_configs(connection, (1, OMA_ID, 1), (2, OMA_ID.upper(), 1))
    assert oma_of(connection) == {OMA_ID}
    add_configs(connection, (3, TEST_VM_ID, 1))
    assert oma_of(connection) == {OMA_ID, TEST_VM_ID}


def test_what_an_installation_wants_filled_is_filled(connection):
    """Generations differ in which columns may be empty; an attachment must not fail at its end over one of them."""
    shape = replace(read_shape(connection), mapping_fillers={"cloudstack_device_id": 0, "snapshot_status": ""})
    values = shape.mapping_values({"cloudstack_device_id": None, "snapshot_status": "ready", "vm_id": None})
    assert values == {"cloudstack_device_id": 0, "snapshot_status": "ready", "vm_id": None}


STRICT_EXPORTS = """CREATE TABLE nbd_exports (
  id integer NOT NULL PRIMARY KEY, job_id varchar(191) NOT NULL, vm_disk_id bigint NOT NULL, volume_id varchar(64),
  device_mapping_uuid varchar(64), export_name varchar(191) NOT NULL UNIQUE, port int NOT NULL, device_path text,
  created_at datetime)"""


def test_columns_that_must_have_a_value_are_found_in_the_database():
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        opened.execute(text(OLD_MAPPINGS))
        opened.execute(text(STRICT_EXPORTS))
        metadata.create_all(opened)
        shape = read_shape(opened)
        mappings.save_mapping(opened, shape, row(), [EXPORT], NOW)
        (export,) = opened.execute(text("SELECT job_id, vm_disk_id FROM nbd_exports")).all()
    engine.dispose()
    assert tuple(export) == ("", 0)


def test_a_reference_that_must_be_filled_and_that_we_may_not_know_is_told_at_the_start():
    engine = create_engine("sqlite://")
    with engine.connect() as opened:
        opened.execute(
            text(
                OLD_MAPPINGS.replace(
                    "vm_context_id varchar(64)",
                    "vm_context_id varchar(64) NOT NULL REFERENCES vm_replication_contexts (context_id)",
                )
            )
        )
        opened.execute(text(OLD_EXPORTS))
        metadata.create_all(opened)
        with pytest.raises(SchemaOutdated, match=r"device_mappings\.vm_context_id"):
            read_shape(opened)
    engine.dispose()


def test_a_row_whose_type_and_status_an_old_database_cut_to_nothing_is_listed(connection):
    """Non-strict servers store '' for what an enum does not know."""
    connection.execute(
        text(
            "INSERT INTO volume_operations (id, type, status, volume_id, request, created_at, updated_at) VALUES"
            " ('op-1', '', '', 'v', '{}', '2026-01-01 00:00:00', '2026-01-01 00:00:00')"
        )
    )
    (found,) = journal.list_entries(connection, Filter())
    shown = found.as_operation(NOW, 60)
    assert (shown.as_json()["type"], shown.as_json()["status"]) == ("", "")
    assert Operation.parse(shown.as_json()) == shown
    assert journal.list_entries(connection, Filter(type=OperationType.ATTACH)) == []


def test_an_ended_row_that_cannot_be_read_hides_none_of_the_others(connection):
    accept(connection)
    other = accept(connection, id="44444444-4444-4444-8444-444444444444")
    damage = "UPDATE volume_operations SET created_at = 'yesterday' WHERE id = :id"
    connection.execute(text(damage), {"id": OPERATION_ID})
    with pytest.raises(ValueError, match="yesterday"):
        journal.list_entries(connection, Filter())
    connection.execute(
        text("UPDATE volume_daemon_operations SET stage = 'ended' WHERE operation_id = :id"), {"id": OPERATION_ID}
    )
    assert journal.list_entries(connection, Filter()) == [other]


def test_a_recorded_time_that_cannot_be_read_keeps_no_volume_away(connection):
    accept(connection)
    connection.execute(
        text("UPDATE volume_daemon_operations SET tracking = :t"),
        {"t": '{"mapping_id": "m-1", "snapshot_id": "s-1", "snapshot_created_at": "soon"}'},
    )
    _, tracking = journal.find_recorded(connection, VOLUME_ID)
    assert tracking == Tracking("m-1", None, "s-1")
