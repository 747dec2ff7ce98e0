#!/usr/bin/env python3
"""The parts of an IMS core that the real peers leave open, for tests/interop.

  driver.py ports N             N free ports of 127.0.0.1, for TCP and UDP, each followed by a free one
  driver.py wait PORT SECONDS   until something listens on 127.0.0.1:PORT (TCP)
  driver.py checks ...          which checks of a SIPp scenario all calls passed
  driver.py counters FILE N=V.. the last counters volley wrote
  driver.py scscf ...           registration and deposits of an S-CSCF towards volley
  driver.py deposit ...         MESSAGE deposits through another proxy, and the media of the phones

Prints one line per check, `ok NAME` or `FAILED NAME: why`; exit status 1 if one failed. Everything
it waits for ends after --seconds. Standard library only; shares nothing with the engine.
"""

import argparse
import asyncio
import json
import pathlib
import random
import re
import socket
import sys

DOMAIN = "ims.example.net"
HOST = "127.0.0.1"
ICSI = "urn%3Aurn-7%3A3gpp-service.ims.icsi.oma.cpm."
FRAME_MAX = 256 * 1024


class Checks:
    """Results by name, printed as they come."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.failed = 0

    def that(self, name, good, why):
        """One check; `why` is shown when it does not hold."""
        name = self.prefix + name
        if good:
            print(f"ok {name}", flush=True)
        else:
            self.failed += 1
            print(f"FAILED {name}: {why}", flush=True)


def aor(user):
    """Public identity of user number `user`."""
    return f"sip:+1555{user:07d}@{DOMAIN}"


def instance(user, device):
    """Instance id of one device."""
    return f"urn:uuid:{user:08x}-0000-4000-8000-{device:012x}"


def text_of(user):
    """What is deposited for a user."""
    return f"Message for user {user}, round {user * 7919 % 1000}."


# --- ports -----------------------------------------------------------------------------------


def port_is_free(port):
    """Whether TCP and UDP could be bound now."""
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                return False
    return True


def free_ports(count):
    """Ports p with p and p + 1 free, below the range of outgoing connections."""
    found = []
    for port in random.sample(range(11000, 31000, 2), 10000):
        if port_is_free(port) and port_is_free(port + 1):
            found.append(port)
            if len(found) == count:
                return found
    raise SystemExit("no free ports")


async def wait_port(port, seconds):
    """True once a connection to the port succeeds."""
    for _ in range(int(seconds * 20)):
        try:
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            return True
        except OSError:
            await asyncio.sleep(0.05)
    return False


# --- SIP -------------------------------------------------------------------------------------


class Message:
    """A SIP message, as far as this script needs it."""

    def __init__(self, raw):
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.decode("utf-8", "replace").split("\r\n")
        self.start = lines[0]
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:]]

    def all(self, name):
        """Values of every header `name`."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def one(self, name):
        """Value of the first header `name`, or nothing."""
        return next(iter(self.all(name)), "")

    @property
    def method(self):
        """Of a request; empty for responses."""
        return "" if self.start.startswith("SIP/2.0") else self.start.split(" ")[0]

    @property
    def status(self):
        """Of a response; zero for requests."""
        return int(self.start.split(" ")[1]) if self.start.startswith("SIP/2.0") else 0


def build(start, headers, body=b""):
    """Bytes of a message."""
    lines = [start] + [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def reply(request, status, extra=(), tag="core"):
    """A response to `request`."""
    headers = [("Via", value) for value in request.all("Via")]
    to = request.one("To")
    if ";tag=" not in to:
        to += f";tag={tag}"
    headers += [("From", request.one("From")), ("To", to)]
    headers += [("Call-ID", request.one("Call-ID")), ("CSeq", request.one("CSeq"))]
    return build(f"SIP/2.0 {status}", headers + list(extra))


async def read_sip(reader):
    """The next message of a stream; None at its end."""
    while True:
        head = await reader.readuntil(b"\r\n")
        if head != b"\r\n":
            break
    head += await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?im)^(?:content-length|l)[ \t]*:[ \t]*(\d+)", head)
    return head + await reader.readexactly(int(length.group(1)))


