"""Containers as far as Linux namespaces make them: each has files, a network address, a user and rights of its own.

For the tests of ops/compose and ops/systemd where neither Docker nor systemd runs. Everything is in namespaces of the calling
script, so it is gone when that ends.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

NETWORK = "10.77.0"
SHARED = ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/share", "etc/ssl", "etc/ca-certificates"]
LINKS = ["bin", "sbin", "lib", "lib64"]
SECONDS_MAX = 120
# The variable by which a script that runs in namespaces finds its folder.
FOLDER = "SKYTALE_TEST_BOXES"


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, **options)


def enter():
    """Runs this script again in namespaces of its own, and gives it a folder; says why where that is not possible."""
    if FOLDER in os.environ:
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "address", "add", f"{NETWORK}.1/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        return Path(os.environ[FOLDER])
    if os.geteuid() != 0:
        skip("namespaces need root")
    missing = [tool for tool in ("unshare", "ip", "setpriv", "chroot") if not shutil.which(tool)]
    if missing:
        skip(f"{', '.join(missing)} is missing")
    own = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    tried = subprocess.run([*own, "ip", "link", "add", "br0", "type", "bridge"], capture_output=True, text=True)
    if tried.returncode != 0:
        skip(f"no namespaces here: {tried.stderr.strip()}")
    folder = Path(tempfile.mkdtemp(prefix="skytale-boxes-"))
    # Users of boxes go through it.
    folder.chmod(0o755)
    code = subprocess.run([*own, sys.executable, *sys.argv], env={**os.environ, FOLDER: str(folder)}).returncode
    # What was mounted in it was so in those namespaces alone.
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


def skip(reason):
    print(f"skipped: {reason}", flush=True)
    sys.exit(0)


def until(what, holds):
    """Waits until something holds, and gives it."""
    begun = time.monotonic()
    last = None
    while time.monotonic() - begun < SECONDS_MAX:
        try:
            value = holds()
            if value:
                return value
        except (OSError, subprocess.CalledProcessError, ValueError) as error:
            last = error
        time.sleep(0.1)
    sys.exit(f"{what}: not within {SECONDS_MAX} s ({last})")


class Boxes:
    """All that run together, and know each other by name."""

    def __init__(self, folder):
        self.folder, self.boxes = Path(folder), {}

    def add(self, name, **options):
        box = Box(self, name, len(self.boxes) + 2, **options)
        self.boxes[name] = box
        return box

    def hosts(self):
        lines = [f"{box.address} {box.name}" for box in self.boxes.values()]
        return "\n".join(["127.0.0.1 localhost", *lines]) + "\n"

    def know_each_other(self):
        for box in self.boxes.values():
            (box.root / "etc/hosts").write_text(self.hosts())

    def stop(self):
        for box in self.boxes.values():
            box.stopping = True
        # What came last needs the others.
        for box in reversed(self.boxes.values()):
            box.stop()


class Box:
    def __init__(self, boxes, name, number, programs=(), read_only=False):
        self.name, self.address, self.read_only = name, f"{NETWORK}.{number}", read_only
        self.root, self.log = boxes.folder / "roots" / name, boxes.folder / f"{name}.log"
        self.process, self.stopping, self.starts = None, False, 0
        self.stop_signal = signal.SIGTERM
        run("ip", "netns", "add", name)
        link = f"v{number}"
        run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        run("ip", "link", "set", link, "master", "br0", "up")
        run("ip", "-n", name, "address", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            run("ip", "-n", name, "link", "set", device, "up")
        for folder in [*SHARED, "usr/local/bin", "etc", "proc", "dev", "tmp", "var/lib", "run", "root"]:
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "tmp").chmod(0o1777)
        for link in LINKS:
            if (Path("/") / link).is_symlink():
                (self.root / link).symlink_to(os.readlink(f"/{link}"))
        for folder in [*SHARED, "proc", "dev"]:
            if (Path("/") / folder).is_dir():
                run("mount", "--rbind", f"/{folder}", self.root / folder)
        for file in ("passwd", "group", "nsswitch.conf", "ld.so.cache", "ld.so.conf"):
            shutil.copy(f"/etc/{file}", self.root / "etc" / file)
        for program in programs:
            shutil.copy(program, self.root / "usr/local/bin" / Path(program).name)

    def volume(self, source, target, read_only=False):
        inside = self.root / target.lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", source, inside)
        if read_only:
            run("mount", "-o", "remount,bind,ro", inside)

    def command(self, words, user=0, environment=None, directory="/"):
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", **(environment or {})}
        rights = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        return [
            *("ip", "netns", "exec", self.name, "chroot", self.root),
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *rights),
            *("env", "-i", "-C", directory, *(f"{name}={value}" for name, value in environment.items())),
            *words,
        ]

    def run(self, words, **options):
        """Runs a command to its end."""
        command = [str(word) for word in self.command(words, **options)]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)

    def start(self, words, **options):
        """Starts its process, again whenever it ends: `restart: unless-stopped`, `Restart=always`."""
        if self.read_only:
            run("mount", "--rbind", self.root, self.root)
            run("mount", "-o", "remount,bind,ro", self.root)
        command = [str(word) for word in self.command(words, **options)]
        self.thread = threading.Thread(target=self._keep, args=[command], daemon=True)
        self.thread.start()

    def _keep(self, command):
        with open(self.log, "ab") as log:
            while not self.stopping:
                self.starts += 1
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
                self.process.wait()
                time.sleep(0.5)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)
            try:
                self.process.wait(timeout=SECONDS_MAX)
            except subprocess.TimeoutExpired:
                sys.exit(f"{self.name} does not stop: {self.said()}")

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def publish_tcp(port, address, to):
    """A port of this machine's loopback that leads into a box."""
    listener = socket.create_server(("127.0.0.1", port))

    def carry(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        finally:
            other.close()

    def accept():
        while True:
            near, _ = listener.accept()
            try:
                far = socket.create_connection((address, to), timeout=10)
                far.settimeout(None)
            except OSError:
                near.close()
                continue
            for ends in ((near, far), (far, near)):
                threading.Thread(target=carry, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def publish_udp(port, address, to):
    """The same for datagrams: each sender is known by a port of its own."""
    near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    near.bind(("127.0.0.1", port))
    ways, senders = {}, {}

    def carry():
        while True:
            ready, _, _ = select.select([near, *senders], [], [])
            for one in ready:
                try:
                    if one is near:
                        data, sender = near.recvfrom(65536)
                        if sender not in ways:
                            way = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                            way.connect((address, to))
                            ways[sender], senders[way] = way, sender
                        ways[sender].send(data)
                    else:
                        near.sendto(one.recv(65536), senders[one])
                except OSError:
                    pass

    threading.Thread(target=carry, daemon=True).start()
