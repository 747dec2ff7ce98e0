"""Runs callers against one answering peer, in turn, and says what a call costs each of them.

The caller has one CPU and the peer (`volley-loadgen answer`) another, which it never leaves, so that no
caller is billed for waking it. A rate stands only where both ends counted the same calls.
"""

import argparse
import json
import pathlib
import re
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import time

import deferred
from common import HERE, Bench, Failed, fill, free_port, wait_for

SIPP_USERS = 400
KAMAILIO_CALLS = 100
RSIPSTACK_CALLS = 50
BARE_CALLS = 256
USERS_IN_FLIGHT = 96
ENGINE_USERS = 2000
DEFERRED_USERS = 20000


def engine_of(bench, values, cpus):
    """Starts our engine on an empty store; memory for rings is counted per user, and that of an engine
    before is given back late."""
    store = bench.work / "store"
    shutil.rmtree(store, ignore_errors=True)
    config = fill("volley.toml", values | {"STORE": store}, bench.work / "volley.toml")
    for _ in range(8):
        engine = bench.start("volley", [bench.programs / "volley", "run", "--json", "--config", config], cpus)
        time.sleep(0.7)
        if engine.poll() is None and '"shards"' in engine.log.read_text():
            return engine
        if engine.poll() is None and wait_for(lambda: '"shards"' in engine.log.read_text(), 10):
            return engine
        bench.stop(engine)
    raise Failed("the engine does not start: " + engine.log.read_text()[-300:])


def last_counters(engine):
    lines = [line for line in engine.log.read_text().splitlines() if line.startswith("{")]
    return json.loads(lines[-1])["counters"]


def volley(bench, transport, trains, shards=1, cpus=None):
    """Our engine: REGISTER, SUBSCRIBE, NOTIFY come on top, and every user has a message in its store."""
    port, sip, msrp = free_port(), free_port(), free_port()
    udp = ""
    if transport == "udp":
        udp = f'path_mtu = 65535\nudp_trains = "{"auto" if trains else "off"}"'
    values = {"SIP": sip, "MSRP": msrp, "PEER": port, "TRANSPORT": transport, "UDP": udp, "SHARDS": shards}
    engine = engine_of(bench, values, bench.cpu() if cpus is None else cpus)
    extra = ["--drive", f"127.0.0.1:{sip}", "--users", bench.options.users, "--devices", "4",
             "--users-in-flight", USERS_IN_FLIGHT * shards]
    if trains:
        extra.append("--trains")
    peer = bench.peer(transport, port, engine.pid, extra)
    bench.until_measured(peer, engine)
    said = bench.result(peer)
    bench.stop(engine)
    counters = last_counters(engine)
    own = {"invites": counters["invites_sent_total"], "accepted": counters["acks_sent_total"],
           "byes_answered": counters["byes_sent_total"], "strays": counters["invites_failed_total"],
           "mesh": counters["mesh_sent_total"] / max(counters["invites_sent_total"], 1)}
    return said, own


def sipp(bench, transport):
    """SIPp with as many users as calls at a time, one socket."""
    port, local = free_port(), free_port()
    caller = None
    try:
        caller = bench.hold("sipp", [
            "sipp", f"127.0.0.1:{port}", "-sf", HERE / "sipp-uac.xml", "-i", "127.0.0.1", "-p", local,
            "-t", "u1" if transport == "udp" else "t1", "-users", SIPP_USERS,
            "-buff_size", 16 << 20, "-nostdin", "-nd", "-deadcall_wait", 0, "-timer_resol", 1,
            "-trace_stat", "-fd", 1, "-stf", bench.work / "sipp.csv",
        ])
        peer = bench.peer(transport, port, caller.pid)
        bench.release(caller)
        bench.until_measured(peer, caller)
        bench.stop(caller, signal.SIGUSR1)
    finally:
        if caller is not None and caller in bench.children:
            bench.stop(caller)
    said = bench.result(peer)
    names, *rows = [line.split(";") for line in (bench.work / "sipp.csv").read_text().splitlines() if line]
    last = dict(zip(names, rows[-1]))
    own = {"invites": int(last["OutgoingCall(C)"]), "accepted": int(last["SuccessfulCall(C)"]),
           "byes_answered": int(last["SuccessfulCall(C)"]), "strays": int(last["FailedCall(C)"])}
    return said, own