class Datagrams(asyncio.DatagramProtocol):
    """UDP socket that hands each message to `handle(raw, send)`."""

    def __init__(self, handle):
        self.handle = handle
        self.transport = None

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        if data.strip():
            self.handle(data, lambda out: self.transport.sendto(out, addr))


class Endpoint:
    """One SIP address of the core, over TCP or UDP."""

    def __init__(self, transport, port, handle):
        self.transport = transport
        self.port = port
        self.handle = handle
        self.tasks = set()
        # Connections of peers that are open now.
        self.accepted = 0
        self.socket = None
        self.server = None

    async def open(self):
        """Listens."""
        loop = asyncio.get_running_loop()
        if self.transport == "udp":
            _, self.socket = await loop.create_datagram_endpoint(
                lambda: Datagrams(self.handle), local_addr=(HOST, self.port)
            )
        else:
            self.server = await asyncio.start_server(
                self.accept, HOST, self.port, limit=FRAME_MAX
            )

    async def accept(self, reader, writer):
        """A connection of a peer."""
        self.accepted += 1
        await self.serve(reader, writer)
        self.accepted -= 1

    async def serve(self, reader, writer):
        """One connection until it ends."""
        try:
            while True:
                self.handle(await read_sip(reader), writer.write)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()

    async def towards(self, port):
        """A function that sends to 127.0.0.1:port; answers come to `handle`."""
        if self.transport == "udp":
            return lambda out: self.socket.transport.sendto(out, (HOST, port))
        reader, writer = await asyncio.open_connection(HOST, port, limit=FRAME_MAX)
        task = asyncio.ensure_future(self.serve(reader, writer))
        self.tasks.add(task)
        return writer.write


# --- MSRP: the media of every phone ------------------------------------------------------------


class Media:
    """Receives MSRP, answers 200, reports success; keeps what each path got.

    With `stall` it leaves every SEND that has a body unanswered, and only counts it.
    """

    def __init__(self, port, stall=False):
        self.port = port
        self.stall = stall
        self.stalled = 0
        self.got = []
        self.broken = []
        self.reports = 0

    async def open(self):
        """Listens."""
        await asyncio.start_server(self.serve, HOST, self.port, limit=FRAME_MAX)

    async def serve(self, reader, writer):
        """One connection until it ends."""
        parts = {}
        try:
            while True:
                first = (await reader.readuntil(b"\r\n")).decode()
                _, tid, method = first.strip().split(" ")[:3]
                end = b"-------" + tid.encode()
                raw = await reader.readuntil(b"\r\n" + end) if method == "SEND" else None
                if raw is None:
                    await reader.readuntil(end + b"$\r\n")
                    continue
                flag = await reader.readexactly(3)
                self.take(raw, tid, flag[:1], parts, writer)
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            writer.close()
        except (ValueError, asyncio.LimitOverrunError) as error:
            self.broken.append(str(error))
            writer.close()

    def take(self, raw, tid, flag, parts, writer):
        """One SEND."""
        head, has_body, rest = raw.partition(b"\r\n\r\n")
        if not has_body:
            head = raw
        elif self.stall:
            self.stalled += 1
            return
        headers = {}
        for line in head.decode().split("\r\n"):
            name, colon, value = line.partition(":")
            if colon:
                headers[name] = value.strip()
        ours, theirs = headers["To-Path"], headers["From-Path"]
        writer.write(
            f"MSRP {tid} 200 OK\r\nTo-Path: {theirs}\r\nFrom-Path: {ours}\r\n"
            f"-------{tid}$\r\n".encode()
        )
        if not has_body:
            return
        body = rest[: rest.rfind(b"\r\n-------" + tid.encode())]
        name = headers["Message-ID"]
        parts[name] = parts.get(name, b"") + body
        if flag != b"$":
            return
        whole = parts.pop(name)
        session = re.match(r"msrp://[^/]+/([^;]+);tcp", ours)
        self.got.append((session.group(1) if session else ours, whole))
        total = headers["Byte-Range"].split("/")[1]
        if str(len(whole)) != total:
            self.broken.append(f"{len(whole)} octets of {total} in {name}")
        if headers.get("Success-Report") == "yes":
            self.reports += 1
            writer.write(
                f"MSRP r{tid[:24]} REPORT\r\nTo-Path: {theirs}\r\nFrom-Path: {ours}\r\n"
                f"Message-ID: {name}\r\nByte-Range: 1-{total}/{total}\r\nStatus: 000 200 OK\r\n"
                f"-------r{tid[:24]}$\r\n".encode()
            )

    def judge(self, checks, users, devices):
        """Every device got the message of its user, once, whole."""
        want = sorted((instance(u, d)[9:], text_of(u)) for u in users for d in range(1, devices + 1))
        have = []
        for session, whole in self.got:
            _, _, content = whole.partition(b"\r\n\r\n")
            have.append((session, content.partition(b"\r\n\r\n")[2].decode("utf-8", "replace")))
        have.sort()
        missing = [item for item in want if item not in have]
        extra = [item for item in have if item not in want]
        twice = [item for at, item in enumerate(have) if at and have[at - 1] == item]
        checks.that("media-every-device-got-its-message", not missing, f"missing {missing[:3]}")
        checks.that("media-nothing-twice", not twice, f"twice {twice[:3]}")
        checks.that("media-nothing-else", not extra, f"unexpected {extra[:3]}")
        checks.that("media-whole", not self.broken, self.broken[:3])


