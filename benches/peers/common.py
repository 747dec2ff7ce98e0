"""What all trials share: the processes of a trial, their CPUs, ports and files."""

import json
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent


class Failed(Exception):
    """A trial that gives no rate, and why."""


def free_port():
    """A port that is free for UDP and TCP."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = udp.getsockname()[1]
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Failed("no free port")


def fill(name, values, to):
    text = (HERE / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    to.write_text(text)
    return to


class Bench:
    """What all trials share."""

    def __init__(self, options):
        self.options = options
        self.programs = pathlib.Path(options.target) / "release"
        self.judge = [self.programs / "volley", "judge"]
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="volley-peers."))
        self.children = []

    def start(self, name, command, cpu=None, stdin=subprocess.DEVNULL):
        log = open(self.work / f"{name}.log", "w")
        command = [str(word) for word in command]
        if cpu is not None:
            command = ["taskset", "-c", str(cpu)] + command
        child = subprocess.Popen(command, stdin=stdin, stdout=log, stderr=subprocess.STDOUT, cwd=self.work)
        child.log = self.work / f"{name}.log"
        self.children.append(child)
        return child

    def hold(self, name, command):
        """A caller whose process number is known before it calls: it begins at `release`."""
        return self.start(name, ["sh", "-c", 'read _ && exec "$@"', name, *command], self.cpu(), subprocess.PIPE)

    @staticmethod
    def release(child):
        time.sleep(0.3)
        child.stdin.write(b"go\n")
        child.stdin.close()

    def stop(self, child, how=signal.SIGTERM, seconds=15):
        if child.poll() is None:
            child.send_signal(how)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child in self.children:
            self.children.remove(child)

    def close(self):
        for child in list(self.children):
            self.stop(child, seconds=3)
        shutil.rmtree(self.work, ignore_errors=True)

    def peer(self, transport, port, pid=None, extra=()):
        """The answering peer; the caller is started before or after."""
        command = [*self.judge, "answer", "--json", "--listen", f"127.0.0.1:{port}", "--transport", transport,
                   "--cpu", self.options.peer_cpu, "--warmup-s", self.options.warmup,
                   "--seconds", self.options.seconds]
        if pid is not None:
            command += ["--pid", pid]
        errors = open(self.work / "measured.log", "w")
        child = subprocess.Popen([str(word) for word in command + list(extra)], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.PIPE, stderr=errors, cwd=self.work, text=True)
        self.children.append(child)
        return child

    def until_measured(self, peer, caller):
        """Waits for the end of the window."""
        end = time.monotonic() + self.options.warmup + self.options.seconds + 60
        while time.monotonic() < end:
            if "measured" in (self.work / "measured.log").read_text():
                return
            if peer.poll() is not None:
                raise Failed("the answering peer ended: " + (self.work / "measured.log").read_text()[-300:])
            if caller.poll() is not None:
                raise Failed("the caller ended: " + caller.log.read_text(errors="replace")[-300:])
            time.sleep(0.02)
        raise Failed("nothing was measured")

    def result(self, peer):
        out, _ = peer.communicate(timeout=90)
        self.children.remove(peer)
        if not out.strip():
            raise Failed("the answering peer said nothing: " + (self.work / "measured.log").read_text()[-300:])
        return json.loads(out)

    def cpu(self):
        return self.options.caller_cpu

    def both(self):
        return f"{self.options.caller_cpu},{self.options.peer_cpu}"


def wait_for(what, seconds=15):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
