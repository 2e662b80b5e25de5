"""Publishing with dor against `s5cmd sync`: the same trees, to the same MinIO, in turn.

    publish.py FOLDER --dor DOR --s5cmd S5CMD --minio MINIO [--toxiproxy SERVER]
               [--latency MS ...] [--runs N] [--scale F]

`many`: 20,000 objects of 300 KB; `large`: 40 files of 150 MB; both with the records that
conversions leave, which is what dor plans from. For each: the first publish, a rerun with nothing
to do, a rerun after 1 % of the objects have changed. Prints medians, CPU seconds and peak memory
of the client, and the objects that each sent.
"""

import argparse
import hashlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import time
import urllib.request
from pathlib import Path

KEYS = {
    "AWS_ACCESS_KEY_ID": "bench",
    "AWS_SECRET_ACCESS_KEY": "bench-secret",
    "AWS_REGION": "us-east-1",
}
TREES = {"many": (20_000, 300_000), "large": (40, 150_000_000)}
FILES_OF_A_CASE = 180
# As `part_size` is by default: records have the MD5 of each part.
PART_SIZE = 16 << 20


def write_tree(root: Path, number: int, size: int) -> None:
    """Random files `PPP/MM/*.nc` with a record for each folder, as conversions leave them."""
    if (root / "complete").exists():
        return
    cases = -(-number // FILES_OF_A_CASE)
    for case in range(cases):
        folder = f"{case // 4:03}/{1 + 3 * (case % 4):02}"
        (root / "tree" / folder).mkdir(parents=True, exist_ok=True)
        files = []
        for n in range(min(FILES_OF_A_CASE, number - case * FILES_OF_A_CASE)):
            key = f"{folder}/{n:03}.nc"
            files.append({"key": key, "size": size, **write_random(root / "tree" / key, size)})
        write_record(root / "tree" / folder, files)
    (root / "complete").touch()


def write_random(path: Path, size: int) -> dict:
    """In small pieces: the memory of this process counts as that of the commands it starts."""
    whole, parts, left = hashlib.sha256(), [], size
    with path.open("wb") as file:
        while left > 0:
            if (size - left) % PART_SIZE == 0:
                parts.append(hashlib.md5())
            data = os.urandom(min(left, 1 << 20))
            whole.update(data)
            parts[-1].update(data)
            file.write(data)
            left -= len(data)
    md5 = [part.hexdigest() for part in parts]
    return {"sha256": whole.hexdigest(), "md5": md5 if len(md5) > 1 else md5[0]}


def write_record(folder: Path, files: list) -> None:
    (folder / "manifest.json").write_text(
        json.dumps(
            {
                "format": 2,
                "recipe": {"product": "bench"},
                "part_size": PART_SIZE,
                "files": files,
            }
        )
    )


def change(root: Path, share: float) -> int:
    """Other bytes for a share of the objects, and their records; how many objects differ."""
    changed, every = 0, round(1 / share)
    records = 0
    for record in sorted(root.glob("tree/*/*/manifest.json")):
        files = json.loads(record.read_text())["files"]
        before = changed
        for n, file in enumerate(files):
            if n % every == every // 2:
                file.update(write_random(root / "tree" / file["key"], file["size"]))
                changed += 1
        if changed > before:
            write_record(record.parent, files)
            records += 1
    return changed + records


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port: int) -> None:
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


class Servers:
    """MinIO, and before it a proxy that lets its answers wait."""

    def __init__(self, args: argparse.Namespace):
        self.data = args.folder / "minio"
        shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(parents=True)
        self.port = free_port()
        env = {
            "MINIO_ROOT_USER": "bench",
            "MINIO_ROOT_PASSWORD": "bench-secret",
            "PATH": os.environ["PATH"],
        }
        env["HOME"] = str(args.folder)
        command = [args.minio, "server", "--quiet", "--address", f"127.0.0.1:{self.port}"]
        command += ["--console-address", "127.0.0.1:0", str(self.data)]
        self.started = [
            subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        ]
        wait_for(self.port)
        self.proxies = {}
        if args.toxiproxy:
            self.control = free_port()
            command = [args.toxiproxy, "-port", str(self.control)]
            self.started.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
            wait_for(self.control)

    def ask(self, path: str, document: dict) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.control}{path}", json.dumps(document).encode()
        )
        urllib.request.urlopen(request).read()

    def endpoint(self, latency: int) -> str:
        if latency == 0:
            return f"http://127.0.0.1:{self.port}"
        if latency not in self.proxies:
            listen = f"127.0.0.1:{free_port()}"
            name = f"after-{latency}-ms"
            self.ask(
                "/proxies", {"name": name, "listen": listen, "upstream": f"127.0.0.1:{self.port}"}
            )
            self.ask(
                f"/proxies/{name}/toxics", {"type": "latency", "attributes": {"latency": latency}}
            )
            self.proxies[latency] = listen
        return f"http://{self.proxies[latency]}"

    def bucket(self, name: str) -> Path:
        folder = self.data / name
        folder.mkdir()
        return folder

    def stop(self) -> None:
        for process in self.started:
            process.terminate()
            process.wait()
        shutil.rmtree(self.data, ignore_errors=True)