# --- what the core does --------------------------------------------------------------------------


def cpim(user):
    """The CPIM of a deposit."""
    return (
        f"From: <sip:+15550177@{DOMAIN}>\r\nTo: <{aor(user)}>\r\n"
        "DateTime: 2026-11-22T05:58:01Z\r\nNS: imdn <urn:ietf:params:imdn>\r\n"
        f"imdn.Message-ID: interop-{user}\r\n"
        "imdn.Disposition-Notification: positive-delivery, negative-delivery\r\n\r\n"
        "Content-Type: text/plain; charset=UTF-8\r\n\r\n"
        f"{text_of(user)}"
    ).encode()


def deposit(user, transport, port):
    """MESSAGE for a user."""
    headers = [
        ("Via", f"SIP/2.0/{transport.upper()} {HOST}:{port};branch=z9hG4bKm{user}x{port}"),
        ("Max-Forwards", "66"),
        ("From", f"<sip:+15550177@{DOMAIN}>;tag=snd{user}"),
        ("To", f"<{aor(user)}>"),
        ("Call-ID", f"deposit-{user}-{port}"),
        ("CSeq", "1 MESSAGE"),
        ("Expires", "86400"),
        ("P-Asserted-Identity", f"<sip:+15550177@{DOMAIN}>"),
        ("P-Asserted-Service", "urn:urn-7:3gpp-service.ims.icsi.oma.cpm.msg"),
        ("Conversation-ID", f"4f93f0fe-86d6-462c-9ba2-{user:012x}"),
        ("Contribution-ID", f"94d850fb-ed40-437e-9609-{user:012x}"),
        ("Content-Type", "message/cpim"),
    ]
    return build(f"MESSAGE {aor(user)} SIP/2.0", headers, cpim(user))


def register(user, transport, port):
    """Third-party REGISTER for a user."""
    contact = f"<sip:{HOST}:{port};transport={transport}>"
    headers = [
        ("Via", f"SIP/2.0/{transport.upper()} {HOST}:{port};branch=z9hG4bKr{user}x{port}"),
        ("Max-Forwards", "70"),
        ("From", f"<sip:scscf1.{DOMAIN}>;tag=s3p{user}"),
        ("To", f"<{aor(user)}>"),
        ("Call-ID", f"register-{user}-{port}"),
        ("CSeq", "43 REGISTER"),
        ("Contact", contact),
        ("Expires", "600000"),
        ("P-Charging-Vector", f'icid-value="s-{user}";orig-ioi="{DOMAIN}"'),
    ]
    return build(f"REGISTER sip:pf.{DOMAIN} SIP/2.0", headers)


