"""Caches, threads and quotas as /proc and /sys state them."""

import pytest

from convgen.targets.detect import DEFAULT_CACHES, cpu_quota, machine, usable_threads

CACHE = "sys/devices/system/cpu/cpu{cpu}/cache/index{index}/{name}"


def cache_files(cpu, rows):
    files = {}
    for index, (level, kind, size) in enumerate(rows):
        for name, text in (("level", level), ("type", kind), ("size", size)):
            files[CACHE.format(cpu=cpu, index=index, name=name)] = f"{text}\n"
    return files


def test_caches_are_read_from_sysfs_and_instruction_caches_ignored(describe):
    rows = [(1, "Data", "48K"), (1, "Instruction", "64K"), (2, "Unified", "2048K"), (3, "Unified", "105M")]
    here = machine(describe(files=cache_files(0, rows)), affinity={0})
    assert (here.l1, here.l2, here.l3) == (48 << 10, 2 << 20, 105 << 20)


def test_caches_are_those_of_the_first_processor_this_process_may_use(describe):
    root = describe(files=cache_files(0, [(1, "Data", "48K")]) | cache_files(4, [(1, "Data", "32K")]))
    assert machine(root, affinity={4, 5}).l1 == 32 << 10


def test_caches_have_stated_defaults_without_sysfs(describe):
    here = machine(describe(), affinity={0})
    assert {"l1": here.l1, "l2": here.l2, "l3": here.l3} == DEFAULT_CACHES


def test_only_the_first_processor_of_cpuinfo_counts(describe):
    assert machine(describe(model=68), affinity={0}).model == 68


def test_a_machine_without_any_files_is_unknown_but_described(tmp_path):
    here = machine(tmp_path, affinity={0, 1, 2})
    assert (here.vendor, here.flags, here.threads) == ("unknown", frozenset(), 3)


def test_siblings_are_one_core(describe):
    place = "sys/devices/system/cpu/cpu{}/topology/{}"
    files = {place.format(cpu, "physical_package_id"): "0" for cpu in range(4)}
    files |= {place.format(cpu, "core_id"): str(cpu // 2) for cpu in range(4)}
    here = machine(describe(files=files), affinity={0, 1, 2, 3})
    assert (here.cores, here.threads) == (2, 4)


QUOTAS = {
    "none": ({}, None),
    "v2 unlimited": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    "v2 at the root of a container": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
    "v2 limit of a parent": ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                              "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 2.0),
    "v2 path outside the namespace": ({"proc/self/cgroup": "0::/host/pod\n", "sys/fs/cgroup/cpu.max": "300000 100000\n"}, 3.0),
    "v1": ({"proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/box\n", "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_quota_us": "250000\n",
            "sys/fs/cgroup/cpu,cpuacct/box/cpu.cfs_period_us": "100000\n"}, 2.5),
    "v1 unlimited": ({"proc/self/cgroup": "1:cpu:/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                      "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
    "the tighter of two": ({"proc/self/cgroup": "1:cpu:/\n0::/\n", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000",
                            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000", "sys/fs/cgroup/unified/cpu.max": "100000 100000"}, 1.0),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_quota(describe, case):
    files, expected = QUOTAS[case]
    assert cpu_quota(describe(files=files)) == expected


@pytest.mark.parametrize("quota, affinity, expected", [("150000 100000", 8, 1), ("50000 100000", 8, 1), ("max 100000", 3, 3), ("800000 100000", 2, 2)])
def test_threads_are_affinity_within_quota_and_at_least_one(describe, quota, affinity, expected):
    root = describe(files={"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": quota})
    assert usable_threads(root, set(range(affinity))) == expected


def test_this_machine_is_described():
    here = machine()
    assert here.threads >= 1 and here.l1 >= 8 << 10