def timed(command: list, env: dict, cwd: Path) -> dict:
    """Seconds, CPU seconds, peak MB of a command, and the objects it says it sent."""
    out = cwd / "out.txt"
    with out.open("w") as to:
        begun = time.monotonic()
        process = subprocess.Popen(command, env=env, cwd=cwd, stdout=to, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        took = time.monotonic() - begun
    lines = out.read_text().splitlines()
    if status != 0:
        raise SystemExit("\n".join([*map(str, command), *lines[-20:]]))
    sent = sum(line.startswith(('{"sent"', "cp ")) for line in lines)
    return {
        "s": took,
        "cpu": usage.ru_utime + usage.ru_stime,
        "mb": usage.ru_maxrss / 1024,
        "sent": sent,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    for name in ["dor", "s5cmd", "minio"]:
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--toxiproxy")
    parser.add_argument("--latency", type=int, nargs="+", default=[0])
    parser.add_argument("--trees", nargs="+", default=list(TREES), choices=list(TREES))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of objects")
    args = parser.parse_args()
    args.folder = args.folder.resolve()
    args.folder.mkdir(parents=True, exist_ok=True)
    servers = Servers(args)
    try:
        for tree in args.trees:
            number, size = TREES[tree]
            root = args.folder / f"{tree}-{args.scale:g}"
            write_tree(root, round(number * args.scale), size)
            for latency in args.latency:
                compare(args, servers, root, tree, latency)
            # FOLDER may be memory.
            shutil.rmtree(root)
    finally:
        servers.stop()


def compare(
    args: argparse.Namespace, servers: Servers, root: Path, tree: str, latency: int
) -> None:
    endpoint = servers.endpoint(latency)
    base = {"PATH": os.environ["PATH"], "HOME": str(args.folder), **KEYS}
    found = {}
    for run in range(args.runs):
        places, commands = {}, {}
        for who in ["dor", "s5cmd"]:
            bucket = f"{who}-{tree}-{latency}-{run}"
            places[who] = servers.bucket(bucket)
            state = args.folder / "state" / bucket
            shutil.rmtree(state, ignore_errors=True)
            if who == "dor":
                command = [
                    args.dor,
                    "publish",
                    "tree",
                    f"s3://{bucket}/x",
                    "--profile",
                    "minio",
                    "--json",
                ]
                commands[who] = (
                    command,
                    {**base, "DOR_STATE_DIR": str(state), "DOR_S3_ENDPOINT_URL": endpoint},
                )
            else:
                command = [args.s5cmd, "sync", "tree/", f"s3://{bucket}/x/"]
                commands[who] = (command, {**base, "S3_ENDPOINT_URL": endpoint})
        order = ["dor", "s5cmd"] if run % 2 == 0 else ["s5cmd", "dor"]
        for step in ["first", "again", "1 %"]:
            differ = change(root, 0.01) if step == "1 %" and tree == "many" else 0
            if step == "1 %" and tree != "many":
                continue
            for who in order:
                command, env = commands[who]
                os.sync()
                result = timed(command, env, root)
                found.setdefault((step, who), []).append({**result, "differ": differ})
        for place in places.values():
            shutil.rmtree(place)
        for (step, who), results in found.items():
            print(f"  {tree}, {latency} ms, run {run + 1}: {step}, {who}", results[-1], flush=True)
    for step in ["first", "again", "1 %"]:
        if (step, "dor") not in found:
            continue
        middle = {
            who: {
                what: statistics.median(r[what] for r in found[step, who])
                for what in ["s", "cpu", "mb", "sent", "differ"]
            }
            for who in ["dor", "s5cmd"]
        }
        ratio = middle["s5cmd"]["s"] / middle["dor"]["s"]
        print(
            f"{tree}, {latency} ms, {step}: dor has {ratio:.2f} of the speed of s5cmd", flush=True
        )
        for who, m in middle.items():
            use = f"CPU {m['cpu']:.2f} s, {m['mb']:.0f} MB, {m['sent']:.0f} sent"
            print(f"    {who}: {m['s']:.2f} s, {use}", flush=True)
        if middle["dor"]["differ"]:
            print(
                f"    {middle['dor']['differ']:.0f} objects differed, records among them",
                flush=True,
            )


if __name__ == "__main__":
    main()