def reginfo(user, version, devices):
    """Full registration state, with public GRUUs; no devices: not registered."""
    rows = []
    for device in range(1, devices + 1):
        name = instance(user, device)
        rows.append(
            f'<contact id="c{device}" state="active" event="registered" '
            f'duration-registered="3" callid="reg-{device}@198.51.100.7" cseq="1" expires="3597">'
            f"<uri>sip:+1555{user:07d}@198.51.100.{device}:5060</uri>"
            f'<unknown-param name="+sip.instance">"&lt;{name}&gt;"</unknown-param>'
            f'<unknown-param name="+g.3gpp.icsi-ref">"{ICSI}msg,{ICSI}largemsg,{ICSI}deferred"'
            f'</unknown-param><gr:pub-gruu uri="{aor(user)};gr={name}"/></contact>'
        )
    state = "active" if rows else "init"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<reginfo xmlns="urn:ietf:params:xml:ns:reginfo" '
        f'xmlns:gr="urn:ietf:params:xml:ns:gruuinfo" version="{version}" state="full">'
        f'<registration aor="{aor(user)}" id="r1" state="{state}">{"".join(rows)}'
        "</registration></reginfo>"
    ).encode()


class Scscf:
    """Deposits, registers and notifies for some users, and counts what came of it."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.users = range(arguments.first, arguments.first + arguments.users)
        self.endpoint = Endpoint(arguments.transport, arguments.listen, self.handle)
        self.send = None
        self.registered = set()
        self.dialogs = {}
        self.answers = {}
        self.wrong = []

    def handle(self, raw, send):
        """A message from volley."""
        message = Message(raw)
        if message.status:
            if message.status >= 200:
                key = (message.one("CSeq").split()[1], message.one("Call-ID"), message.one("CSeq"))
                self.answers.setdefault(key, message.status)
        elif message.method == "SUBSCRIBE":
            self.subscribed(message, send)
        else:
            self.wrong.append(message.start)
            send(reply(message, "501 Not Implemented"))

    def subscribed(self, message, send):
        """SUBSCRIBE: 200, then the state as it is."""
        user = int(re.match(r"SUBSCRIBE sip:\+1555(\d{7})@", message.start).group(1))
        wanted = {
            "Event": "reg",
            "Accept": "application/reginfo+xml",
            "P-Asserted-Identity": f"<sip:cpm-pf@{DOMAIN}>",
        }
        for name, value in wanted.items():
            if message.one(name) != value:
                self.wrong.append(f"{name}: {message.one(name)} in SUBSCRIBE")
        own = f"<sip:{HOST}:{self.arguments.listen};transport={self.arguments.transport}>"
        expires = message.one("Expires")
        send(reply(message, "200 OK", [("Contact", own), ("Expires", expires)], f"n{user}"))
        if user not in self.dialogs:
            self.dialogs[user] = {"request": message, "send": send, "cseq": 0, "contact": own}
            self.notify(user)

    def notify(self, user):
        """NOTIFY in the user's dialog."""
        dialog = self.dialogs[user]
        request = dialog["request"]
        dialog["cseq"] += 1
        cseq, port = dialog["cseq"], self.arguments.listen
        transport = self.arguments.transport.upper()
        target = re.search(r"<([^>]+)>", request.one("Contact")).group(1)
        devices = self.arguments.devices if user in self.registered else 0
        headers = [
            ("Via", f"SIP/2.0/{transport} {HOST}:{port};branch=z9hG4bKn{user}x{cseq}x{port}"),
            ("Max-Forwards", "70"),
            ("From", f"{request.one('To')};tag=n{user}"),
            ("To", request.one("From")),
            ("Call-ID", request.one("Call-ID")),
            ("CSeq", f"{cseq} NOTIFY"),
            ("Contact", dialog["contact"]),
            ("Event", "reg"),
            ("Subscription-State", "active;expires=599999"),
            ("Content-Type", "application/reginfo+xml"),
        ]
        body = reginfo(user, cseq - 1, devices)
        dialog["send"](build(f"NOTIFY {target} SIP/2.0", headers, body))

    async def until(self, condition):
        """Waits for a condition, within the time."""
        loop = asyncio.get_running_loop()
        while not condition() and loop.time() < self.deadline:
            await asyncio.sleep(0.02)
        return condition()

    def count(self, method, status, cseq=""):
        """Requests of ours that were answered with `status`."""
        return sum(
            1
            for (name, _, number), got in self.answers.items()
            if name == method and got == status and number.startswith(cseq)
        )

    async def run(self, checks):
        """Deposit, subscription, registration, media."""
        arguments, users = self.arguments, self.users
        self.deadline = asyncio.get_running_loop().time() + arguments.seconds
        media = Media(arguments.msrp, arguments.stall)
        await media.open()
        await self.endpoint.open()
        up = await wait_port(arguments.volley, arguments.seconds)
        if up and arguments.transport == "tcp":
            up = await self.until(lambda: self.endpoint.accepted > 0)
        checks.that("engine-connects", up, "it does not listen, or opened no trunk")
        self.send = await self.endpoint.towards(arguments.volley)
        for user in users:
            self.send(deposit(user, arguments.transport, arguments.listen))
        await self.until(lambda: self.count("MESSAGE", 202) == len(users))
        got = self.count("MESSAGE", 202)
        checks.that("deposit-202", got == len(users), f"{got} of {len(users)}: {self.answers}")
        await self.until(lambda: len(self.dialogs) == len(users))
        got = len(self.dialogs)
        checks.that("subscribe-for-users-with-mail", got == len(users), f"{got} of {len(users)}")
        await self.until(lambda: self.count("NOTIFY", 200, "1 ") == len(self.dialogs))
        for user in list(self.dialogs):
            self.registered.add(user)
            self.send(register(user, arguments.transport, arguments.listen))
            self.notify(user)
        await self.until(
            lambda: self.count("NOTIFY", 200, "2 ") == self.count("REGISTER", 200) == len(users)
        )
        got = self.count("REGISTER", 200)
        checks.that("third-party-register-200", got == len(users), f"{got} of {len(users)}")
        got = self.count("NOTIFY", 200)
        checks.that("notify-200", got == 2 * len(users), f"{got} of {2 * len(users)}")
        expected = len(users) * arguments.devices
        if arguments.media and not arguments.stall:
            await self.until(lambda: len(media.got) >= expected)
        if arguments.stay:
            stopped = await self.until(pathlib.Path(arguments.stay).exists)
            checks.that("scenario-ends-in-time", stopped, f"not in {arguments.seconds} s")
        if arguments.stall:
            got = media.stalled
            checks.that("media-under-way", got >= expected, f"{got} of {expected}")
        elif arguments.media:
            await asyncio.sleep(1)
            media.judge(checks, users, arguments.devices)
        else:
            await asyncio.sleep(1)
            checks.that("media-none", not media.got, f"{len(media.got)} messages")
        checks.that("core-nothing-unexpected", not self.wrong, self.wrong[:3])


