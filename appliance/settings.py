"""The settings of all programs: one TOML file, one model, every key with its bounds.

Reading files and variables is in `appliance.settings_sources`; a value that is not allowed never gets into
a `Settings`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from appliance.settings_faults import SettingError, SettingFault, SettingsError, collect_faults
from appliance.settings_sources import gather

__all__ = ["SettingFault", "Settings", "SettingsError", "load_settings"]

DEFAULT_CONFIG = Path("/etc/oma/oma.toml")


def check_loopback(host: str) -> str:
    """The host, if it is a loopback address; whoever may reach the port may do everything, as yet."""
    if host == "localhost":
        return host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise SettingError(
            f"{host!r} is not a loopback address, and binding elsewhere is refused until access control exists",
            "127.0.0.1, ::1 or localhost",
        )
    return host


def check_http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingError("it is no http address", "an address like http://127.0.0.1:8090")
    return url.rstrip("/")


def check_database_url(url: str) -> str:
    """Names no part of the address: it may hold a password."""
    scheme = url.partition("://")[0].partition("+")[0]
    if "://" not in url or scheme not in ("sqlite", "mysql", "mariadb"):
        raise SettingError("it is no database address", "sqlite:////path/to/oma.db or mysql+pymysql://user:…@host/name")
    return url


Host = Annotated[str, AfterValidator(check_loopback)]
HttpUrl = Annotated[str, AfterValidator(check_http_url)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=604_800)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class DatabaseSettings(Section):
    url: Annotated[str, AfterValidator(check_database_url)] = Field(
        default="sqlite:////var/lib/oma/oma.db", repr=False, description="SQLAlchemy address; it may hold a password."
    )
    legacy_time_zone: str | None = Field(
        default=None, description="Zone of DATETIME columns in a foreign database; default: the server's own."
    )
    accept_weak_durability: bool = Field(
        default=False, description="Go on although the server may lose committed rows when it crashes."
    )
    readers: int = Field(default=4, ge=1, le=64, description="Threads that read.")


class CloudstackSettings(Section):
    url: HttpUrl | None = Field(default=None, description="API endpoint; default: the active row of ossea_configs.")
    api_key: SecretStr | None = None
    secret_key: SecretStr | None = None
    profile: str = Field(default="cloudstack", description="Section of cloudstack.ini, as the cs tool names it.")
    timeout_s: Seconds = 10.0
    expires_s: Seconds = Field(default=60.0, description="How long a signed call may be under way.")
    late_s: Seconds = Field(
        default=60.0, description="How long after that it may still come in, where no id tells that it never did."
    )
    job_expire_minutes: int = Field(
        default=1440, ge=1, description="CloudStack's own setting job.expire.minutes: how long it knows its jobs."
    )
    poll_min_s: Seconds = 0.05
    poll_max_s: Seconds = 2.0
    retry_attempts: int = Field(
        default=10, ge=1, le=100, description="Times that what certainly did not arrive is sent, or a question asked."
    )
    retry_total_s: Seconds = Field(default=20.0, description="Longest time that these attempts may take together.")
    retry_pause_s: Seconds = Field(default=5.0, description="Longest pause between two of them; the first is 0.2 s.")
    circuit_silences: int = Field(
        default=5, ge=1, le=1000, description="Silences in a row after which it is asked whether it answers at all."
    )
    circuit_pause_s: Seconds = Field(
        default=5.0, description="Longest time between two such trials while it does not; runs wait in the queue."
    )
    method: Literal["get", "post"] = "get"


class VolumeDaemonSettings(Section):
    url: HttpUrl = Field(default="http://127.0.0.1:8090", description="Where the OMA daemon finds the Volume Daemon.")
    host: Host = "127.0.0.1"
    port: Port = 8090
    timeout_s: Seconds = 10.0
    operation_timeout_s: Seconds = Field(default=60.0, description="An operation that takes longer is overdue.")
    cloudstack_wait_s: Seconds = Field(
        default=3600.0,
        description="Longest wait of an operation, before CloudStack is asked for it: for an answer, or for another's "
        "job on the volume.",
    )
    retry_attempts: int = Field(
        default=10, ge=1, le=100, description="Times that what certainly did not arrive is sent, or a question asked."
    )
    retry_total_s: Seconds = Field(default=20.0, description="Longest time that these attempts may take together.")
    retry_pause_s: Seconds = Field(default=5.0, description="Longest pause between two of them; the first is 0.2 s.")
    circuit_silences: int = Field(
        default=5, ge=1, le=1000, description="Silences in a row after which it is asked whether it answers at all."
    )
    circuit_pause_s: Seconds = Field(
        default=5.0, description="Longest time between two such trials while it does not; runs wait in the queue."
    )
    outstanding_per_vm: int = Field(
        default=2, ge=1, le=64, description="Attach and detach jobs sent per CloudStack VM."
    )
    device_root: Path = Path("/dev/disk/by-id")
    product_uuid_path: Path = Path("/sys/class/dmi/id/product_uuid")
    proc_root: Path = Field(default=Path("/proc"), description="Where the kernel shows processes and mounts.")
    sys_root: Path = Field(default=Path("/sys"), description="Where the kernel shows block devices.")
    holder_scope: Literal["everything", "readable"] = Field(
        default="everything",
        description="Whether a process that the scan for holders cannot read makes it unknown; "
        "readable passes it over, and is for the demo and for tests.",
    )
    holder_scan_timeout_s: Seconds = Field(default=10.0, description="A scan for holders that takes longer is unknown.")
    holder_term_s: Seconds = Field(
        default=10.0, description="Time that a process tree has to end after TERM, before KILL."
    )
    nbd_config_dir: Path = Path("/etc/nbd-server/conf.d")
    nbd_port: Annotated[int, Field(ge=1, le=65535)] = 10809
    nbd_reload_command: tuple[str, ...] | None = Field(
        default=None, description="Makes nbd-server read its files again."
    )
    oma_url: HttpUrl = Field(
        default="http://127.0.0.1:8082", description="Where the Volume Daemon finds the OMA daemon."
    )


class HttpSettings(Section):
    host: Host = "127.0.0.1"
    port: Port = 8082
    sync_wait_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=3300.0, description="Longest wait of a clean-up call; then it answers 202."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Host names besides loopback that changing requests may use."
    )


class OmaSettings(Section):
    identity: Literal["dmi", "volumes", "trust"] = "dmi"
    installation: str = Field(default="oma", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._-]+$")
    markers: Literal["required", "best_effort"] = Field(
        default="required", description="Whether a run goes on where our role may not tag volumes in CloudStack."
    )
    state_dir: Path | None = Field(
        default=None,
        description="Where the daemon notes its epoch; default: beside a SQLite file, else what systemd gives it.",
    )


class GuardSettings(Section):
    alive_s: Seconds = Field(
        default=900.0, description="A failover that wrote to its JobLog within this time is alive."
    )
    stuck_s: Seconds = Field(
        default=1800.0, description="A dead failover that has been quiet for so long gets an issue of the watcher."
    )
    stopped_again_s: Seconds = 60.0
    observe_timeout_s: Seconds = Field(default=20.0, description="Longest wait for what the other systems show.")


class WorkflowSettings(Section):
    busy_wait_s: Seconds = Field(default=600.0, description="Longest wait for a volume in transition.")
    settle_s: Seconds = Field(
        default=10.0, description="Longest wait until what an ended job has done is shown by CloudStack and the OMA."
    )
    stop_wait_s: Seconds = Field(
        default=900.0, description="Longest wait for a stop of the test VM; then the run parks and force may pass it."
    )
    max_jobs: int = Field(default=100, ge=1, le=1000, description="Jobs run at once; further ones stand queued.")
    stuck_s: Seconds = Field(
        default=3600.0, description="A job of ours that has not ended after so long gets an issue of the watcher."
    )
    lease_s: Seconds = 30.0
    stop_timeout_s: Seconds = Field(
        default=25.0, description="Time that a stop gives running jobs to reach a safe point."
    )


class RecoverySettings(Section):
    revert_window_s: Seconds = Field(
        default=5400.0, description="How long a hypervisor may work on after a revert's job ended without success."
    )
    revert_attempts: int = Field(default=2, ge=1, le=10, description="Attempts at a revert before the run parks.")
    job_recoveries: int = Field(
        default=5, ge=1, le=100, description="Times in a row that a job outlives its daemon before it parks."
    )


class LogSettings(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "console"] = "json"


class Settings(Section):
    """Everything that can be set. Built by `load_settings`; `Settings()` is all defaults."""

    database: DatabaseSettings = DatabaseSettings()
    cloudstack: CloudstackSettings = CloudstackSettings()
    volume_daemon: VolumeDaemonSettings = VolumeDaemonSettings()
    http: HttpSettings = HttpSettings()
    oma: OmaSettings = OmaSettings()
    guards: GuardSettings = GuardSettings()
    workflow: WorkflowSettings = WorkflowSettings()
    recovery: RecoverySettings = RecoverySettings()
    log: LogSettings = LogSettings()

    def as_shown(self) -> dict[str, Any]:
        """All values as JSON without secrets: what may be printed."""
        shown = self.model_dump(mode="json")
        for section, key in SECRETS:
            if shown[section][key] is not None:
                shown[section][key] = "**********"
        shown["database"]["url"] = without_password(self.database.url)
        return shown


SECRETS = (("cloudstack", "api_key"), ("cloudstack", "secret_key"))
FROM_FILES = (*SECRETS, ("database", "url"))
"""Keys that may also come from `<key>_file` and from systemd credentials."""


def without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    user, _, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}:***@{host}").geturl()


def load_settings(config: Path | None, env: Mapping[str, str]) -> Settings:
    """Reads the file (`config`, else `OMA_CONFIG`, else `/etc/oma/oma.toml` if there), then the variables over it.

    Raises `SettingsError` that names every bad and unknown key with its place.
    """
    path = config or (Path(env["OMA_CONFIG"]) if env.get("OMA_CONFIG") else None)
    must_exist = path is not None
    gathered = gather(path or DEFAULT_CONFIG, env, FROM_FILES, Settings, must_exist=must_exist)
    settings, faults = collect_faults(Settings, gathered)
    if faults or settings is None:
        raise SettingsError(faults)
    return settings
