"""The image recipes keep their promises. There is no engine here: they are read, not built.

What they install is installed by tests/integration/test_image_contents.py.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dicomnode.config import load
from dicomnode.modelserver.options import parse as parse_model_server
from tests.conftest import ROOT

DOCKER = ROOT / "docker"
NAMES = sorted(path.name.removesuffix(".Dockerfile") for path in DOCKER.glob("*.Dockerfile"))
RECIPES = [DOCKER / f"{name}.Dockerfile" for name in NAMES]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = re.compile(r"[a-z0-9][a-z0-9./-]*:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}")
WITHOUT_DEFAULT = {"TF_SERVING_IMAGE", "L4T_IMAGE"}
"""No digest was found that could be stood for: whoever builds on them names it."""
SERVERS = {"node", "model-server", "model-server-tf-serving", "jupyter"}

LOCKS = {
    "node": ("postgres",),
    "model-server": ("model",),
    "trainer": ("model", "postgres", "cluster"),
    "jupyter": ("model", "postgres", "cluster"),
    "trainer-l4t": ("model", "postgres", "cluster"),
}
"""Locked list -> extras of pyproject.toml that it has."""


@dataclass(frozen=True)
class Instruction:
    """One instruction, its continuation lines joined."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        return self.value.split()


def instructions(path: Path) -> list[Instruction]:
    """What a Dockerfile says, without comments."""
    lines = [line for line in path.read_text().splitlines() if not re.match(r"\s*#", line)]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    found = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, value = line.strip().partition(" ")
        found.append(Instruction(name.upper(), " ".join(value.split())))
    return found


def stage(path: Path, name: str) -> list[Instruction]:
    """The instructions of one stage; "" is the last."""
    stages: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for instruction in instructions(path):
        if instruction.name == "FROM":
            current = stages.setdefault(instruction.value.partition(" AS ")[2], [])
        current.append(instruction)
    return stages[name] if name else current