class Depositor:
    """Deposits through a proxy that finds nobody registered, and is the media of the phones."""

    def __init__(self, arguments):
        self.arguments = arguments
        self.statuses = []
        self.endpoint = Endpoint(arguments.transport, arguments.listen, self.handle)

    def handle(self, raw, send):
        """A response of the proxy."""
        message = Message(raw)
        if message.status >= 200:
            self.statuses.append(message.status)
        elif message.method:
            send(reply(message, "501 Not Implemented"))

    async def run(self, checks):
        """Deposits, then prints `deposited`, then waits for the media."""
        arguments = self.arguments
        media = Media(arguments.msrp)
        users = range(arguments.first, arguments.first + arguments.users)
        await media.open()
        await self.endpoint.open()
        send = await self.endpoint.towards(arguments.proxy)
        for user in users:
            send(deposit(user, arguments.transport, arguments.listen))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + arguments.seconds
        while len(self.statuses) < len(users) and loop.time() < deadline:
            await asyncio.sleep(0.02)
        good = self.statuses == [202] * len(users)
        checks.that("deposit-202-through-the-proxy", good, f"{self.statuses}")
        while len(media.got) < len(users) * arguments.devices and loop.time() < deadline:
            await asyncio.sleep(0.02)
        await asyncio.sleep(1)
        media.judge(checks, users, arguments.devices)


