"""Cards of a lab host, from a sysfs of ours as the command of `lab check` reads it."""

import subprocess

import pytest

from harness.lab import cards
from harness.lab.finding import CARD, MISSING, NOTE, OK

IPV4_GID = "0000:0000:0000:0000:0000:ffff:c0a8:0001"
DEVINFO = """#!/bin/sh
printf 'hca_id:\\t%s\\n\\tgeneral_odp_caps:\\n\\t\\t\\t\\t\\tODP_SUPPORT\\n\\t\\t\\t\\t\\tODP_SUPPORT_IMPLICIT\\n'
"""


def tree(
    top, name="mlx5_0", pci="0000:01:00.0", state="4: ACTIVE", gid=IPV4_GID, mtu="9000", driver="mlx5_core"
):
    """Make what the kernel shows of a card; attributes have a line break at the end there."""
    device = top / "devices" / pci
    for path in (
        device / "net" / "ens1",
        device / "iommu_group_" / "devices" / pci,
        top / "drivers" / driver,
    ):
        path.mkdir(parents=True, exist_ok=True)
    (device / "driver").symlink_to(top / "drivers" / driver)
    (device / "iommu_group").symlink_to(device / "iommu_group_")
    port = top / "infiniband" / name / "ports" / "1"
    for folder in (port / "gid_attrs" / "types", port / "gids"):
        folder.mkdir(parents=True)
    (top / "infiniband" / name / "device").symlink_to(device)
    files = {
        device / "numa_node": "0",
        device / "current_link_speed": "8.0 GT/s PCIe",
        device / "current_link_width": "8",
        device / "max_link_speed": "16.0 GT/s PCIe",
        device / "max_link_width": "16",
        device / "sriov_numvfs": "0",
        device / "net" / "ens1" / "mtu": mtu,
        top / "infiniband" / name / "fw_ver": "16.35.4030",
        top / "infiniband" / name / "board_id": "MT_0000000080",
        top / "infiniband" / name / "hca_type": "MT4119",
        port / "state": state,
        port / "link_layer": "Ethernet",
        port / "rate": "100 Gb/sec (4X EDR)",
        port / "gid_attrs" / "types" / "3": "RoCE v2",
        port / "gids" / "3": gid,
    }
    for path, text in files.items():
        path.write_text(text + "\n")


@pytest.fixture
def findings(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ibv_devinfo").write_text(DEVINFO)
    (tmp_path / "bin" / "ibv_devinfo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")

    def look():
        command = cards.COMMAND.replace("/sys/class/infiniband", str(tmp_path / "infiniband"))
        result = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
        assert result.stderr == ""
        return {each.name: each for each in cards.card_findings(result.stdout)}

    return look


def test_a_card_that_is_up_could_be_used(findings, tmp_path):
    """Mutation: read another file for a fact; or leave out the port."""
    tree(tmp_path)
    found = findings()
    assert (found["ConnectX"].state, found["ConnectX"].text) == (OK, "could be used: mlx5_0")
    assert found["mlx5_0"].text == ("MT4119, firmware 16.35.4030, board MT_0000000080, 0000:01:00.0, node 0")
    assert found["mlx5_0 link"].text == "8.0 GT/s PCIe x8, the card can do 16.0 GT/s PCIe x16"
    assert found["mlx5_0 port"].text == "4: ACTIVE; Ethernet 100 Gb/sec (4X EDR); ens1 mtu 9000"
    assert found["mlx5_0 ODP"].text == "odp_support, odp_support_implicit"
    assert "of 1 devices, 0 virtual functions" in found["mlx5_0 IOMMU"].text


@pytest.mark.parametrize(
    ("change", "row", "hint"),
    [
        ({"state": "1: DOWN"}, "mlx5_0 port", "cable"),
        ({"gid": "fe80:0000:0000:0000:0000:0000:0000:0001"}, "mlx5_0 port", "ip address add"),
    ],
)
def test_a_port_that_is_down_or_without_address_is_missing(findings, tmp_path, change, row, hint):
    """Mutation: take any port for good."""
    tree(tmp_path, **change)
    found = findings()
    assert found["ConnectX"].state == found[row].state == MISSING
    assert hint in found[row].hint and CARD in found[row].needed


def test_one_good_card_is_enough(findings, tmp_path):
    """Mutation: let the other card's port count against the host."""
    tree(tmp_path)
    tree(tmp_path, "mlx5_1", "0000:02:00.0", state="1: DOWN")
    found = findings()
    assert found["ConnectX"].text == "could be used: mlx5_0"
    assert found["mlx5_1 port"].state == MISSING and not found["mlx5_1 port"].in_the_way


def test_a_small_mtu_is_said(findings, tmp_path):
    """Mutation: compare with the RDMA MTU instead of the network device's."""
    tree(tmp_path, mtu="1500")
    assert "plans with an MTU of 4096 do not run" in findings()["mlx5_0 port"].text


def test_other_devices_are_no_cards(findings, tmp_path):
    """Mutation: take each RDMA device for a card."""
    tree(tmp_path, "rxe0", driver="rdma_rxe")
    assert findings()["ConnectX"].text == "none is bound to mlx5_core"
    assert findings()["ConnectX"].state == MISSING != NOTE


def test_without_odp_reported_a_card_cannot_be_used(findings, tmp_path):
    """Mutation: take a card without capabilities for good."""
    tree(tmp_path)
    (tmp_path / "bin" / "ibv_devinfo").write_text("#!/bin/sh\necho failed\n")
    assert findings()["ConnectX"].state == MISSING