def kamailio(bench, transport):
    """Transactions that Kamailio begins itself; forced shared memory and the allocator without debugging."""
    port, local = free_port(), free_port()
    modules = next(path for path in pathlib.Path("/usr/lib").glob("*/kamailio/modules"))
    config = fill("kamailio.cfg", {"PORT": local, "PEER": port, "TRANSPORT": transport, "WORK": bench.work,
                                   "MODULES": modules, "CALLS": KAMAILIO_CALLS}, bench.work / "kamailio.cfg")
    command = ["kamailio", "-f", config, "-DD", "-E", "-x", "fm", "-X", "fm", "-m", "2048", "-M", "16",
               "-Y", bench.work, "-w", bench.work]
    caller = bench.hold("kamailio", command)
    peer = bench.peer(transport, port, caller.pid)
    bench.release(caller)

    def ask(*words):
        out = subprocess.run(["kamcmd", "-s", f"unix:{bench.work}/kamailio.ctl", *words], capture_output=True,
                             text=True, timeout=10, check=False)
        return out.stdout

    def value(name):
        for word in ask("pv.shvGet", name).replace("\t", " ").split("\n"):
            if "value:" in word:
                return int(word.split("value:")[1])
        raise Failed("Kamailio does not tell its counts")

    bench.until_measured(peer, caller)
    ask("pv.shvSet", "stop", "int", "1")
    said = bench.result(peer)
    own = {"invites": value("invites"), "accepted": value("accepted"), "byes_answered": value("byes"),
           "strays": value("failed")}
    bench.stop(caller)
    return said, own


def timed(bench, transport, command):
    """A caller that ends by itself and then says its counts."""
    port = free_port()
    seconds = bench.options.warmup + bench.options.seconds + 0.7
    caller = bench.hold("caller", command(port, seconds))
    peer = bench.peer(transport, port, caller.pid)
    bench.release(caller)
    bench.until_measured(peer, caller)
    try:
        caller.wait(40)
    except subprocess.TimeoutExpired as late:
        raise Failed("the caller does not end") from late
    said = bench.result(peer)
    own = json.loads(caller.log.read_text().splitlines()[-1])
    bench.stop(caller)
    return said, own


def rsipstack(bench, _transport):
    program = bench.programs / "uac"
    return timed(bench, "udp", lambda port, seconds: [program, f"127.0.0.1:{port}", RSIPSTACK_CALLS, seconds])


def bare(bench, transport):
    """The raw limit of the round: a caller without timers, dialogs or a parser of values."""
    return timed(bench, transport, lambda port, seconds: [
        *bench.judge, "call", "--to", f"127.0.0.1:{port}", "--transport", transport, "--in-flight", BARE_CALLS,
        "--seconds", seconds])


def judged(bench, users, each, unanswered=8192, transport="tcp", shards=1):
    """Deposits for absent users that become durable, then their registration and delivery, by the judge: every
    message checked octet by octet, its ledger balanced. Both of its phases, as what a caller says."""
    port, sip, msrp, phones = free_port(), free_port(), free_port(), free_port()
    udp = 'path_mtu = 65535\nudp_trains = "off"' if transport == "udp" else ""
    values = {"SIP": sip, "MSRP": msrp, "PEER": port, "TRANSPORT": transport, "UDP": udp, "SHARDS": shards}
    engine = engine_of(bench, values, bench.cpu())
    report = bench.work / "report.json"
    report.unlink(missing_ok=True)
    words = [*bench.judge, "run", "--quiet", "--kind", "full", "--engine", f"127.0.0.1:{sip}",
             "--transport", transport, "--scscf-listen", f"127.0.0.1:{port}", "--msrp-listen", f"127.0.0.1:{phones}",
             "--reply-style", "datagrams", "--users", users, "--devices", 1, "--messages", each,
             "--deposits-in-flight", unanswered, "--users-in-flight", 256, "--engine-pid", engine.pid,
             "--cpu", bench.options.peer_cpu, "--json", report]
    if transport == "udp":
        words += ["--path-mtu", 65535]
    done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=120, check=False)
    if not report.exists():
        raise Failed("the judge says: " + (done.stderr + done.stdout)[-300:])
    said = json.loads(report.read_text())
    bench.stop(engine)
    counters = last_counters(engine)
    ledger = said["ledger"]
    good = said["conformant"] and said["ledger_balances"] and ledger["delivered"] == users * each
    rows = {phase["name"]: phase for phase in said["phases"]}

    def of(phase, began, operations):
        per = phase["engine_us_per_push"] * began / max(operations, 1)
        totals = {"invites": users, "acks": users, "byes": users, "completed": operations, "repeats": 0}
        return ({"totals": totals, "reconciled": good, "open": 0, "refused": said["broken"], "trains": False,
                 "caller_busy": phase["engine_busy"], "caller_waited": phase["engine_wait_share"],
                 "peer_busy": phase["own_busy"], "caller_processes": 1, "us_per_push": per,
                 "pushes_per_core_s": 1e6 / max(per, 1e-9)},
                {"invites": users, "accepted": users, "byes_answered": users, "strays": 0,
                 "mesh": counters["mesh_sent_total"] / (users * each)})

    return (of(rows["deposit"], rows["deposit"]["deposits"], rows["deposit"]["deposits"]),
            of(rows["register"], rows["register"]["pushes"], ledger["delivered"]))