# --- results of SIPp -----------------------------------------------------------------------------


def scenario_checks(arguments, checks):
    """A check passed when every call wrote its line."""
    scenario = pathlib.Path(arguments.scenario).read_text(encoding="utf-8")
    names = re.findall(r'<log message="ok ([a-z0-9-]+)', scenario)
    log = pathlib.Path(arguments.log)
    lines = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    for name in names:
        got = len(re.findall(rf"\bok {name}\b(?!-)", lines))
        why = f"{got} of {arguments.calls} calls passed it"
        checks.that(name, got == arguments.calls, why)
    if not names:
        checks.that("scenario", False, "the scenario names no checks")


def counter_checks(arguments, checks):
    """Counters of volley's last JSON line."""
    text = pathlib.Path(arguments.file).read_text(encoding="utf-8")
    lines = [line for line in text.split("\n") if line.startswith("{")]
    counters = json.loads(lines[-1])["counters"] if lines else {}
    for wanted in arguments.wanted:
        name, _, value = wanted.partition("=")
        got = counters.get(name)
        short = name.removesuffix("_total").replace("_", "-")
        label = f"volley-counts-{short}-{value}"
        checks.that(label, str(got) == value, f"it counted {got}")


def main():
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    ports = commands.add_parser("ports")
    ports.add_argument("count", type=int)
    wait = commands.add_parser("wait")
    wait.add_argument("port", type=int)
    wait.add_argument("seconds", type=float)
    results = commands.add_parser("checks")
    results.add_argument("--scenario", required=True)
    results.add_argument("--log", required=True)
    results.add_argument("--calls", type=int, required=True)
    results.add_argument("--prefix", default="")
    counters = commands.add_parser("counters")
    counters.add_argument("--prefix", default="")
    counters.add_argument("file")
    counters.add_argument("wanted", nargs="+")
    for name, port in (("scscf", "--volley"), ("deposit", "--proxy")):
        command = commands.add_parser(name)
        command.add_argument(port, type=int, required=True, help="its SIP port")
        command.add_argument("--prefix", default="")
        command.add_argument("--transport", choices=("tcp", "udp"), required=True)
        command.add_argument("--listen", type=int, required=True, help="our SIP port")
        command.add_argument("--msrp", type=int, required=True, help="MSRP port of all phones")
        command.add_argument("--first", type=int, default=1, help="number of the first user")
        command.add_argument("--users", type=int, default=1)
        command.add_argument("--devices", type=int, default=2)
        command.add_argument("--seconds", type=float, default=20)
        command.add_argument("--no-media", dest="media", action="store_false")
        command.add_argument("--stall", action="store_true", help="leave bodies unanswered")
        command.add_argument("--stay", metavar="FILE", help="stay until this file is there")
    arguments = parser.parse_args()
    checks = Checks(getattr(arguments, "prefix", ""))
    if arguments.command == "ports":
        print(*free_ports(arguments.count))
    elif arguments.command == "wait":
        return 0 if asyncio.run(wait_port(arguments.port, arguments.seconds)) else 1
    elif arguments.command == "checks":
        scenario_checks(arguments, checks)
    elif arguments.command == "counters":
        counter_checks(arguments, checks)
    else:
        part = Scscf(arguments) if arguments.command == "scscf" else Depositor(arguments)
        asyncio.run(part.run(checks))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
