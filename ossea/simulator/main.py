"""The `ossea-sim` command."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click


@click.group()
def main() -> None:
    """A CloudStack API simulator with asynchronous jobs, volumes that have bytes, and faults on demand."""


@main.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; loopback only.")
@click.option("--port", default=8080, show_default=True, help="Port of the CloudStack API (0: any free one).")
@click.option("--admin-port", default=8079, show_default=True, help="Port of the admin API (0: any free one).")
@click.option("--state-dir", type=click.Path(path_type=Path), required=True, help="State and the volumes' bytes.")
@click.option("--device-root", type=click.Path(path_type=Path), required=True, help="Where the OMA's devices appear.")
@click.option("--oma-vm-id", required=True, help="Id of the VM whose devices appear under --device-root.")
@click.option("--api-key", required=True, help="The only API key that is known.")
@click.option("--secret-key", required=True, envvar="OSSEA_SIM_SECRET_KEY", help="Its secret.")
@click.option(
    "--devices",
    type=click.Choice(["auto", "loop", "file"]),
    default="auto",
    show_default=True,
    help="A device is a loop device, or a link to the volume's file; auto tries.",
)
def serve_command(  # noqa: PLR0917
    host: str,
    port: int,
    admin_port: int,
    state_dir: Path,
    device_root: Path,
    oma_vm_id: str,
    api_key: str,
    secret_key: str,
    devices: str,
) -> None:
    """Serve until SIGTERM; prints one line of JSON with both addresses when it listens."""
    from ossea.simulator.admin import is_loopback  # noqa: PLC0415  the command's help needs no server
    from ossea.simulator.devices import NoLoopDevices  # noqa: PLC0415
    from ossea.simulator.server import Listen, serve  # noqa: PLC0415
    from ossea.simulator.service import Place  # noqa: PLC0415

    if not is_loopback(host):
        raise click.BadParameter(f"{host} is not a loopback address", param_hint="--host")
    place = Place(state_dir.absolute(), device_root.absolute(), oma_vm_id.lower(), devices)
    try:
        asyncio.run(serve(place, Listen(host, port, admin_port, api_key, secret_key)))
    except NoLoopDevices as error:
        raise click.ClickException(str(error)) from None
    except OSError as error:
        raise click.ClickException(f"cannot serve: {error}") from None
