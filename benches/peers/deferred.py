"""Kamailio's store of messages for absent users (module msilo), with SIPp as the world around it.

Each user of a list gets a message while absent, then registers and gets it back. Whatever the processes of
Kamailio run for between the first request of a step and the end of its work is billed to the step: to the last
answer while messages are stored, to the deletion of the last row while they are sent. A step has a rate only
where SIPp at both ends, Kamailio's counters and its table agree on every user, and every body is whole.
"""

import collections
import os
import pathlib
import resource
import signal
import sqlite3
import subprocess
import tempfile
import time

from common import HERE, Failed, fill, free_port, wait_for

SCHEMA = pathlib.Path("/usr/share/kamailio/db_sqlite/msilo-create.sql")
BODY_OCTETS = 300
# Requests under way at a time: as fast as Kamailio goes.
AT_A_TIME = 256
# Registrations a second where it is spared: the list of what was sent in this second stays short.
SPARED = 4000


def user(number):
    return f"u{number:06}"


def body(name):
    """300 octets that nobody else's message has; SIPp ends it with a line end, here as in its log."""
    return f"{name} ".ljust(BODY_OCTETS - 2, "x")


def processes(root):
    """A process and all that descend from it."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = pathlib.Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            parents[int(entry)] = int(stat.rsplit(")", 1)[1].split()[1])
    found, fresh = [root], {root}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh}
        found += sorted(fresh)
    return found


def ran(pids):
    """Nanoseconds on a CPU and waiting for one, of all threads, kernel included."""
    total = [0, 0]
    for pid in pids:
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            on, waited, _ = (task / "schedstat").read_text().split()
            total = [total[0] + int(on), total[1] + int(waited)]
    return total


class Silo:
    """A Kamailio with an empty table, and the callers and phones around it."""

    def __init__(self, bench, directory, transport, way, users, silent):
        self.bench, self.transport, self.users = bench, transport, users
        self.phones_port, self.port = free_port(), free_port()
        self.patience_s = 5 if silent else 30
        self.list = bench.work / "users.csv"
        names = [user(number) for number in range(1, users + 1)]
        self.list.write_text("SEQUENTIAL\n" + "".join(f"{name};{body(name)}\n" for name in names))
        self.log = bench.work / "phones.log"
        self.log.unlink(missing_ok=True)
        self.phones = self.sipp("phones", [
            "-sf", fill("sipp-phones.xml", {"SILENT": user(users // 2) if silent else "nobody"},
                        bench.work / "phones.xml"),
            "-p", self.phones_port, "-trace_logs", "-log_file", self.log])
        self.database = directory / "silo.sqlite"
        with sqlite3.connect(self.database) as table:
            table.execute("CREATE TABLE version (table_name VARCHAR(32) NOT NULL, table_version INTEGER NOT NULL)")
            table.executescript(SCHEMA.read_text())
        table.close()
        self.kamailio = self.registrar(way)
        self.table = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)

    def registrar(self, way):
        bench = self.bench
        modules = next(path for path in pathlib.Path("/usr/lib").glob("*/kamailio/modules"))
        config = fill("msilo.cfg", {
            "TRANSPORT": self.transport, "PORT": self.port, "MODULES": modules, "WAY": way, "WORK": bench.work,
            "DATABASE": self.database, "GIVE_UP_MS": 1000 * self.patience_s // 3,
            "NEXT": self.port if way == "LOOKUP" else self.phones_port}, bench.work / "msilo.cfg")
        child = bench.start("kamailio", ["kamailio", "-f", config, "-DD", "-E", "-x", "fm", "-X", "fm", "-m", "2048",
                                         "-M", "16", "-Y", bench.work, "-w", bench.work], bench.cpu())
        if not wait_for(lambda: child.poll() is not None or "stored_messages" in self.said()):
            raise Failed("Kamailio does not answer: " + child.log.read_text(errors="replace")[-300:])
        if child.poll() is not None:
            raise Failed("Kamailio does not start: " + child.log.read_text(errors="replace")[-600:])
        return child

    def sipp(self, name, words):
        bench = self.bench
        stats = bench.work / f"sipp-{name}.csv"
        stats.unlink(missing_ok=True)
        child = bench.start(f"sipp-{name}", [
            "sipp", *words, "-i", "127.0.0.1", "-t", "u1" if self.transport == "udp" else "t1", "-buff_size", 16 << 20,
            "-nostdin", "-nd", "-timer_resol", 1, "-trace_stat", "-fd", 1, "-stf", stats], bench.options.peer_cpu)
        child.stats = stats
        return child

    def said(self):
        """Kamailio's counters of the module, by name."""
        out = subprocess.run(["kamcmd", "-s", f"unix:{self.bench.work}/msilo.ctl", "cnt.grp_get_all", "msilo"],
                             capture_output=True, text=True, timeout=10, check=False).stdout
        return {name: int(value) for name, value in
                (line.split(": ") for line in out.replace("\t", "").splitlines() if ": " in line)}

    def errors(self):
        """The first of Kamailio's complaints, or none."""
        lines = self.kamailio.log.read_text(errors="replace").splitlines()
        return next((line.strip() for line in lines if "ERROR" in line or "CRITICAL" in line), "")

    def rows(self):
        return self.table.execute("SELECT count(*) FROM silo").fetchone()[0]

    def step(self, name, load, values, over):
        """One request of each user; what Kamailio ran for until all is over."""
        pids = processes(self.kamailio.pid)
        before, begin, others = ran(pids), time.monotonic(), self.world_s()
        caller = self.sipp(name, [
            f"127.0.0.1:{self.port}", "-sf", fill(f"sipp-{name}.xml", values, self.bench.work / f"{name}.xml"),
            "-p", free_port(), "-inf", self.list, *load, "-m", self.users, "-deadcall_wait", 0, "-timeout", 60])
        try:
            caller.wait(90)
        except subprocess.TimeoutExpired as late:
            raise Failed(f"the callers of {name} do not end") from late
        self.bench.stop(caller)
        self.count(caller)
        if not wait_for(over, self.patience_s):
            raise Failed(f"after {name} the table has {self.rows()} rows; Kamailio says {self.said()} {self.errors()}")
        after, took, others = ran(pids), time.monotonic() - begin, self.world_s() - others
        if processes(self.kamailio.pid) != pids:
            raise Failed("Kamailio's processes changed")
        cpu_us = (after[0] - before[0]) / 1000
        return {"totals": {"completed": self.users, "repeats": 0}, "trains": False, "caller_processes": len(pids),
                "caller_busy": cpu_us / took / 1e6, "caller_waited": (after[1] - before[1]) / took / 1e9,
                "peer_busy": others / took, "us_per_push": cpu_us / self.users,
                "pushes_per_core_s": self.users * 1e6 / cpu_us}

    def world_s(self):
        """Seconds that the phones ran for, and all that has ended."""
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        return ran([self.phones.pid])[0] / 1e9 + ended.ru_utime + ended.ru_stime

    def count(self, child):
        """SIPp saw each user once, and nothing twice."""
        names, *rows = [line.split(";") for line in child.stats.read_text().splitlines() if line]
        last = dict(zip(names, rows[-1]))
        found = {name: int(last[name]) for name in ("SuccessfulCall(C)", "FailedCall(C)", "Retransmissions(C)")}
        if list(found.values()) != [self.users, 0, 0]:
            raise Failed(f"of {self.users} users {child.stats.name} has {found}")

    def delivered(self):
        """Every user's own message, once and whole."""
        came = collections.Counter(self.log.read_bytes().decode(errors="replace").split("\r\n\n"))
        due = collections.Counter(f"{user(number)} {body(user(number))}" for number in range(1, self.users + 1))
        due[""] = 1
        if came != due:
            raise Failed(f"of {self.users} messages {(due - came).total()} are missing, {(came - due).total()} are "
                         "wrong or came twice")

    def run(self, spared):
        """Both steps, or the reason why there is no rate."""
        load = ["-users", AT_A_TIME]
        stored = self.step("store", load, {}, lambda: self.rows() == self.users)
        load = ["-r", SPARED, "-l", AT_A_TIME] if spared else load
        sent = self.step("register", load, {"PHONES": self.phones_port}, lambda: self.rows() == 0)
        said = self.said()
        # This version counts a message sent as a reminder sent, and the other way round.
        dumped = said["dumped_messages"] + said["dumped_reminders"]
        failures = said["failed_messages"] + said["failed_reminders"]
        if [said["stored_messages"], dumped, failures] != [self.users, self.users, 0]:
            raise Failed(f"of {self.users} messages Kamailio says {said}")
        self.bench.stop(self.phones, signal.SIGUSR1)
        self.count(self.phones)
        self.delivered()
        if self.errors():
            raise Failed(f"Kamailio complains: {self.errors()}")
        self.table.close()
        return (stored, None), (sent, None)


def users_of(bench):
    return 500 if bench.options.smoke else bench.options.deferred_users


def msilo(bench, transport, way, spared=False, disk=False, silent=False):
    """Messages stored for absent users, then sent to each when it registers; both steps, as what a caller
    says, whose counts agree here already."""
    # In memory where there is such a place: what is synced costs nothing there.
    memory = pathlib.Path("/dev/shm")
    at = bench.work if disk or not os.access(memory, os.W_OK) else memory
    with tempfile.TemporaryDirectory(prefix="volley-msilo.", dir=at) as directory:
        return Silo(bench, pathlib.Path(directory), transport, way, users_of(bench), silent).run(spared)
