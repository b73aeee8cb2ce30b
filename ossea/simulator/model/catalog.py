"""The fixed parts of the cloud: zone, hosts, offerings, template, network, capabilities."""

from __future__ import annotations

from typing import Any

ZONE_ID = "8c5b1a34-0d6a-4d5e-9f52-3e1f6a9d0c01"
ZONE_NAME = "OSSEA-Zone"
HOST_ID = "5f1c7c7e-52c4-4f0c-8f4e-0c6d8a8b1f01"
HOST_NAME = "kvm-host-1"
DISK_OFFERING_ID = "c813c642-d946-49e1-9289-c616dd70206a"
DISK_OFFERING_NAME = "Custom"
SERVICE_OFFERING_ID = "8af173c3-7b1f-4f3a-a1e0-2f6f9c0d4b01"
TEMPLATE_ID = "07515c1a-0d20-425a-bf82-7cc1ac2f0e01"
NETWORK_ID = "d6b1a2d3-9ad0-4c6e-a2f4-6a4a6c6f9d01"
OS_TYPE_ID = "6a0c1b5e-3f52-4d4f-8c0e-2a9f3b7c1d01"
ACCOUNT = "admin"
DOMAIN = "ROOT"
DOMAIN_ID = "3c1a4f0e-8b72-4d11-9f0a-6f1d2c3b4a01"
USER_ID = "7b2f1d3c-4e5a-4f6b-8c7d-9e0f1a2b3c01"
ACCOUNT_ID = "9e8d7c6b-5a4f-4e3d-8c2b-1a0f9e8d7c01"
ROOT_DISK_GIBIBYTES = 8

ZONES: tuple[dict[str, Any], ...] = (
    {
        "id": ZONE_ID,
        "name": ZONE_NAME,
        "networktype": "Advanced",
        "securitygroupsenabled": False,
        "allocationstate": "Enabled",
        "dhcpprovider": "VirtualRouter",
        "localstorageenabled": False,
        "tags": [],
    },
)

DISK_OFFERINGS: tuple[dict[str, Any], ...] = (
    {
        "id": DISK_OFFERING_ID,
        "name": DISK_OFFERING_NAME,
        "displaytext": "Custom Disk",
        "disksize": 0,
        "iscustomized": True,
        "storagetype": "shared",
        "provisioningtype": "thin",
        "displayoffering": True,
    },
    {
        "id": "1b2c3d4e-5f60-4718-8293-a4b5c6d7e801",
        "name": "Small",
        "displaytext": "Small Disk, 5 GB",
        "disksize": 5,
        "iscustomized": False,
        "storagetype": "shared",
        "provisioningtype": "thin",
        "displayoffering": True,
    },
)

SERVICE_OFFERINGS: tuple[dict[str, Any], ...] = (
    {
        "id": SERVICE_OFFERING_ID,
        "name": "Medium Instance",
        "displaytext": "Medium Instance",
        "cpunumber": 2,
        "cpuspeed": 1000,
        "memory": 2048,
        "storagetype": "shared",
        "offerha": False,
        "limitcpuuse": False,
        "isvolatile": False,
        "issystem": False,
        "defaultuse": False,
        "iscustomized": False,
    },
)

TEMPLATES: tuple[dict[str, Any], ...] = (
    {
        "id": TEMPLATE_ID,
        "name": "blank",
        "displaytext": "Empty template for replicated VMs",
        "ispublic": True,
        "isready": True,
        "isfeatured": True,
        "isextractable": False,
        "passwordenabled": False,
        "format": "QCOW2",
        "hypervisor": "KVM",
        "ostypeid": OS_TYPE_ID,
        "ostypename": "Other (64-bit)",
        "account": ACCOUNT,
        "domain": DOMAIN,
        "domainid": DOMAIN_ID,
        "zoneid": ZONE_ID,
        "zonename": ZONE_NAME,
        "status": "Download Complete",
        "size": ROOT_DISK_GIBIBYTES << 30,
        "templatetype": "USER",
        "tags": [],
    },
)

NETWORKS: tuple[dict[str, Any], ...] = (
    {
        "id": NETWORK_ID,
        "name": "test-network",
        "displaytext": "Network of the test VMs",
        "traffictype": "Guest",
        "type": "Isolated",
        "state": "Implemented",
        "zoneid": ZONE_ID,
        "zonename": ZONE_NAME,
        "networkofferingid": "4d3c2b1a-6f5e-4a7b-8c9d-0e1f2a3b4c01",
        "cidr": "10.1.1.0/24",
        "tags": [],
    },
)

OS_TYPES: tuple[dict[str, Any], ...] = ({"id": OS_TYPE_ID, "description": "Other (64-bit)", "oscategoryid": "7"},)


def capabilities(version: str) -> dict[str, Any]:
    return {
        "securitygroupsenabled": False,
        "cloudstackversion": version,
        "userpublictemplateenabled": True,
        "supportELB": "false",
        "projectinviterequired": False,
        "allowusercreateprojects": True,
        "customdiskofferingminsize": 1,
        "customdiskofferingmaxsize": 1024,
        "regionsecondaryenabled": False,
        "kvmsnapshotenabled": True,
        "allowuserviewdestroyedvm": True,
        "allowuserexpungerecovervm": True,
    }