def image_pins() -> dict[str, str]:
    """docker/images.env."""
    lines = (DOCKER / "images.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def last(path: Path, name: str) -> Instruction:
    """The instruction that is in force in the last stage."""
    return [each for each in stage(path, "") if each.name == name][-1]


def environment(path: Path) -> dict[str, str]:
    """The ENV of the last stage, and of the image of ours that it builds on."""
    said = stage(path, "")
    values = [each.value for each in said if each.name == "ENV"]
    below = {}
    if said[0].value == "${TRAINER_IMAGE}":
        below = environment(DOCKER / "trainer.Dockerfile")
    return below | dict(pair.split("=", 1) for value in values for pair in value.split())


@pytest.fixture(params=RECIPES, ids=NAMES)
def recipe(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_every_image_of_the_contract_has_a_recipe() -> None:
    expected = ["client", "gpu-check", "jupyter", "model-server", "model-server-tf-serving"]
    assert [*expected, "node", "trainer", "trainer-l4t"] == NAMES


def test_images_of_others_are_pinned_by_tag_and_digest_in_one_place() -> None:
    pins = image_pins()
    assert {"PYTHON_IMAGE", "POSTGRES_IMAGE", "ORTHANC_IMAGE"} <= set(pins)
    assert [image for image in pins.values() if not PINNED.fullmatch(image)] == []
    assert [image for image in pins.values() if ":latest" in image] == []


def test_a_base_is_an_argument_with_the_pin_of_images_env_as_its_default(recipe: Path) -> None:
    pins = image_pins()
    said = instructions(recipe)
    stages = {each.value.partition(" AS ")[2] for each in said if each.name == "FROM"}
    before = itertools.takewhile(lambda each: each.name != "FROM", said)
    arguments = {each.value.partition("=")[0]: each.value.partition("=")[2] for each in before}
    for each in (each for each in said if each.name == "FROM"):
        base = each.value.partition(" AS ")[0].split()[-1]
        if base in stages or base == "scratch":
            continue
        name = re.fullmatch(r"\$\{([A-Z0-9_]+)\}", base)
        assert name, f"FROM {base} is not an argument"
        default = arguments[name[1]]
        if name[1] == "TRAINER_IMAGE":
            assert default == f"dicomnode/trainer:{PROJECT['version']}"
        else:
            assert default == ("" if name[1] in WITHOUT_DEFAULT else pins[name[1]])


def test_an_image_runs_as_the_user_without_a_name_of_power(recipe: Path) -> None:
    assert last(recipe, "USER").value == "10001:10001"
    position = [each.name for each in stage(recipe, "")]
    after = position[len(position) - position[::-1].index("USER") :]
    assert "RUN" not in after and "COPY" not in after


def test_an_image_starts_without_a_shell_and_ends_on_sigterm(recipe: Path) -> None:
    for name in ("ENTRYPOINT", "CMD"):
        for each in (each for each in stage(recipe, "") if each.name == name):
            assert all(isinstance(word, str) for word in json.loads(each.value)), each
    assert json.loads(last(recipe, "ENTRYPOINT").value)[0] not in ("sh", "bash", "/bin/sh")
    assert last(recipe, "STOPSIGNAL").value == "SIGTERM"


def test_a_server_says_whether_it_is_well_and_a_job_says_that_it_does_not(recipe: Path) -> None:
    check = last(recipe, "HEALTHCHECK").value
    if recipe.name.removesuffix(".Dockerfile") not in SERVERS:
        assert check == "NONE"
        return
    options, _, command = check.partition(" CMD ")
    assert {"--interval", "--timeout", "--start-period", "--retries"} == {
        word.partition("=")[0] for word in options.split()
    }
    assert json.loads(command)


def test_an_image_says_what_it_is(recipe: Path) -> None:
    labels = last(recipe, "LABEL").value
    for name in ("title", "description", "version", "revision", "licenses"):
        assert f"org.opencontainers.image.{name}=" in labels
    assert f"VERSION={PROJECT['version']}" in [e.value for e in instructions(recipe)]


def test_nothing_is_fetched_from_an_address_or_kept_from_apt(recipe: Path) -> None:
    for each in instructions(recipe):
        assert each.name != "ADD", "COPY says what it does; ADD also downloads and unpacks"
        assert not re.search(r"https?://(?!127\.0\.0\.1)", each.value), each
        assert not re.search(r"\b(curl|wget|git clone)\b", each.value), each
        if "apt-get" in each.value:
            assert "apt-get install --yes --no-install-recommends" in each.value
            assert each.value.count("apt-get update") == 1
            assert "rm -rf /var/lib/apt/lists/*" in each.value
            assert "upgrade" not in each.value


def test_packages_are_installed_by_hash_or_from_the_wheel_just_built(recipe: Path) -> None:
    for each in instructions(recipe):
        for command in re.findall(r"pip (?:--python \S+ )?install .*?(?= && |$)", each.value):
            assert "--require-hashes --only-binary :all:" in command or (
                "--no-deps --no-index" in command
            ), command


def test_no_secret_is_an_argument_a_variable_or_a_file_of_the_image(recipe: Path) -> None:
    secret = re.compile(r"password|passwd|token|secret|credential|index_url|_key\b", re.IGNORECASE)
    for each in instructions(recipe):
        if each.name in ("ARG", "COPY"):
            assert not secret.search(each.value), each
        if each.name == "ENV":
            names = [pair.partition("=")[0] for pair in each.words]
            assert [n for n in names if secret.search(n) and not n.endswith("_FILE")] == []


def test_what_is_copied_is_there_and_let_through_to_the_builder(recipe: Path) -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    let = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines and "docker/secrets" in lines
    for each in instructions(recipe):
        if each.name != "COPY" or "--from=" in each.value:
            continue
        for source in [word for word in each.words if not word.startswith("--")][:-1]:
            assert (ROOT / source).exists(), f"{recipe.name}: {source}"
            assert any(source == name or source.startswith(f"{name}/") for name in let), source


def test_the_root_is_never_written_to_at_run_time(recipe: Path) -> None:
    values = environment(recipe)
    assert values["HOME"] == "/tmp"
    written = [n for n in ("KERAS_HOME", "MPLCONFIGDIR", "IPYTHONDIR") if n in values]
    assert [n for n in written if not values[n].startswith("/tmp/")] == []
    if recipe.name != "model-server-tf-serving.Dockerfile":  # no python in it
        assert values["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize("lock", LOCKS)
def test_a_locked_list_has_what_the_project_asks_for(lock: str) -> None:
    """`docker/requirements/renew` brings it up to date."""
    locked = dict(_locked(lock))
    overridden = dict(_overrides()) if lock == "trainer-l4t" else {}
    wanted = [*PROJECT["dependencies"]]
    for extra in LOCKS[lock]:
        wanted += PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        if lock == "trainer-l4t" and name == "tensorflow":
            assert name not in locked, "tensorflow comes with the base image"
            continue
        versions = locked.get(name)
        assert versions, f"{name} is not in {lock}.txt; run docker/requirements/renew"
        if name in overridden:
            assert versions == [overridden[name]]
            continue
        for version in versions:
            assert requirement.specifier.contains(version), f"{lock}.txt: {requirement} {version}"


def test_no_locked_list_names_an_index_and_every_line_has_hashes() -> None:
    for path in (DOCKER / "requirements").glob("*.txt"):
        if path.name == "l4t-overrides.txt":
            continue
        text = path.read_text()
        assert "index" not in re.sub(r"^[a-z0-9-]+==.*", "", text, flags=re.MULTILINE)
        entries = re.split(r"\n(?=[a-z])", text)
        assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_jupyter_has_what_the_trainer_has_at_the_same_versions() -> None:
    """It is installed over the trainer's environment, where nothing may change."""
    trainer, jupyter = dict(_locked("trainer")), dict(_locked("jupyter"))
    assert {name: jupyter.get(name) for name in trainer} == trainer


def test_the_node_has_no_tensorflow() -> None:
    assert not {"tensorflow", "keras", "scikit-learn"} & set(dict(_locked("node")))


def _locked(name: str) -> Iterator[tuple[str, list[Version]]]:
    found: dict[str, list[Version]] = {}
    lines = (DOCKER / "requirements" / f"{name}.txt").read_text().splitlines()
    for line in (line.rstrip(" \\") for line in lines if re.match(r"[a-z]", line)):
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        found.setdefault(canonicalize_name(requirement.name), []).append(Version(specifier.version))
    yield from found.items()


def _overrides() -> Iterator[tuple[str, Version]]:
    for line in (DOCKER / "requirements" / "l4t-overrides.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            yield canonicalize_name(name), Version(version)


def test_the_flags_of_both_model_servers_are_flags_of_ours() -> None:
    ours = json.loads(last(DOCKER / "model-server.Dockerfile", "CMD").value)
    options = parse_model_server(ours)
    assert (options.port, options.rest_api_port, options.model_name) == (8500, 8501, "covid19")
    assert options.model_base_path == Path("/models/covid19")
    theirs = json.loads(last(DOCKER / "model-server-tf-serving.Dockerfile", "CMD").value)
    assert set(theirs) - set(ours) == {
        "--monitoring_config_file=/etc/tf-serving/monitoring.config",
    }


# docker-bake.hcl --------------------------------------------------------------------------


def test_every_recipe_is_a_target_of_the_bake_file() -> None:
    text = (DOCKER / "docker-bake.hcl").read_text()
    for path in RECIPES:
        name = path.name.removesuffix(".Dockerfile")
        (block,) = re.findall(rf'^target "{name}" \{{$(.*?)^\}}$', text, re.MULTILINE | re.DOTALL)
        assert f'"docker/{path.name}"' in block
        assert f'"${{REGISTRY}}dicomnode/{name}:${{VERSION}}"' in block
    assert f'variable "VERSION" {{ default = "{PROJECT["version"]}" }}' in text
    assert 'platforms = ["linux/amd64", "linux/arm64"]' in text
    group = re.search(r"targets = \[(.*?)\]", text)
    assert group and "l4t" not in group[1] and "tf-serving" not in group[1]
    used = {each.value.partition("=")[0] for p in RECIPES for each in instructions(p)
            if each.name == "ARG" and each.value.partition("=")[0].endswith("_IMAGE")}  # fmt: skip
    assert [name for name in used if f"{name} " not in text] == []


# compose.yaml -----------------------------------------------------------------------------

WRITABLE_ROOT = {"orthanc"}
"""Its start script arranges its plugins in its own folders; it is there for trying out."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    return tree


def test_compose_has_the_five_and_two_tools(compose: dict[str, Any]) -> None:
    services = compose["services"]
    started = [name for name, each in services.items() if "profiles" not in each]
    assert started == ["node", "model-server", "orthanc", "prometheus", "grafana"]
    assert set(services) - set(started) == {"trainer", "client"}


def test_a_service_of_compose_is_confined(compose: dict[str, Any]) -> None:
    for name, each in compose["services"].items():
        assert each["read_only"] is (name not in WRITABLE_ROOT), name
        assert each["cap_drop"] == ["ALL"], name
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert each["pids_limit"] and each["mem_limit"] and each["cpus"], name
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(each), name
        assert each.get("network_mode", "none") == "none", name
        if name not in WRITABLE_ROOT:
            assert re.fullmatch(r"[1-9]\d*:\d+", each["user"]), f"{name} does not say who it is"


def test_compose_publishes_on_loopback_only(compose: dict[str, Any]) -> None:
    ports = [port for each in compose["services"].values() for port in each.get("ports", [])]
    assert len(ports) == 8
    for port in ports:
        assert port.startswith(("127.0.0.1:", "${DIMSE_ADDRESS:-127.0.0.1}:")), port


def test_images_of_compose_are_ours_or_pinned_as_in_images_env(compose: dict[str, Any]) -> None:
    pins = image_pins()
    for name, each in compose["services"].items():
        if each["image"].startswith("${REGISTRY:-}dicomnode/"):
            assert each["image"].endswith(f"dicomnode/{name}:{PROJECT['version']}")
            assert (ROOT / each["build"]["dockerfile"]).is_file()
        else:
            variable, _, default = each["image"].strip("${}").partition(":-")
            assert default == pins[variable]


def test_every_started_service_of_compose_has_a_healthcheck(compose: dict[str, Any]) -> None:
    for name, each in compose["services"].items():
        if "profiles" in each:
            continue
        if "build" in each:  # our own have theirs in the image
            assert last(DOCKER / f"{name}.Dockerfile", "HEALTHCHECK").value != "NONE"
            continue
        assert each["healthcheck"]["test"][0] == "CMD", "a shell is not needed"
        assert {"interval", "timeout", "start_period", "retries"} < set(each["healthcheck"])


def test_files_that_compose_mounts_exist_and_are_read_only(compose: dict[str, Any]) -> None:
    volumes = set(compose["volumes"])
    for name, each in compose["services"].items():
        for mount in each.get("volumes", []):
            source = re.sub(r"\$\{[A-Z]+:-([a-z]+)\}", r"\1", mount).split(":")
            if source[0] in volumes:
                continue
            assert (DOCKER / source[0]).resolve().exists(), f"{name}: {source[0]}"
            assert source[-1] == "ro", f"{name}: {mount}"


def test_the_node_of_compose_reads_its_settings_and_finds_what_they_name(
    compose: dict[str, Any],
) -> None:
    settings = load(DOCKER / "compose" / "node.toml", environment={})
    services = compose["services"]
    assert settings.storage.root == Path("/var/lib/dicomnode")
    assert "store:/var/lib/dicomnode" in services["node"]["volumes"]
    assert settings.serving.model_base_path == Path("/models/covid19")
    assert settings.serving.engine == "external"
    (target,) = settings.serving.targets
    aliases = services["model-server"]["networks"]["inside"]["aliases"]
    assert target.removeprefix("dns:///").partition(":")[0] in aliases
    (destination,) = settings.destinations
    orthanc = json.loads((DOCKER / "compose" / "orthanc.json").read_text())
    assert destination.host in services
    assert (destination.ae_title, destination.port) == (orthanc["DicomAet"], orthanc["DicomPort"])
    known = orthanc["DicomModalities"]["dicomnode"]
    assert known["AET"] == settings.dimse.ae_title
    assert known["AllowStore"] is True
    container_ports = {port.rpartition(":")[2] for port in services["node"]["ports"]}
    assert container_ports == {str(settings.dimse.port), str(settings.web.port)}


def test_prometheus_of_compose_finds_node_and_model_server_by_name(
    compose: dict[str, Any],
) -> None:
    mounts = compose["services"]["prometheus"]["volumes"]
    (source,) = [m.split(":")[0] for m in mounts if m.endswith("/prometheus.yml:ro")]
    jobs = yaml.safe_load((DOCKER / source).read_text())["scrape_configs"]
    names = {
        name.removesuffix("."): job["job_name"]
        for job in jobs
        for found in job.get("dns_sd_configs", [])
        for name in found["names"]
    }
    networks = [each.get("networks", {}) for each in compose["services"].values()]
    aliases = {
        alias
        for each in networks
        if isinstance(each, dict)
        for network in each.values()
        for alias in network.get("aliases", [])
    }
    # machine: node_exporter belongs to the machine, not into a container
    assert {job for name, job in names.items() if name not in aliases} == {"machine"}


def test_grafana_of_compose_asks_the_internet_for_nothing(compose: dict[str, Any]) -> None:
    variables = compose["services"]["grafana"]["environment"]
    assert variables["GF_ANALYTICS_REPORTING_ENABLED"] == "false"
    assert variables["GF_PLUGINS_PREINSTALL_DISABLED"] == "true"
    assert variables["PROMETHEUS_URL"] == "http://prometheus:9090"
    secret = variables["GF_SECURITY_ADMIN_PASSWORD__FILE"]
    assert secret == "/run/secrets/grafana_password"
    assert "grafana_password" in compose["secrets"]


def test_no_packet_of_compose_is_masqueraded_out_but_the_nodes(compose: dict[str, Any]) -> None:
    option = "com.docker.network.bridge.enable_ip_masquerade"
    assert compose["networks"]["inside"]["driver_opts"] == {option: "false"}
    outside = [
        name for name, each in compose["services"].items() if "hospital" in each.get("networks", {})
    ]
    assert outside == ["node"]


# The programs in the images ---------------------------------------------------------------


def program(path: str) -> ModuleType:
    """A script of docker/ as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, DOCKER / path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class FakeDriver:
    """libcuda of a Jetson Nano."""

    def __init__(self, *, init: int = 0, count: int = 1) -> None:
        self.init, self.count = init, count

    def cuDriverGetVersion(self, version: Any) -> int:
        version._obj.value = 10020
        return 0

    def cuInit(self, flags: int) -> int:
        return self.init

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, handle: Any, number: int) -> int:
        return 0

    def cuDeviceGetName(self, name: Any, length: int, handle: Any) -> int:
        name.value = b"NVIDIA Tegra X1"
        return 0

    def cuDeviceTotalMem_v2(self, memory: Any, handle: Any) -> int:
        memory._obj.value = 4 * 2**30
        return 0

    def cuDeviceGetAttribute(self, value: Any, which: int, handle: Any) -> int:
        value._obj.value = {16: 1, 18: 1, 75: 5, 76: 3}[which]
        return 0


def test_the_device_query_names_the_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    query = program("gpu-check/device_query.py")
    monkeypatch.setattr(query, "load", FakeDriver)
    assert query.main([]) == 0
    assert capsys.readouterr().out == (
        "CUDA driver: 10.2\nGPU 0: NVIDIA Tegra X1, compute capability 5.3, 1 multiprocessors, "
        "4.0 GiB shared with the processor\n"
    )


@pytest.mark.parametrize(
    ("driver", "code", "said"),
    [
        (lambda: None, 3, "there is no libcuda.so.1"),
        (lambda: FakeDriver(init=100), 3, "the driver is here and sees none"),
        (lambda: FakeDriver(count=0), 3, "the driver is here and sees none"),
        (lambda: FakeDriver(init=999), 1, "cuInit answered 999, expected 0"),
    ],
)
def test_the_device_query_tells_no_gpu_from_a_driver_that_fails(
    driver: Any,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    query = program("gpu-check/device_query.py")
    monkeypatch.setattr(query, "load", driver)
    assert query.main(["--json"]) == code
    assert said in capsys.readouterr().err


def test_the_device_query_runs_where_there_is_no_gpu_and_says_so() -> None:
    command = [sys.executable, "-I", str(DOCKER / "gpu-check" / "device_query.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode == 0:
        pytest.skip("this machine has an NVIDIA GPU")
    assert done.returncode == 3
    assert json.loads(done.stdout)["devices"] == []
    assert done.stderr.startswith("no GPU:")


def test_baked_weights_are_linked_where_keras_may_write_and_nothing_is_replaced(
    tmp_path: Path,
) -> None:
    weights = program("trainer/with_weights.py")
    baked, home = tmp_path / "baked", tmp_path / "home"
    (baked / "models").mkdir(parents=True)
    (home / "models").mkdir(parents=True)
    for name in ("a.h5", "b.h5"):
        (baked / "models" / name).write_text(name)
    (home / "models" / "b.h5").write_text("the user's own")
    for _ in range(2):
        assert weights.link(baked, home) == 2
    assert (home / "models" / "a.h5").read_text() == "a.h5"
    assert (home / "models" / "b.h5").read_text() == "the user's own"


def test_the_starter_notebook_holds_no_answers_and_every_cell_compiles() -> None:
    notebook = json.loads((DOCKER / "jupyter" / "start.ipynb").read_text())
    assert notebook["nbformat"] == 4
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 3
    for cell in cells:
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        compile("".join(cell["source"]), cell["id"], "exec")


@pytest.mark.parametrize("token", [None, "", "\n"])
def test_jupyter_does_not_start_without_a_token(
    token: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    if token is not None:
        file.write_text(token)
    monkeypatch.setenv("JUPYTER_TOKEN_FILE", str(file))
    with pytest.raises(SystemExit, match="must name a file with the token"):
        jupyter_settings()


def test_the_token_of_jupyter_is_that_of_the_file_without_its_line_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    monkeypatch.setenv("JUPYTER_TOKEN_FILE", str(file))
    settings = jupyter_settings()
    assert settings.IdentityProvider.token == "from-a-file"
    assert (settings.ServerApp.port, settings.ServerApp.root_dir) == (8888, "/work")


def jupyter_settings() -> Any:
    """What jupyter_server_config.py says, read as Jupyter reads it."""
    sections = ("ServerApp", "LabApp", "IdentityProvider")
    settings = SimpleNamespace(**{name: SimpleNamespace() for name in sections})
    path = DOCKER / "jupyter" / "jupyter_server_config.py"
    exec(compile(path.read_text(), str(path), "exec"), {"get_config": lambda: settings})
    return settings
