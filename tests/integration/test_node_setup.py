"""A board's set-up in a throw-away root: what it writes, says, leaves alone and takes back.

`systemctl`, `nvpmodel` and the like are small scripts that record how they were called and keep
what they were told, so that a second run meets the state that the first one made.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, require_program

SETUP = ROOT / "deploy" / "node-setup"
NAMES = [
    "systemctl",
    "nvpmodel",
    "sysctl",
    "modprobe",
    "chronyc",
    "exportfs",
    "k3s",
    "kill",
    "sleep",
]
STUB = r"""#!/bin/sh
name=$(basename "$0")
state=$(dirname "$0")/../state
echo "$name $*" >>"$state/calls"
case "$name $1" in
"systemctl is-enabled") test -e "$state/enabled.$3" ;;
"systemctl is-active") test -e "$state/active.$3" ;;
"systemctl enable") touch "$state/enabled.$2" ;;
"systemctl disable") rm -f "$state/enabled.$2" ;;
"systemctl start") touch "$state/active.$2" ;;
"systemctl stop") rm -f "$state/active.$2" ;;
"nvpmodel -q") printf 'NV Power Mode: X\n%s\n' "$(cat "$state/power")" ;;
"nvpmodel -m") echo "$2" >"$state/power" ;;
"sysctl -n") cat "$state/sysctl.$2" ;;
"sysctl -q") echo "${3#*=}" >"$state/sysctl.${3%%=*}" ;;
"modprobe --dry-run") test ! -e "$state/missing.$3" ;;
modprobe*) mkdir -p "$state/../root/sys/module/$1" ;;
"chronyc -n") cat "$state/tracking" ;;
"k3s --version") cat "$state/version" ;;
"k3s kubectl") test ! -e "$state/no-api-server" ;;
kill*) : >"$state/../root/sys/fs/cgroup/kubepods/pod1/cgroup.procs" ;;
esac
"""
SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    "net.ipv6.conf.lo.disable_ipv6": "0",
    "vm.overcommit_memory": "0",
    "vm.panic_on_oom": "0",
    "kernel.panic": "0",
    "kernel.panic_on_oops": "0",
}


class Board:
    """A root folder, its stub programs, and the settings file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.state = folder, folder / "root", folder / "state"
        for path in (self.root / "usr/local/bin", self.root / "usr/bin", self.state):
            path.mkdir(parents=True)
        (folder / "commands").mkdir()
        for name in NAMES:
            self.program(folder / "commands" / name, STUB)
        self.program(self.root / "usr/local/bin/k3s", "#!/bin/sh\n")
        self.program(self.root / "usr/bin/nvidia-container-runtime", "#!/bin/sh\n")
        (self.state / "power").write_text("1\n")
        (self.state / "version").write_text("k3s version v1.33.5+k3s1 (abc)\n")
        (self.state / "tracking").write_text("Leap status     : Normal\n")
        (self.state / "enabled.nvzramconfig.service").touch()
        (self.state / "active.nvzramconfig.service").touch()
        for key, value in SYSCTLS.items():
            (self.state / f"sysctl.{key}").write_text(value + "\n")
        self.settings = folder / "board.env"
        self.configure(
            TIME_SERVERS="10.0.0.1",
            NFS_ROLE="server",
            NFS_CLIENTS="10.0.0.0/28",
            REGISTRY="https://registry.local:5000",
        )

    @staticmethod
    def program(path: Path, text: str) -> None:
        path.write_text(text)
        path.chmod(0o755)

    def configure(self, **settings: str) -> None:
        self.settings.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))

    def run(
        self,
        *arguments: str,
        program: str = "board.sh",
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        given = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.folder),
            "ROOT": str(self.root),
            "COMMANDS": str(self.folder / "commands"),
        }
        return subprocess.run(
            [SETUP / program, *arguments, "--config", self.settings],
            env=given if environment is None else {"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def must(self, *arguments: str, program: str = "board.sh") -> str:
        done = self.run(*arguments, program=program)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def calls(self) -> list[str]:
        """What was told to the system since the last time; questions left out."""
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        asks = ("is-", " -q\n", "sysctl -n", "--dry-run", "chronyc", "--version")
        return [line for line in lines if not any(ask in line + "\n" for ask in asks)]

    def tree(self) -> dict[str, tuple[int, str]]:
        return {
            str(path.relative_to(self.folder)): (
                path.lstat().st_mode,
                path.read_text() if path.is_file() else "",
            )
            for folder in (self.root, self.state)
            for path in sorted(folder.rglob("*"))
            if path.name != "calls"
        }

    def text(self, path: str) -> str:
        return (self.root / path).read_text()


@pytest.fixture
def board(tmp_path: Path) -> Board:
    return Board(tmp_path)


def test_a_dry_run_tells_everything_and_changes_nothing(board: Board) -> None:
    before = board.tree()
    told = board.must("apply", "--dry-run")
    assert "would write /etc/rancher/k3s/config.yaml" in told
    assert "would change the power mode from 1 to 0" in told
    assert board.tree() == before
    assert board.calls() == []


def test_a_check_says_what_differs_ends_with_1_and_changes_nothing(board: Board) -> None:
    before = board.tree()
    done = board.run("check")
    assert done.returncode == 1
    assert "power: differs: should change the power mode from 1 to 0" in done.stdout
    assert "network: differs: should set net.ipv6.conf.all.disable_ipv6 from 0 to 1" in done.stdout
    assert board.tree() == before
    assert board.calls() == []


def test_a_second_run_and_a_check_find_nothing_to_do(board: Board) -> None:
    board.must("apply")
    before = board.tree()
    assert "nvpmodel -m 0" in board.calls()
    again = board.must("apply")
    assert again.count("as it should be") == 10
    assert board.tree() == before
    assert board.calls() == []
    assert board.run("check").returncode == 0
    (board.state / "active.k3s.service").unlink()
    (board.root / "etc/exports.d/dicomnode.exports").write_text("/srv *(rw)\n")
    done = board.run("check")
    assert done.returncode == 1
    assert "k3s: differs: should start k3s.service" in done.stdout
    assert "storage: differs: should replace /etc/exports.d/dicomnode.exports" in done.stdout


def test_remove_goes_all_the_way_back(board: Board) -> None:
    chrony = board.root / "etc/chrony/chrony.conf"
    chrony.parent.mkdir(parents=True)
    chrony.write_text("pool of the distribution\n")
    chrony.chmod(0o640)
    before = board.tree()
    board.must("apply")
    assert "server 10.0.0.1 iburst" in chrony.read_text()
    applied = board.tree()
    assert "would put back /etc/chrony/chrony.conf" in board.must("remove", "--dry-run")
    assert board.tree() == applied
    board.must("remove")
    after = board.tree()
    data = ("srv", "root/var", "root/sys", "root/etc/rancher/k3s/token")
    left = {
        name: what
        for name, what in after.items()
        if before.get(name) != what and name.startswith("root/") and what[1]
    }
    assert [name for name in left if not name.startswith(data)] == []
    assert chrony.read_text() == "pool of the distribution\n"
    assert chrony.stat().st_mode & 0o777 == 0o640
    state = {name: what for name, what in after.items() if name.startswith("state/")}
    # chrony belongs to the distribution and keeps running
    assert {n for n in state if before.get(n) != state[n]} == {
        "state/enabled.chrony.service",
        "state/active.chrony.service",
        "state/enabled.nfs-kernel-server.service",
        "state/active.nfs-kernel-server.service",
    }


def test_what_somebody_else_wrote_or_edited_is_never_lost(board: Board) -> None:
    registries = board.root / "etc/rancher/k3s/registries.yaml"
    registries.parent.mkdir(parents=True)
    registries.write_text("theirs\n")
    board.must("apply", "registry")
    kept = board.root / "var/lib/dicomnode-setup"
    assert (kept / "backup/%etc%rancher%k3s%registries.yaml").read_text() == "theirs\n"
    registries.write_text("edited by hand\n")
    board.must("apply", "registry")
    assert (kept / "edited/%etc%rancher%k3s%registries.yaml.1").read_text() == "edited by hand\n"
    assert (kept / "backup/%etc%rancher%k3s%registries.yaml").read_text() == "theirs\n"
    registries.write_text("edited again\n")
    board.must("remove", "registry")
    assert (kept / "edited/%etc%rancher%k3s%registries.yaml.2").read_text() == "edited again\n"
    assert registries.read_text() == "theirs\n"


def test_a_link_is_replaced_and_what_it_leads_to_is_not_written(board: Board) -> None:
    target = board.folder / "elsewhere"
    target.write_text("theirs\n")
    file = board.root / "etc/chrony/chrony.conf"
    file.parent.mkdir(parents=True)
    file.symlink_to(target)
    board.must("apply", "clock")
    assert not file.is_symlink()
    assert target.read_text() == "theirs\n"
    board.must("remove", "clock")
    assert file.readlink() == target


def test_the_server_settings_are_what_k3s_reads(board: Board) -> None:
    board.must("apply", "k3s")
    settings = yaml.safe_load(board.text("etc/rancher/k3s/config.yaml"))
    assert settings["disable"] == ["traefik", "metrics-server"]
    assert settings["secrets-encryption"] is True
    assert settings["write-kubeconfig-mode"] == "0600"
    assert settings["disable-default-registry-endpoint"] is True
    assert "fail-swap-on=false" in settings["kubelet-arg"]
    assert "server" not in settings
    assert "cluster-init" not in settings
    token = board.root / "etc/rancher/k3s/token"
    assert len(token.read_text().strip()) == 64
    assert token.stat().st_mode & 0o777 == 0o600
    unit = board.text("etc/systemd/system/k3s.service")
    assert "ExecStart=/usr/local/bin/k3s server" in unit
    assert "waitsync" in unit


@pytest.mark.parametrize(("role", "unit"), [("server", "k3s"), ("agent", "k3s-agent")])
def test_a_cluster_that_nobody_restarts_does_not_end_with_its_certificates(
    board: Board, role: str, unit: str
) -> None:
    """k3s renews them at its start only, and only in their last 90 of 365 days."""
    token = board.folder / "token"
    token.write_text("secret\n")
    board.configure(ROLE=role, SERVER_ADDRESS="10.0.0.2", TOKEN_SOURCE=str(token))
    board.must("apply", "k3s")
    assert "systemctl enable dicomnode-k3s-renew.timer" in board.calls()
    renewed = board.text("etc/systemd/system/dicomnode-k3s-renew.service")
    assert f"ExecStart=/bin/systemctl try-restart {unit}.service" in renewed
    assert "KillMode=process" in board.text(f"etc/systemd/system/{unit}.service"), "pods go on"
    assert "OnCalendar=*-*-15" in board.text("etc/systemd/system/dicomnode-k3s-renew.timer")


def test_databases_can_be_kept_off_the_sd_card(board: Board) -> None:
    board.configure(LOCAL_STORAGE="/srv/local")
    board.must("apply", "k3s")
    settings = yaml.safe_load(board.text("etc/rancher/k3s/config.yaml"))
    assert settings["default-local-storage-path"] == "/srv/local"
    unit = board.text("etc/systemd/system/k3s.service")
    before, _, _ = unit.partition("[Service]")
    assert 'RequiresMountsFor="/srv/local"' in before.splitlines(), "or an empty folder is used"


def test_the_token_is_never_said(board: Board) -> None:
    said = board.must("apply") + board.must("status") + board.must("apply")
    assert board.text("etc/rancher/k3s/token").strip() not in said


def test_an_agent_joins_with_the_token_of_the_server(board: Board) -> None:
    token = board.folder / "token"
    board.configure(ROLE="agent", SERVER_ADDRESS="10.0.0.2", TOKEN_SOURCE=str(token))
    done = board.run("apply", "k3s")
    assert done.returncode == 1
    assert "TOKEN_SOURCE" in done.stderr
    token.write_text("secret\n")
    board.must("apply", "k3s")
    settings = yaml.safe_load(board.text("etc/rancher/k3s/config.yaml"))
    assert settings["server"] == "https://10.0.0.2:6443"
    assert settings["token-file"] == "/etc/rancher/k3s/token"
    assert "disable" not in settings
    assert board.text("etc/rancher/k3s/token") == "secret\n"
    assert "systemctl start k3s-agent.service" in board.calls()


@pytest.mark.parametrize(("minor", "told"), [(30, False), (31, True), (35, True)])
def test_a_kernel_with_cgroup_v1_is_admitted_in_the_way_of_its_k3s(
    board: Board, minor: int, told: bool
) -> None:
    (board.root / "sys/fs/cgroup").mkdir(parents=True)
    (board.state / "version").write_text(f"k3s version v1.{minor}.1+k3s1 (abc)\n")
    board.must("apply", "k3s")
    assert ("fail-cgroupv1=false" in board.text("etc/rancher/k3s/config.yaml")) is told


def test_a_module_that_is_part_of_the_kernel_is_not_loaded_again_and_again(board: Board) -> None:
    folder = board.root / "lib/modules" / os.uname().release
    folder.mkdir(parents=True)
    (folder / "modules.builtin").write_text("kernel/net/bridge/br_netfilter.ko\n")
    assert "load the module vxlan" in (told := board.must("apply", "kernel"))
    assert "load the module br_netfilter" not in told
    assert "as it should be" in board.must("apply", "kernel")


def test_a_kernel_without_ip_set_is_a_problem_until_someone_decides(board: Board) -> None:
    (board.state / "missing.ip_set").touch()
    done = board.run("apply")
    assert done.returncode == 1
    assert "NetworkPolicies" in done.stderr
    assert "stopped at step kernel" in done.stderr
    assert not (board.root / "etc/rancher").exists()
    board.configure(NETWORK_POLICY="off")
    board.must("apply")
    settings = yaml.safe_load(board.text("etc/rancher/k3s/config.yaml"))
    assert settings["disable-network-policy"] is True


def test_folders_are_exported_to_those_who_are_named_and_to_nobody_else(board: Board) -> None:
    board.must("apply", "storage")
    lines = board.text("etc/exports.d/dicomnode.exports").splitlines()
    assert [line.split("(")[0] for line in lines] == [
        f"/srv/dicomnode/{name} 10.0.0.0/28" for name in ("store", "models", "dataset", "work")
    ]
    assert all("all_squash,anonuid=10001" in line and "(rw,sync," in line for line in lines)
    assert (board.root / "srv/dicomnode/store").stat().st_mode & 0o777 == 0o770
    assert "exportfs -ra" in board.calls()


def test_an_nfs_client_mounts_on_first_use(board: Board) -> None:
    board.configure(NFS_ROLE="client", NFS_SERVER="10.0.0.2")
    board.must("apply", "storage")
    unit = board.text("etc/systemd/system/mnt-dicomnode-store.mount")
    assert "What=10.0.0.2:/srv/dicomnode/store" in unit
    assert "Where=/mnt/dicomnode/store" in unit
    assert "systemctl start mnt-dicomnode-store.automount" in board.calls()
    assert "systemctl start mnt-dicomnode-store.mount" not in board.calls()


@pytest.mark.parametrize("found", ["", "/usr/bin/nvidia-container-runtime"])
@pytest.mark.parametrize(
    ("name", "plugin"),
    [
        ("config.toml.tmpl", "io.containerd.grpc.v1.cri"),
        ("config-v3.toml.tmpl", "io.containerd.cri.v1.runtime"),
    ],
)
def test_containerd_gets_the_nvidia_runtime_once_whether_or_not_k3s_found_it(
    board: Board, name: str, plugin: str, found: str
) -> None:
    """kubectl renders the template, as it knows the language that k3s renders it with."""
    here = Path(sys.executable).parent
    kubectl = require_program("kubectl", path=f"/usr/local/bin:/usr/bin:/bin:{here}")
    board.must("apply", "nvidia")
    folder = "var/lib/rancher/k3s/agent/etc/containerd"
    table = f'[plugins."{plugin}".containerd.runtimes."nvidia"'
    known = [f"{table}]", 'runtime_type = "x"', f"{table}.options]", f'BinaryName = "{found}"']
    base = "\n".join(known if found else ["[grpc]"])
    template = f'{{{{ define "base" }}}}{base}{{{{ end }}}}'
    (board.folder / "template").write_text(template + board.text(f"{folder}/{name}"))
    values = {"ExtraRuntimes": {"nvidia": {"BinaryName": found}}, "metadata": {"name": "x"}}
    (board.folder / "values.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "ConfigMap", **values})
    )
    output = f"go-template-file={board.folder / 'template'}"
    done = subprocess.run(
        [kubectl, "label", "--local", "-f", board.folder / "values.json", "a=b", "-o", output],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rendered = tomllib.loads(done.stdout)
    runtime = rendered["plugins"][plugin]["containerd"]["runtimes"]["nvidia"]
    assert runtime["options"]["BinaryName"] == "/usr/bin/nvidia-container-runtime"
    board.configure(NVIDIA="no")
    board.must("apply", "nvidia")
    assert not (board.root / folder / name).exists()


def test_an_nvidia_runtime_that_is_wanted_and_not_there_is_a_problem(board: Board) -> None:
    (board.root / "usr/bin/nvidia-container-runtime").unlink()
    assert "no NVIDIA runtime wanted" in board.must("apply", "nvidia")
    board.configure(NVIDIA="yes")
    done = board.run("apply", "nvidia")
    assert done.returncode == 1
    assert "nvidia-container-toolkit" in done.stderr


def test_a_mirror_stands_for_every_public_registry(board: Board) -> None:
    board.configure(REGISTRY="https://registry.local:5000", REGISTRY_CA="/etc/ssl/hospital.pem")
    board.must("apply", "registry")
    written = yaml.safe_load(board.text("etc/rancher/k3s/registries.yaml"))
    assert set(written["mirrors"]) >= {"docker.io", "registry.k8s.io", "nvcr.io"}
    assert all(
        mirror == {"endpoint": ["https://registry.local:5000"]}
        for mirror in written["mirrors"].values()
    )
    tls = {"ca_file": "/etc/ssl/hospital.pem"}
    assert written["configs"] == {"registry.local:5000": {"tls": tls}}
    board.configure()
    board.must("apply", "registry")
    assert not (board.root / "etc/rancher/k3s/registries.yaml").exists()


def test_a_clock_that_is_not_synchronised_is_found_by_a_look(board: Board) -> None:
    board.must("apply", "clock")
    (board.state / "tracking").write_text("Leap status     : Not synchronised\n")
    assert "not synchronised yet" in board.must("apply", "clock")
    done = board.run("check", "clock")
    assert done.returncode == 1
    assert "UDP port 123" in done.stderr


def test_a_machine_without_nvpmodel_is_left_alone(board: Board) -> None:
    (board.folder / "commands/nvpmodel").unlink()
    assert "not a Jetson" in board.must("apply", "power")
    assert not (board.root / "etc/systemd").exists()


def test_stop_drains_ends_the_pods_and_start_lets_them_come_back(board: Board) -> None:
    (board.root / "sys/fs/cgroup").mkdir(parents=True)
    (board.root / "sys/fs/cgroup/cgroup.controllers").touch()
    board.must("apply")
    procs = board.root / "sys/fs/cgroup/kubepods/pod1/cgroup.procs"
    procs.parent.mkdir(parents=True)
    procs.write_text("4001\n4002\n")
    other = board.root / "sys/fs/cgroup/system.slice/cgroup.procs"
    other.parent.mkdir(parents=True)
    other.write_text("17\n")
    board.calls()
    board.must("stop", "--dry-run")
    assert board.calls() == []
    board.must("stop")
    calls = board.calls()
    node = os.uname().nodename
    assert calls[0].startswith(f"k3s kubectl drain {node} ")
    assert calls[1:3] == ["systemctl stop k3s.service", "kill -s TERM 4001 4002"]
    assert board.run("check", "k3s").returncode == 1
    board.must("start")
    assert board.run("check", "k3s").returncode == 0
    assert board.calls() == ["systemctl start k3s.service", f"k3s kubectl uncordon {node}"]


def test_stop_works_without_an_api_server(board: Board) -> None:
    board.must("apply")
    (board.state / "no-api-server").touch()
    assert "is not drained" in board.must("stop")
    assert "systemctl stop k3s.service" in board.calls()


def test_pods_that_do_not_end_are_killed_and_the_wait_has_an_end(board: Board) -> None:
    board.must("apply", "k3s")
    procs = board.root / "sys/fs/cgroup/kubepods/pod1/cgroup.procs"
    procs.parent.mkdir(parents=True)
    procs.write_text("4001\n")
    board.program(
        board.folder / "commands/kill", '#!/bin/sh\necho "$*" >>"$(dirname "$0")/../kills"\n'
    )
    done = subprocess.run(
        [SETUP / "steps/pods.sh", "remove", "--config", board.settings],
        env={
            "PATH": os.environ["PATH"],
            "ROOT": str(board.root),
            "COMMANDS": str(board.folder / "commands"),
            "GRACE_SECONDS": "3",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "processes of pods do not end: 4001" in done.stderr
    kills = (board.folder / "kills").read_text().splitlines()
    assert kills[0] == "-s TERM 4001"
    assert kills[-1] == "-s KILL 4001"


def test_reinstall_keeps_the_clusters_data(board: Board) -> None:
    board.must("apply")
    data = board.root / "var/lib/rancher/k3s/server/db/state.db"
    data.parent.mkdir(parents=True)
    data.write_text("rows")
    token = board.text("etc/rancher/k3s/token")
    settings = board.text("etc/rancher/k3s/config.yaml")
    board.calls()
    board.must("reinstall")
    told = [line for line in board.calls() if line.startswith("k3s kubectl")]
    assert [line.split()[2] for line in told] == ["drain", "uncordon"]
    assert data.read_text() == "rows"
    assert board.text("etc/rancher/k3s/token") == token
    assert board.text("etc/rancher/k3s/config.yaml") == settings
    assert (board.state / "active.k3s.service").exists()


def test_the_installed_copy_finds_the_board_as_it_should_be(board: Board) -> None:
    board.must("apply")
    installed = board.root / "usr/local/lib/dicomnode-setup"
    names = {path.relative_to(installed) for path in installed.rglob("*") if path.is_file()}
    assert names == {path.relative_to(SETUP) for path in SETUP.rglob("*") if path.is_file()}
    board.settings.unlink()
    done = subprocess.run(
        [installed / "board.sh", "check", "--config", board.root / "etc/dicomnode/board.env"],
        env={
            "PATH": os.environ["PATH"],
            "ROOT": str(board.root),
            "COMMANDS": str(board.folder / "commands"),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_a_running_system_the_files_are_written_and_the_rest_is_said(board: Board) -> None:
    """An SD card on a workstation: nothing of the workstation is asked or told."""
    shutil.rmtree(board.folder / "commands")
    (board.folder / "commands").mkdir()
    told = board.must("apply", "kernel", "swap", "network", "k3s")
    assert "left for the board itself: systemctl enable --now k3s.service" in told
    assert "left for the board itself: sysctl -p" in told
    assert (board.root / "etc/systemd/system/k3s.service").exists()


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("ROLE=king", "ROLE must be one of: server agent"),
        ("ROL=server", "'ROL' is not a setting"),
        ("ROLE=agent", "SERVER_ADDRESS is empty"),
        ("just words", "not a setting"),
        ("NODE_NAME=$(touch /tmp/x)", "NODE_NAME has a character other than"),
        ("NODE_NAME=a;b", "NODE_NAME has a character other than"),
        ("ZRAM_PERCENT=300", "ZRAM_PERCENT must be a number from 0 to 100"),
        ("NFS_FOLDER=srv", "NFS_FOLDER must be an absolute path"),
        ("NFS_FOLDER=/srv/../etc", "must not go upward"),
        ("NFS_MOUNT=/mnt/my-share", "NFS_MOUNT must have no '-'"),
        ("NFS_ROLE=server", "NFS_CLIENTS is empty"),
    ],
)
def test_a_wrong_setting_is_named_before_anything_is_done(
    board: Board, line: str, told: str
) -> None:
    board.settings.write_text(line + "\n")
    before = board.tree()
    done = board.run("apply")
    assert done.returncode == 2
    assert told in done.stderr
    assert board.tree() == before


def test_the_example_settings_are_the_defaults(board: Board) -> None:
    shutil.copy(SETUP / "board.env.example", board.settings)
    said = board.must("apply", "--dry-run")
    board.configure()
    assert board.must("apply", "--dry-run") == said


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to stop being root")
@pytest.mark.parametrize("verb", ["apply", "remove", "check", "reinstall"])
def test_without_root_rights_and_without_a_root_folder_nothing_is_done(
    board: Board, verb: str
) -> None:
    for folder in (board.folder, *list(board.folder.parents)[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    nobody = [require_program("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups"]
    setup = shutil.copytree(SETUP, board.folder / "setup")
    done = subprocess.run(
        [*nobody, setup / "board.sh", verb, "--config", board.settings],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "must run as root, not as uid 65534" in done.stderr


def test_stubs_are_only_for_a_root_folder(board: Board) -> None:
    done = board.run("check", "power", environment={"COMMANDS": str(board.folder / "commands")})
    assert done.returncode == 2
    assert "COMMANDS is only for use with ROOT" in done.stderr


def test_zram_takes_the_share_of_memory_it_was_told_and_gives_it_back(tmp_path: Path) -> None:
    commands, root = tmp_path / "commands", tmp_path / "root"
    for folder in (commands, root / "run", root / "proc", root / "sys/class/zram-control"):
        folder.mkdir(parents=True)
    (root / "sys/block/zram3").mkdir(parents=True)
    for name in ("modprobe", "mkswap", "swapon", "swapoff"):
        Board.program(commands / name, f'#!/bin/sh\necho "{name} $*" >>"{tmp_path}/calls"\n')
    (root / "proc/meminfo").write_text("MemTotal:        4000000 kB\nMemFree: 1 kB\n")
    (root / "sys/class/zram-control/hot_add").write_text("3\n")
    (root / "sys/block/zram3/comp_algorithm").write_text("lzo [lz4]\n")

    def run(*arguments: str) -> None:
        subprocess.run(
            [SETUP / "files/dicomnode-zram", *arguments],
            env={"PATH": f"{commands}:{os.environ['PATH']}", "ROOT": str(root)},
            check=True,
            timeout=30,
        )

    run("start", "50")
    assert (root / "sys/block/zram3/disksize").read_text() == "2000000K\n"
    assert (root / "sys/block/zram3/comp_algorithm").read_text() == "lz4\n"
    run("start", "50")
    run("stop")
    run("stop")
    assert (tmp_path / "calls").read_text().splitlines() == [
        "modprobe zram num_devices=0",
        "mkswap /dev/zram3",
        "swapon -p 100 /dev/zram3",
        "swapoff /dev/zram3",
    ]
    assert (root / "sys/class/zram-control/hot_remove").read_text() == "3\n"


def test_the_exported_folders_are_those_that_the_manifests_mount(board: Board) -> None:
    volumes = (ROOT / "deploy/components/storage-nfs/volumes.yaml").read_text()
    mounted = {volume["spec"]["nfs"]["path"] for volume in yaml.safe_load_all(volumes)}
    board.must("apply", "storage")
    lines = board.text("etc/exports.d/dicomnode.exports").splitlines()
    assert {line.split()[0] for line in lines} == mounted
