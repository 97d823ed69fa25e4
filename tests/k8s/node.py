"""Nodes of a Kubernetes cluster without a kubelet: bound pods run as processes of this host.

For tests of what controllers make of our exit codes, on a machine that has a control plane and nothing else. It is the scheduler, too.

A pod has an address of its own (a network namespace, all of them on a bridge in one more) and a file system of its own (a mount
namespace: the host's libraries, the program that stands for its image, and its volumes); it runs as the user that it asks for, is
probed, is asked to stop and then killed, and leaves its log and its termination message. Names of headless Services are in
its /etc/hosts. Limits of processors and memory are those of a control group (version 1; elsewhere there are none). Not there: network
policies, restarts within a pod, init containers, exec.

    node.py --server URL --token TOKEN --folder FOLDER --image NAME=PROGRAM [--nodes 2]

Needs root, Linux and iproute2. Ends, and cleans up, on SIGTERM.
"""

import argparse
import base64
import contextlib
import ctypes
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

SUBNET = "10.231.7"
CGROUPS = pathlib.Path("/sys/fs/cgroup")
SYNC_SECONDS = 0.2
HEARTBEAT_SECONDS = 8
MESSAGE_BYTES = 4096

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
PR_SET_NO_NEW_PRIVS = 38
libc = ctypes.CDLL(None, use_errno=True)


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def called(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def mount(source, target, kind=None, flags=0, options=None):
    texts = [None if t is None else str(t).encode() for t in (source, target, kind)]
    called(libc.mount(*texts, flags, None if options is None else options.encode()))


def enter_network(name):
    with open(f"/run/netns/{name}") as file:
        called(libc.setns(file.fileno(), CLONE_NEWNET))


def ip(*args, check=True):
    subprocess.run(["ip", *args], check=check, stdout=subprocess.DEVNULL, stderr=None if check else subprocess.DEVNULL)


class Api:
    """The API server, as an administrator."""

    def __init__(self, server, token):
        self.server, self.token = server, token
        self.context = ssl._create_unverified_context()

    def call(self, method, path, body=None, kind="application/json"):
        request = urllib.request.Request(self.server + path, method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        data = None
        if body is not None:
            request.add_header("Content-Type", kind)
            data = json.dumps(body).encode()
        with urllib.request.urlopen(request, data, timeout=20, context=self.context) as answer:
            return json.load(answer)

    def get(self, path):
        return self.call("GET", path)

    def patch_status(self, path, status):
        return self.call("PATCH", f"{path}/status", {"status": status}, "application/strategic-merge-patch+json")


class Refused(Exception):
    """Why a container does not start: what the kubelet would give as the reason of its waiting."""

    def __init__(self, reason, message):
        super().__init__(message)
        self.reason = reason


# ---------------------------------------------------------------------------------------------- inside the pod: node.py --container


def container(plan):
    """Becomes a container: enters its groups and namespaces, builds its file system, drops its rights, and executes the program."""
    for group in plan["cgroups"]:
        pathlib.Path(group, "cgroup.procs").write_text(str(os.getpid()))
    enter_network(plan["network"])
    called(libc.unshare(CLONE_NEWNS))
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    root = pathlib.Path(plan["root"])
    mount("root", root, "tmpfs", MS_NOSUID, "mode=0755")
    for name in ("usr", "bin", "lib", "lib64", "etc/ssl", "etc/ld.so.cache", "etc/nsswitch.conf"):
        if (pathlib.Path("/") / name).exists():
            bind(f"/{name}", root / name)
    for name in ("proc", "dev", "etc", "tmp", "sys"):
        (root / name).mkdir(exist_ok=True)
    mount("/proc", root / "proc", flags=MS_BIND | MS_REC)
    bind("/sys/fs/cgroup", root / "sys/fs/cgroup")
    for name in ("null", "zero", "random", "urandom"):
        bind(f"/dev/{name}", root / "dev" / name)
    bind(plan["hosts"], root / "etc/hosts")
    bind(plan["program"], root / "program")
    bind(plan["termination"], root / plan["terminationPath"].lstrip("/"))
    for source, target, kind, size in plan["mounts"]:
        place = root / target.lstrip("/")
        if kind == "memory":
            place.mkdir(parents=True, exist_ok=True)
            mount("memory", place, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=1777,size={size}")
        else:
            bind(source, place)
    if plan["readOnly"]:
        mount("root", root, None, MS_REMOUNT | MS_BIND | MS_RDONLY)
    os.chroot(root)
    os.chdir("/")
    called(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    os.setgroups(plan["groups"])
    os.setgid(plan["group"])
    os.setuid(plan["user"])
    command = plan["command"] or ["/program"]
    os.execve(command[0], [*command, *plan["args"]], plan["env"])


def bind(source, target):
    source = pathlib.Path(source).resolve()
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(source, target, flags=MS_BIND | MS_REC)


# ---------------------------------------------------------------------------------------------------------------------- a pod


def quantity(text):
    number, unit = re.fullmatch(r"(\d+)([KMGT]i|m)?", text).groups()
    if unit == "m":
        return int(number) / 1000
    return int(number) * 1024 ** " KMGT".index(unit[0]) if unit else int(number)


class Pod:
    """A bound pod, and the process of its one container."""

    def __init__(self, node, found, number):
        self.node, self.number = node, number
        self.update(found)
        self.uid, self.name, self.namespace = (found["metadata"][k] for k in ("uid", "name", "namespace"))
        self.address = f"{SUBNET}.{number}"
        self.network = f"soup-pod-{number}"
        self.folder = node.folder / "pods" / self.uid
        self.process = self.waiting = self.exit_code = self.killed_at = None
        self.reason = ""
        self.started_at = None
        self.probes = {}
        self.ready = self.started = False
        self.reported = None
        self.connected, self.cgroups = False, []

    def update(self, found):
        self.found, self.spec = found, found["spec"]
        self.container = self.spec["containers"][0]

    @property
    def path(self):
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    @property
    def log(self):
        return self.folder / "log"

    def start(self):
        """Tries to start the container; again at the next round where something is not there yet."""
        try:
            plan = self.plan()
        except Refused as refused:
            self.waiting = {"reason": refused.reason, "message": str(refused)}
            return
        if not self.connected:
            self.connect()
        plan_file = self.folder / "plan.json"
        plan_file.write_text(json.dumps(plan))
        with open(self.log, "ab") as log:
            command = [sys.executable, __file__, "--container", str(plan_file)]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.waiting, self.started_at = None, now()
        say(f"{self.namespace}/{self.name} started at {self.address} on {self.spec['nodeName']}")

    def connect(self):
        """An address on the bridge."""
        ip("netns", "add", self.network)
        ip("-n", self.node.network, "link", "add", f"v{self.number}", "type", "veth", "peer", "name", "eth0", "netns", self.network)
        ip("-n", self.node.network, "link", "set", f"v{self.number}", "master", "br0", "up")
        ip("-n", self.network, "addr", "add", f"{self.address}/24", "dev", "eth0")
        ip("-n", self.network, "link", "set", "eth0", "up")
        ip("-n", self.network, "link", "set", "lo", "up")
        self.connected = True

    def plan(self):
        if len(self.spec["containers"]) != 1 or self.spec.get("initContainers"):
            raise Refused("CreateContainerConfigError", "this node runs pods of one container")
        program = self.node.images.get(self.container["image"])
        if program is None:
            raise Refused("ErrImagePull", f"there is no image {self.container['image']}")
        security = self.spec.get("securityContext", {})
        own = self.container.get("securityContext", {})
        group = security.get("fsGroup", security.get("runAsGroup", 0))
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "root").mkdir(exist_ok=True)
        termination = self.folder / "termination"
        termination.touch()
        termination.chmod(0o666)
        hosts = self.folder / "hosts"
        hosts.touch()
        return {
            "network": self.network, "root": str(self.folder / "root"), "program": program, "hosts": str(hosts),
            "termination": str(termination), "terminationPath": self.container.get("terminationMessagePath", "/dev/termination-log"),
            "mounts": self.mounts(group), "readOnly": own.get("readOnlyRootFilesystem", False),
            "user": security.get("runAsUser", 0), "group": security.get("runAsGroup", 0), "groups": [group],
            "cgroups": self.limit(), "command": self.container.get("command", []),
            "args": [self.expand(a, self.variables()) for a in self.container.get("args", [])], "env": self.variables(),
        }  # fmt: skip

    def limit(self):
        """Control groups with the container's limits."""
        limits = self.container.get("resources", {}).get("limits", {})
        settings = []
        if "cpu" in limits:
            settings.append(("cpu", "cpu.cfs_quota_us", int(quantity(limits["cpu"]) * 100_000)))
        if "memory" in limits:
            settings.append(("memory", "memory.limit_in_bytes", quantity(limits["memory"])))
        self.cgroups = []
        for controller, name, value in settings:
            group = CGROUPS / controller / f"soup-{self.uid}"
            if (CGROUPS / controller / name).exists() or (CGROUPS / controller / "cgroup.procs").exists():
                group.mkdir(exist_ok=True)
                (group / name).write_text(str(value))
                self.cgroups.append(str(group))
        return self.cgroups

    def mounts(self, group):
        volumes = {v["name"]: v for v in self.spec.get("volumes", [])}
        mounts = []
        for wanted in sorted(self.container.get("volumeMounts", []), key=lambda m: m["mountPath"]):
            volume = volumes[wanted["name"]]
            memory = volume.get("emptyDir", {}).get("medium") == "Memory"
            size = quantity(volume["emptyDir"].get("sizeLimit", "64Mi")) if memory else 0
            source = None if memory else str(self.volume(volume, group))
            mounts.append((source, wanted["mountPath"], "memory" if memory else "bind", size))
        return mounts

    def volume(self, volume, group):
        claim = volume.get("persistentVolumeClaim")
        place = self.folder / "volumes" / volume["name"]
        if claim:
            place = self.node.folder / "claims" / self.namespace / claim["claimName"]
        place.mkdir(parents=True, exist_ok=True)
        files = {}
        if "configMap" in volume:
            files = self.files("configmaps", volume["configMap"]["name"], volume["configMap"])
        elif "secret" in volume:
            files = self.files("secrets", volume["secret"]["secretName"], volume["secret"])
        for source in volume.get("projected", {}).get("sources", []):
            files |= self.files("configmaps", source["configMap"]["name"], source["configMap"])
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
            os.chown(place / name, 0, group)
            (place / name).chmod(0o440)
        os.chown(place, 0, group)
        place.chmod(0o2775)
        return place

    def files(self, kind, name, source):
        try:
            found = self.node.api.get(f"/api/v1/namespaces/{self.namespace}/{kind}/{name}")
        except urllib.error.HTTPError as error:
            raise Refused("ContainerCreating", f"{kind} {name}: {error.code}") from error
        encoded = dict(found.get("binaryData", {}) if kind == "configmaps" else found.get("data", {}))
        files = {key: base64.b64decode(value) for key, value in encoded.items()}
        if kind == "configmaps":
            files |= {key: value.encode() for key, value in found.get("data", {}).items()}
        if items := source.get("items"):
            return {item["path"]: files[item["key"]] for item in items}
        return files

    def field(self, path):
        known = {"metadata.name": self.name, "metadata.namespace": self.namespace, "status.podIP": self.address,
                 "spec.nodeName": self.spec["nodeName"]}  # fmt: skip
        if label := re.fullmatch(r"metadata\.labels\['(.+)'\]", path):
            return self.found["metadata"].get("labels", {}).get(label[1], "")
        return known[path]

    def variables(self):
        values = {"PATH": "/usr/bin:/bin", "HOSTNAME": self.spec.get("hostname", self.name)}
        for source in self.container.get("envFrom", []):
            name = source["secretRef"]["name"]
            values |= {key: value.decode() for key, value in self.files("secrets", name, {}).items()}
        for variable in self.container.get("env", []):
            if "valueFrom" in variable:
                values[variable["name"]] = self.field(variable["valueFrom"]["fieldRef"]["fieldPath"])
            else:
                values[variable["name"]] = self.expand(variable.get("value", ""), values)
        return values

    @staticmethod
    def expand(text, values):
        return re.sub(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)", lambda m: values.get(m[1], m[0]), text)

    def stop(self, grace):
        """SIGTERM, and SIGKILL after the grace period."""
        if self.process is None or self.exit_code is not None:
            return
        if self.killed_at is None:
            self.killed_at = time.monotonic() + grace
            self.signal(signal.SIGTERM)
            say(f"{self.namespace}/{self.name} asked to stop, {grace} s")
        elif time.monotonic() > self.killed_at:
            self.signal(signal.SIGKILL)

    def signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def look(self):
        """Whether the process has ended."""
        if self.process is None or self.exit_code is not None:
            return
        code = self.process.poll()
        if code is None:
            return
        self.exit_code = code if code >= 0 else 128 - code
        self.ready, self.finished_at = False, now()
        self.signal(signal.SIGKILL)  # what it may have started
        say(f"{self.namespace}/{self.name} ended with {self.exit_code}")

    def message(self):
        text = (self.folder / "termination").read_bytes()[-MESSAGE_BYTES:]
        if not text and self.exit_code and self.container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            text = self.log.read_bytes()[-2048:]
        return text.decode(errors="replace")

    def probe(self):
        """The startup probe until it has succeeded once; then the other two."""
        if self.process is None or self.exit_code is not None:
            return
        names = ["livenessProbe", "readinessProbe"] if self.started else ["startupProbe"]
        for name in names:
            probe = self.container.get(name)
            if probe is None:
                self.passed(name)
                continue
            due, failures = self.probes.get(name, (time.monotonic() + probe.get("initialDelaySeconds", 0), 0))
            if time.monotonic() < due:
                continue
            good = self.ask(probe)
            failures = 0 if good else failures + 1
            self.probes[name] = (time.monotonic() + probe.get("periodSeconds", 10), failures)
            if good:
                self.passed(name)
            elif failures >= probe.get("failureThreshold", 3):
                if name == "readinessProbe":
                    self.ready = False
                else:
                    say(f"{self.namespace}/{self.name}: {name} failed {failures} times")
                    self.stop(self.spec.get("terminationGracePeriodSeconds", 30))

    def passed(self, name):
        if name == "startupProbe":
            self.started = True
        if name == "readinessProbe":
            self.ready = True

    def ask(self, probe):
        get = probe["httpGet"]
        port = get["port"]
        if isinstance(port, str):
            port = next(p["containerPort"] for p in self.container["ports"] if p["name"] == port)
        connection = http.client.HTTPConnection(self.address, port, timeout=probe.get("timeoutSeconds", 1))
        try:
            connection.request("GET", get["path"])
            return 200 <= connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def status(self):
        """What the API server is told."""
        if self.exit_code is not None:
            phase = "Failed" if self.exit_code else "Succeeded"
            reason = "Error" if self.exit_code else "Completed"
            state = {"terminated": {"exitCode": self.exit_code, "reason": reason, "message": self.message(),
                                    "startedAt": self.started_at, "finishedAt": self.finished_at}}  # fmt: skip
        elif self.process is not None:
            phase, state = "Running", {"running": {"startedAt": self.started_at}}
        else:
            phase, state = "Pending", {"waiting": self.waiting or {"reason": "ContainerCreating"}}
        truth = "True" if self.ready else "False"
        status = {
            "phase": phase, "hostIP": "127.0.0.1",
            "conditions": [{"type": t, "status": v} for t, v in
                           (("PodScheduled", "True"), ("Initialized", "True"), ("ContainersReady", truth), ("Ready", truth))],
            "containerStatuses": [{"name": self.container["name"], "image": self.container["image"], "imageID": "",
                                   "ready": self.ready, "started": self.started, "restartCount": 0, "state": state}],
        }  # fmt: skip
        if self.connected:
            status |= {"podIP": self.address, "podIPs": [{"ip": self.address}]}
        return status

    def report(self):
        status = self.status()
        if status != self.reported:
            # A state replaces the one before it; the merge of a strategic patch would keep both.
            for other in {"waiting", "running", "terminated"} - status["containerStatuses"][0]["state"].keys():
                status["containerStatuses"][0]["state"][other] = None
            self.node.api.patch_status(self.path, status)
            self.reported = self.status()

    def remove(self):
        self.signal(signal.SIGKILL) if self.process and self.exit_code is None else None
        ip("netns", "del", self.network, check=False)
        shutil.rmtree(self.folder / "volumes", ignore_errors=True)
        for group in self.cgroups:
            with contextlib.suppress(OSError):  # somebody is still on the way out
                os.rmdir(group)


# -------------------------------------------------------------------------------------------------------------------- the nodes


class Node:
    """All nodes of this process: they share a bridge, a folder and a table of pods."""

    def __init__(self, options):
        self.api = Api(options.server, options.token)
        self.folder = pathlib.Path(options.folder).resolve()
        self.images = dict(image.split("=", 1) for image in options.image)
        self.names = [f"soup-node-{i}" for i in range(options.nodes)]
        self.network = "soup-nodes"
        self.pods, self.last_number, self.beat = {}, 1, 0
        self.folder.mkdir(parents=True, exist_ok=True)

    def open(self):
        ip("netns", "del", self.network, check=False)
        ip("netns", "add", self.network)
        ip("-n", self.network, "link", "add", "br0", "type", "bridge")
        ip("-n", self.network, "addr", "add", f"{SUBNET}.1/24", "dev", "br0")
        ip("-n", self.network, "link", "set", "br0", "up")
        ip("-n", self.network, "link", "set", "lo", "up")
        port = self.serve_logs()
        for name in self.names:
            labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
            with contextlib.suppress(urllib.error.HTTPError):
                self.api.call("POST", "/api/v1/nodes", body)
        self.port = port

    def heartbeat(self):
        if time.monotonic() < self.beat:
            return
        self.beat = time.monotonic() + HEARTBEAT_SECONDS
        room = {"cpu": "64", "memory": "256Gi", "pods": "100", "ephemeral-storage": "256Gi"}
        for name in self.names:
            self.api.patch_status(f"/api/v1/nodes/{name}", {
                "capacity": room, "allocatable": room, "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
                "conditions": [{"type": "Ready", "status": "True", "reason": "Here", "lastHeartbeatTime": now()}],
            })  # fmt: skip

    def schedule(self, pods):
        """Binds pods that nobody has bound, to whichever node has fewest and takes any."""
        waiting = [p for p in pods if not p["spec"].get("nodeName") and not p["spec"].get("schedulingGates")]
        if not waiting:
            return
        nodes = self.api.get("/api/v1/nodes")["items"]
        open_names = [n["metadata"]["name"] for n in nodes if not n["spec"].get("unschedulable") and n["metadata"]["name"] in self.names]
        counts = {name: sum(p.spec["nodeName"] == name for p in self.pods.values()) for name in open_names}
        for pod in waiting:
            if not counts or pod["metadata"].get("deletionTimestamp"):
                continue
            name = min(counts, key=counts.get)
            counts[name] += 1
            meta = pod["metadata"]
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]},
                    "target": {"apiVersion": "v1", "kind": "Node", "name": name}}  # fmt: skip
            with contextlib.suppress(urllib.error.HTTPError):
                self.api.call("POST", f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding", body)

    def number(self):
        """A free last part of an address; not one that was just used, since others may still believe in it."""
        used = {pod.number for pod in self.pods.values()}
        while True:
            self.last_number = 2 if self.last_number >= 250 else self.last_number + 1
            if self.last_number not in used:
                return self.last_number

    def names_of(self, services):
        """/etc/hosts by namespace: headless Services, and pods that name one as their subdomain."""
        lines = {}
        for service in services:
            meta, spec = service["metadata"], service["spec"]
            if spec.get("clusterIP") != "None" or not spec.get("selector"):
                continue
            for pod in self.pods.values():
                labels = pod.found["metadata"].get("labels", {})
                if pod.namespace != meta["namespace"] or pod.exit_code is not None or not pod.connected:
                    continue
                if not spec["selector"].items() <= labels.items() or not (pod.ready or spec.get("publishNotReadyAddresses")):
                    continue
                stems = [meta["name"]]
                if pod.spec.get("subdomain") == meta["name"] and pod.spec.get("hostname"):
                    stems.append(f"{pod.spec['hostname']}.{meta['name']}")
                ends = ("", f".{pod.namespace}", f".{pod.namespace}.svc", f".{pod.namespace}.svc.cluster.local")
                names = " ".join(stem + end for stem in stems for end in ends)
                lines.setdefault(pod.namespace, []).append(f"{pod.address} {names}\n")
        return {namespace: "".join(sorted(found)) for namespace, found in lines.items()}

    def write_hosts(self, services):
        names = self.names_of(services)
        for pod in self.pods.values():
            if not pod.connected:
                continue
            text = f"127.0.0.1 localhost\n{pod.address} {pod.spec.get('hostname', pod.name)}\n" + names.get(pod.namespace, "")
            hosts = pod.folder / "hosts"
            if hosts.read_text() != text:
                hosts.write_text(text)  # in place: the pod has this very file

    def sync(self):
        pods = self.api.get("/api/v1/pods")["items"]
        self.schedule(pods)
        found = {p["metadata"]["uid"]: p for p in pods if p["spec"].get("nodeName") in self.names}
        for uid, pod in found.items():
            done = pod["status"].get("phase") in ("Succeeded", "Failed")
            if uid not in self.pods and not done:
                self.pods[uid] = Pod(self, pod, self.number())
        for uid in self.pods.keys() - found.keys():
            self.pods.pop(uid).remove()  # by force
        self.write_hosts(self.api.get("/api/v1/services")["items"])
        for uid, pod in list(self.pods.items()):
            pod.update(found[uid])
            try:
                self.advance(pod)
            except urllib.error.HTTPError as error:
                if error.code not in (404, 409):
                    raise

    def advance(self, pod):
        meta = pod.found["metadata"]
        leaving = "deletionTimestamp" in meta
        if leaving:
            pod.stop(meta.get("deletionGracePeriodSeconds", 30))
        elif pod.process is None:
            pod.start()
        pod.look()
        pod.report()
        if leaving and (pod.process is None or pod.exit_code is not None):
            options = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
            self.api.call("DELETE", pod.path, options)

    def serve_logs(self):
        """What the API server asks a kubelet for when somebody wants a pod's log."""
        node = self

        class Logs(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked = urllib.parse.urlparse(self.path)
                parts = asked.path.split("/")
                pod = next((p for p in node.pods.values() if parts[1:4] == ["containerLogs", p.namespace, p.name]), None)
                self.send_response(200 if pod else 404)
                self.end_headers()
                seen, follow = 0, "follow=true" in asked.query
                while pod:
                    # Looked at first: what is written until then is shown.
                    ended = not follow or pod.exit_code is not None or pod not in node.pods.values()
                    if pod.log.exists():
                        text = pod.log.read_bytes()[seen:]
                        self.wfile.write(text)
                        seen += len(text)
                    if ended:
                        break
                    time.sleep(0.2)

            def log_message(self, *_):
                pass

        key, certificate = self.folder / "node.key", self.folder / "node.crt"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=node", "-days", "2",
                        "-keyout", key, "-out", certificate], check=True, stderr=subprocess.DEVNULL)  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Logs)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server.server_port

    def close(self):
        for pod in self.pods.values():
            pod.remove()
        ip("netns", "del", self.network, check=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--container", help="inside: a plan")
    parser.add_argument("--server")
    parser.add_argument("--token")
    parser.add_argument("--folder")
    parser.add_argument("--image", action="append", default=[])
    parser.add_argument("--nodes", type=int, default=2)
    options = parser.parse_args()
    if options.container:
        container(json.loads(pathlib.Path(options.container).read_text()))
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    node = Node(options)
    try:
        node.open()
        # The API server is on the host's loopback, pods are not on the host's network: one thread speaks to each.
        threading.Thread(target=probing, args=(node,), daemon=True).start()
        while not stopping.is_set():
            node.heartbeat()
            node.sync()
            stopping.wait(SYNC_SECONDS)
    finally:
        node.close()


def probing(node):
    """Probes come from where pods are reached; a network namespace is a thread's own."""
    enter_network(node.network)
    while True:
        for pod in list(node.pods.values()):
            pod.probe()
        time.sleep(SYNC_SECONDS)


if __name__ == "__main__":
    main()
