"""A container's limits, as both versions of Linux's control groups tell them."""

import os
from pathlib import Path

import pytest
import torch

from anomaly_ae.runtime import machine
from anomaly_ae.storage import memmap

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where control groups lie, on a machine of eight cores."""
    monkeypatch.setattr(machine, "GROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    return tmp_path


def write(groups: Path, own: str, files: dict[str, str]) -> None:
    (groups / "own").write_text(own)
    for name, text in files.items():
        (groups / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / "groups" / name).write_text(text)


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n", "memory.max": "1000000\n"}, 2, 1_000_000),
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, 8, MACHINE),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000", "a/memory.max": "9"}, 1, 9),
        ("0::/not/there\n", {"memory.max": "7000", "cpu.max": "300000 100000"}, 3, 7000),
        (
            "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n",  # seen from within, where that folder is not there
            {
                "memory/memory.limit_in_bytes": "5000",
                "cpu/cpu.cfs_quota_us": "200000",
                "cpu/cpu.cfs_period_us": "100000",
            },
            2,
            5000,
        ),
        (
            "4:memory:/x\n3:cpu:/\n0::/\n",
            {
                "memory/x/memory.limit_in_bytes": str(2**63 - 4096),  # none
                "cpu/cpu.cfs_quota_us": "-1",
                "cpu/cpu.cfs_period_us": "100000",
                "unified/memory.max": "6000",
            },
            8,
            6000,
        ),
        ("nonsense", {}, 8, MACHINE),
    ],
)
def test_the_share_of_a_container_is_known(
    groups: Path, own: str, files: dict[str, str], cores: int, memory: int
) -> None:
    write(groups, own, files)
    assert machine.usable_cores() == cores
    assert machine.usable_memory() == memory
    assert memmap.memory_budget() == memory // memmap.SHARE


def test_without_control_groups_all_of_the_machine_is_usable(groups: Path) -> None:
    assert machine.usable_cores() == 8
    assert machine.usable_memory() == MACHINE


def test_room_on_the_disk_is_taken_where_it_cannot_be_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a Mac."""
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    monkeypatch.setattr(memmap, "memory_budget", lambda: 5)
    monkeypatch.setenv("ANOMALY_AE_CACHE", str(tmp_path))
    images = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    assert torch.equal(memmap.take_rows(images, torch.tensor([5, 0])), images[[5, 0]])
    turned = torch.rand(3, 4, 5, 2).permute(0, 3, 1, 2)
    assert torch.equal(memmap.take_rows(turned, torch.tensor([2, 1])), turned[[2, 1]])