def messages(bench, step, shards=1, each=20):
    """Sessions of `each` messages, 200,000 in all. The operation is a deposit, or a SEND with its 200, its REPORT
    and the durable mark that it was delivered; of what a session costs before, it has its share."""
    users, each = (200, 5) if bench.options.smoke else (200_000 // each, each)
    return judged(bench, users, each, shards=shards)[0 if step == "deposit" else 1]


TRIALS = {
    "volley, TCP": lambda bench: volley(bench, "tcp", False),
    "volley, UDP": lambda bench: volley(bench, "udp", False),
    "volley, UDP in trains": lambda bench: volley(bench, "udp", True),
    "SIPp, TCP": lambda bench: sipp(bench, "tcp"),
    "SIPp, UDP": lambda bench: sipp(bench, "udp"),
    "Kamailio tm, TCP": lambda bench: kamailio(bench, "tcp"),
    "Kamailio tm, UDP": lambda bench: kamailio(bench, "udp"),
    "rsipstack, UDP": lambda bench: rsipstack(bench, "udp"),
    "bare caller, TCP": lambda bench: bare(bench, "tcp"),
    "bare caller, UDP": lambda bench: bare(bench, "udp"),
}
# What a push costs must not depend on how many shards there are, nor on how many share a CPU.
SHARDS = {
    "1 shard, TCP": lambda bench: volley(bench, "tcp", False, 1),
    "2 shards on its CPU, TCP": lambda bench: volley(bench, "tcp", False, 2),
    "2 shards on two CPUs, TCP": lambda bench: volley(bench, "tcp", False, 2, bench.both()),
    "6 shards on two CPUs, TCP": lambda bench: volley(bench, "tcp", False, 6, bench.both()),
    "1 shard, deposits over TCP": lambda bench: messages(bench, "deposit", 1),
    "2 shards on its CPU, deposits over TCP": lambda bench: messages(bench, "deposit", 2),
}
MESSAGES = {
    "durable deposits by MESSAGE, TCP": lambda bench: messages(bench, "deposit"),
    "SENDs, 20 in a session, TCP": lambda bench: messages(bench, "wave"),
    "SENDs, 100 in a session, TCP": lambda bench: messages(bench, "wave", each=100),
}
# A message is stored for each user, who then registers and gets it: each trial has a row for either step. What
# waits beyond a socket's buffer is lost over UDP: so many deposits are unanswered at a time.
DEFERRED = {
    "deferred: volley, TCP": lambda bench: judged(bench, deferred.users_of(bench), 1, 1024),
    "deferred: volley, UDP": lambda bench: judged(bench, deferred.users_of(bench), 1, 256, "udp"),
    "deferred: Kamailio msilo, TCP": lambda bench: deferred.msilo(bench, "tcp", "LOOKUP"),
    "deferred: Kamailio msilo, UDP": lambda bench: deferred.msilo(bench, "udp", "LOOKUP"),
    "deferred: Kamailio msilo, on disk, UDP": lambda bench: deferred.msilo(bench, "udp", "LOOKUP", disk=True),
    "deferred: Kamailio msilo, spared, UDP": lambda bench: deferred.msilo(bench, "udp", "LOOKUP", spared=True),
    "deferred: Kamailio msilo, spared, no look-up, UDP": lambda bench: deferred.msilo(
        bench, "udp", "STRAIGHT", spared=True),
}
SMOKE = ["volley, TCP", "volley, UDP", "SIPp, UDP", "Kamailio tm, UDP", "bare caller, UDP", "deferred: volley, TCP",
         "deferred: Kamailio msilo, UDP"]
# A phone does not answer: there must be no rate, and this reason.
PLANTED = {"deferred: a silent phone": lambda bench: deferred.msilo(bench, "udp", "LOOKUP", silent=True)}
PLANTED_WHY = "after register the table has 1 rows"


def reconcile(said, own):
    """Both ends on every call; the reason why not, or nothing."""
    totals = said["totals"]
    if not said["reconciled"]:
        return f"the peer's counts do not add up: {totals}, {said['open']} open, {said['refused']} refused"
    for mine, theirs in [("invites", "invites"), ("accepted", "acks"), ("byes_answered", "byes")]:
        if own[mine] != totals[theirs]:
            return f"caller says {own}, peer says {totals}"
    if own["strays"] != 0:
        return f"the caller had {own['strays']} failures"
    return None


def trial(bench, name):
    """The rows of a trial: two of one that stores and delivers, else one."""
    try:
        found = (TRIALS | SHARDS | MESSAGES | DEFERRED | PLANTED)[name](bench)
    except (Failed, OSError, ValueError, KeyError, StopIteration, subprocess.TimeoutExpired,
            sqlite3.Error) as error:
        return [{"what": name, "reconciled": False, "why": f"{type(error).__name__}: {error}"}]
    finally:
        for child in list(bench.children):
            bench.stop(child, seconds=5)
    if name.startswith("deferred: "):
        return [row_of(name.replace("deferred", step), *one) for step, one in zip(("stored", "delivered"), found)]
    return [row_of(name, *found)]


def row_of(name, said, own):
    """One row; who has no counts of its own has compared them before."""
    why = reconcile(said, own) if own else None
    row = {"what": name, "reconciled": why is None, "calls": said["totals"]["completed"],
           "repeats": said["totals"]["repeats"], "caller_busy": said["caller_busy"],
           "caller_waited": said["caller_waited"], "peer_busy": said["peer_busy"],
           "processes": said["caller_processes"], "trains": said["trains"]}
    if own and "mesh" in own:
        row["mesh_frames_each"] = own["mesh"]
    if why is None:
        row |= {"us_per_push": said["us_per_push"], "pushes_per_core_s": said["pushes_per_core_s"]}
    else:
        row["why"] = why
    return row


def line(number, row):
    if not row["reconciled"]:
        return f"round {number}  {row['what']:<22} NO RATE: {row['why']}"
    mesh = row.get("mesh_frames_each")
    return (f"round {number}  {row['what']:<22} {row['pushes_per_core_s']:>9.0f} a core-second, "
            f"{row['us_per_push']:>7.2f} us; {row['calls']} counted alike at both ends; caller busy "
            f"{row['caller_busy']:.2f}, waited {row['caller_waited']:.2f}, peer busy {row['peer_busy']:.2f}"
            + (f", {mesh:.4f} mesh frames for each" if mesh else ""))


def table(rounds):
    """Median and range of the rounds, as a table for a page."""
    by_name = {}
    for one in rounds:
        for row in one:
            if row["reconciled"]:
                by_name.setdefault(row["what"], []).append(row["pushes_per_core_s"])
    floors = any(name.startswith("bare caller") for name in by_name)
    rows = ["| what | a core-second, median (range) | CPU each |", "|---|---|---|"]
    if floors:
        rows = [rows[0] + " of the bare caller, same transport |", rows[1] + "---|"]
    # What is stored, then what is delivered.
    for name, rates in sorted(by_name.items(), key=lambda one: one[0].startswith("delivered: ")):
        median = statistics.median(rates)
        spread = f"{median:,.0f} ({min(rates):,.0f}-{max(rates):,.0f})"
        if len(rates) < len(rounds):
            spread += f", {len(rates)} of {len(rounds)} rounds"
        row = f"| {name} | {spread} | {1e6 / median:.1f} us |"
        if floors:
            floor = by_name.get("bare caller, " + name.rsplit(", ", 1)[1].split(" ")[0])
            # It stores nothing, and is no measure of who does.
            row += f" {median / statistics.median(floor):.0%} |" if floor and ": " not in name else " |"
        rows.append(row)
    return "\n".join(rows)


def first_match(text, pattern):
    found = re.search(pattern, text)
    return found.group(1) if found else "of unknown version"


def versions(names, volley):
    """What ran, as each program says it of itself: one line for the page."""
    def said(*command):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except OSError:
            return ""
        # SIPp ends with 99 after it has told its version.
        return done.stdout + done.stderr

    def rsipstack():
        lock = (HERE / "rust" / "Cargo.lock").read_text()
        return first_match(lock, r'name = "rsipstack"\nversion = "([^"]+)"')

    programs = {
        "volley": lambda: first_match(said(volley, "--version"), r"volley (\S+)"),
        "SIPp": lambda: first_match(said("sipp", "-v"), r"SIPp (v?[\w.-]*\w)"),
        "Kamailio": lambda: first_match(said("kamailio", "-v"), r"version: kamailio (\S+)"),
        "rsipstack": rsipstack,
    }
    ran = [f"{name} {version()}" for name, version in programs.items() if any(name in one for one in names)]
    return f"Ran: {', '.join(ran)}." if ran else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each window")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds of calls before it")
    parser.add_argument("--only", help="trials by the beginnings of their names, separated by commas")
    parser.add_argument("--smoke", action="store_true",
                        help="a few of them with 200 or 500 users, and a planted fault; counts must agree, "
                             "rates do not matter")
    parser.add_argument("--shards", action="store_true",
                        help="our engine alone, with 1, 2 and 6 shards: a push must cost the same")
    parser.add_argument("--messages", action="store_true",
                        help="our engine alone: durable deposits, and SENDs in sessions of 20 and of 100 messages")
    parser.add_argument("--deferred", action="store_true",
                        help="a message stored for each absent user and delivered when it registers, by our engine "
                             "and by Kamailio's msilo")
    parser.add_argument("--deferred-users", type=int, default=DEFERRED_USERS, metavar="N", help="users of --deferred")
    parser.add_argument("--write", type=pathlib.Path, metavar="FILE", action="append", default=[],
                        help="put the table between <!-- NAME:begin --> and <!-- NAME:end --> of a page; NAME is "
                             "peers, shards, messages or deferred")
    parser.add_argument("--users", type=int, default=ENGINE_USERS, help="of our engine")
    parser.add_argument("--caller-cpu", type=int, default=0)
    parser.add_argument("--peer-cpu", type=int, default=1)
    parser.add_argument("--target", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--no-build", action="store_true", help="take what is built")
    parser.add_argument("--json", type=pathlib.Path, help="all rounds into this file")
    options = parser.parse_args()
    # Ended from outside, it ends what it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    part = next((part for part in ("shards", "messages", "deferred") if getattr(options, part)), "peers")
    trials = {"peers": TRIALS, "shards": SHARDS, "messages": MESSAGES, "deferred": DEFERRED}[part]
    names = SMOKE if options.smoke else list(trials)
    if options.smoke:
        options.users = 200
    if options.only:
        wanted = tuple(options.only.split(","))
        names = [name for name in names if name.startswith(wanted)]
    bench = Bench(options)
    if not (bench.programs / "uac").exists():
        names = [name for name in names if not name.startswith("rsipstack")]
    rounds, failed = [], False
    try:
        for number in range(1, options.rounds + 1):
            rows = []
            for name in names:
                found = trial(bench, name)
                # Who waits for a CPU for half a second repeats itself over UDP: in a smoke run that is no failure.
                for _ in range(2 if options.smoke else 0):
                    wrong = [row for row in found if not row["reconciled"]]
                    if wrong:
                        print(line(number, wrong[0]) + "; once more", flush=True)
                        found = trial(bench, name)
                for row in found:
                    print(line(number, row), flush=True)
                    failed |= not row["reconciled"]
                rows += found
            rounds.append(rows)
        for name in PLANTED if options.smoke and not options.only else []:
            row = trial(bench, name)[-1]
            seen = PLANTED_WHY in row.get("why", "")
            print(line(number, row) + ("; as it must be" if seen else "; THE FAULT WAS NOT SEEN"), flush=True)
            failed |= not seen
    finally:
        bench.close()
    shown = table(rounds)
    others = versions(names, bench.programs / "volley")
    if others:
        shown += f"\n\n{others}"
    print()
    print(shown)
    for page_file in options.write if not failed else []:
        begin, end = f"<!-- {part}:begin -->\n", f"<!-- {part}:end -->"
        page = page_file.read_text()
        before, rest = page.split(begin)
        _, after = rest.split(end)
        page_file.write_text(f"{before}{begin}{shown}\n{end}{after}")
    if options.json:
        options.json.write_text(json.dumps({"seconds": options.seconds, "rounds": rounds}, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
