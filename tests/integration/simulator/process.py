"""A real `ossea-sim` process and the client tools that talk to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OMA = "00000000-0000-4000-8000-0000000000a1"
VM = "00000000-0000-4000-8000-0000000000b1"
V1 = "b3bb9310-1b59-4f62-97e8-cefffdfe3804"
V2 = "0a0b0c0d-1b59-4f62-97e8-cefffdfe3805"
S1 = "00000000-0000-4000-8000-0000000000c1"
LINK = "virtio-b3bb93101b594f6297e8"
MIB = 1 << 20
BIN = Path(sys.executable).parent
KEY, SECRET = "demo-key", "s3cret+/ü"

SCENE: dict[str, list[dict[str, Any]]] = {
    "vms": [{"id": VM, "name": "pgtest1-test", "state": "Stopped"}],
    "volumes": [
        {"id": V1, "name": "pgtest1-disk-0", "size_bytes": 4 * MIB, "fill": "pgtest1/0"},
        {"id": V2, "name": "pgtest1-disk-1", "size_bytes": MIB, "fill": "pgtest1/1"},
    ],
    "snapshots": [{"id": S1, "volume_id": V1, "name": "test-failover-1"}],
}


@dataclass
class Sim:
    """One simulator; `start` again after `kill` or `stop` takes up its state."""

    folder: Path
    devices: str = "file"
    url: str = ""
    admin: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def device_root(self) -> Path:
        return self.folder / "by-id"

    @property
    def api(self) -> str:
        return f"{self.url}/client/api"

    def volume_file(self, volume_id: str) -> Path:
        return self.folder / "state" / "volumes" / f"{volume_id}.img"

    def start(self) -> None:
        command = [str(BIN / "ossea-sim"), "serve", "--port", "0", "--admin-port", "0", "--oma-vm-id", OMA]
        command += ["--state-dir", str(self.folder / "state"), "--device-root", str(self.device_root)]
        command += ["--api-key", KEY, "--secret-key", SECRET, "--devices", self.devices]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = json.loads(self.process.stdout.readline())
        assert (line["event"], line["program"]) == ("listening", "ossea-sim")
        self.url, self.admin = line["url"], line["admin"]

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def cs(self, command: str, *arguments: str) -> tuple[int, Any, str]:
        """The genuine `cs` tool: exit code, JSON on stdout, text on stderr."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSTACK_")}
        env |= {"CLOUDSTACK_ENDPOINT": self.api, "CLOUDSTACK_KEY": KEY, "CLOUDSTACK_SECRET": SECRET}
        env |= {"CLOUDSTACK_METHOD": "get", "CLOUDSTACK_TIMEOUT": "10", "CLOUDSTACK_POLL_INTERVAL": "0.05"}
        done = subprocess.run(
            [str(BIN / "cs"), command, *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr
