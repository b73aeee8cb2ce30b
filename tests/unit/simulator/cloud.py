"""A model on virtual time, with the calls that tests make all the time."""

from __future__ import annotations

from typing import Any

from ossea.simulator.model import ApiError, Effect, Model, Settings, fault_from_json, seeding

OMA = "00000000-0000-4000-8000-0000000000a1"
VM = "00000000-0000-4000-8000-0000000000b1"
V1 = "b3bb9310-1b59-4f62-97e8-cefffdfe3804"
V2 = "b3bb9310-1b59-4f62-97e8-cefffdfe3805"
S1 = "00000000-0000-4000-8000-0000000000c1"
MIB = 1 << 20


class Cloud:
    """Two VMs (the OMA runs, the other is stopped), two free volumes, a snapshot of the first."""

    def __init__(self, *, driven: bool = False, **settings: Any) -> None:
        self.model = Model(Settings().patched(settings), seed=7, driven=driven)
        self.now = 1_000_000.0
        self.effects: list[Effect] = []
        self.model.seed(
            self.now,
            vms=[{"id": OMA, "name": "oma"}, {"id": VM, "name": "pgtest1-test", "state": "Stopped"}],
            volumes=[
                {"id": V1, "name": "pgtest1-disk-0", "size_bytes": MIB},
                {"id": V2, "name": "pgtest1-disk-1", "size_bytes": MIB},
            ],
            snapshots=[{"id": S1, "volume_id": V1, "name": "test-failover-1"}],
        )
        self.pass_time(0)
        self.effects.clear()

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.effects += self.model.advance(self.now)

    def call(self, command: str, **params: Any) -> dict[str, Any]:
        texts = {name.replace("__", "."): str(value) for name, value in params.items()}
        return self.model.submit(command, texts, self.now)

    def start(self, command: str, **params: Any) -> str:
        return str(self.call(command, **params)["jobid"])

    def job(self, job_id: str) -> dict[str, Any]:
        return self.call("queryAsyncJobResult", jobid=job_id)

    def run(self, command: str, **params: Any) -> dict[str, Any]:
        """The job's end, as queryAsyncJobResult shows it."""
        job_id = self.start(command, **params)
        while self.job(job_id)["jobstatus"] == 0:
            due = self.model.next_due()
            assert due is not None, f"{command} would never end"
            self.pass_time(max(0.0, due - self.now))
        return self.job(job_id)

    def done(self, command: str, **params: Any) -> dict[str, Any]:
        job = self.run(command, **params)
        assert job["jobstatus"] == 1, job
        return dict(job["jobresult"])

    def refusal(self, command: str, **params: Any) -> tuple[int, str]:
        """Code and text of a job that failed."""
        job = self.run(command, **params)
        assert job["jobstatus"] == 2, job
        return job["jobresult"]["errorcode"], job["jobresult"]["errortext"]

    def error(self, command: str, **params: Any) -> ApiError:
        """The refusal of the call itself."""
        try:
            answer = self.call(command, **params)
        except ApiError as error:
            return error
        raise AssertionError(f"{command} was accepted: {answer}")

    def volume(self, volume_id: str = V1) -> dict[str, Any]:
        return dict(self.call("listVolumes", id=volume_id)["volume"][0])

    def snapshot(self, snapshot_id: str = S1) -> dict[str, Any]:
        return dict(self.call("listSnapshots", id=snapshot_id)["snapshot"][0])

    def vm(self, vm_id: str = VM) -> dict[str, Any]:
        return dict(self.call("listVirtualMachines", id=vm_id)["virtualmachine"][0])

    def fault(self, command: str, kind: str, **fields: Any) -> None:
        self.model.faults.add(fault_from_json({"command": command, "kind": kind, **fields}))

    def put(self, volume_id: str, vm_id: str, device_id: int | None = None) -> Cloud:
        params = {} if device_id is None else {"deviceid": device_id}
        self.done("attachVolume", id=volume_id, virtualmachineid=vm_id, **params)
        return self

    def set_vm(self, vm_id: str, state: str) -> Cloud:
        seeding.patch_vm(self.model.world, self.model.world.vms.rows[vm_id], {"state": state})
        return self

    def set_volume(self, volume_id: str, **fields: Any) -> None:
        seeding.patch_volume(self.model.world, self.model.world.volumes.rows[volume_id], fields)

    def set_snapshot(self, snapshot_id: str, **fields: Any) -> None:
        seeding.patch_snapshot(self.model.world, self.model.world.snapshots.rows[snapshot_id], fields)

    def add_vm_snapshot(self, vm_id: str) -> Cloud:
        seeding.add_vm_snapshot(self.model.world, vm_id)
        return self
