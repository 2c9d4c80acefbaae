#!/usr/bin/env python3
"""Writes an OCI archive of one layer that containerd imports: image.py OUT.tar NAME:TAG USER ENTRYPOINT -- SOURCE=PATH[:UID]...

SOURCE `DIR` makes a directory. The name is the full one that kubelet asks containerd for.
"""

import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

out, name, user, entrypoint = sys.argv[1:5]
files = sys.argv[6:]


def layer() -> bytes:
    raw, seen = io.BytesIO(), set()
    with tarfile.open(fileobj=raw, mode="w") as tar:

        def add(info: tarfile.TarInfo, data=None) -> None:
            if info.name in seen:
                return
            parent = os.path.dirname(info.name)
            if parent and parent not in seen:
                add(directory(parent, 0o755))
            seen.add(info.name)
            tar.addfile(info, data)

        add(directory("tmp", 0o1777))
        for item in files:
            source, _, destination = item.partition("=")
            path, _, owner = destination.partition(":")
            path = path.lstrip("/")
            if source == "DIR":
                info = directory(path, 0o755)
                info.uid = info.gid = int(owner or 0)
                add(info)
                continue
            source = os.path.realpath(source)
            info = tarfile.TarInfo(path)
            info.size, info.mode = os.path.getsize(source), 0o755
            info.uid = info.gid = int(owner or 0)
            with open(source, "rb") as data:
                add(info, data)
    return raw.getvalue()


def directory(path: str, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.mode = tarfile.DIRTYPE, mode
    return info


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


blobs: dict[str, bytes] = {}


def blob(media_type: str, data: bytes) -> dict:
    blobs[digest(data)] = data
    return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": digest(data), "size": len(data)}


content = layer()
config = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"User": user, "Entrypoint": [entrypoint], "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
    "rootfs": {"type": "layers", "diff_ids": [digest(content)]},
}
packed = blob("layer.v1.tar+gzip", gzip.compress(content, 1, mtime=0))
described = blob("config.v1+json", json.dumps(config).encode())
manifest = {
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": described,
    "layers": [packed],
}
entry = blob("manifest.v1+json", json.dumps(manifest).encode())
entry["annotations"] = {
    "io.containerd.image.name": name,
    "org.opencontainers.image.ref.name": name.rsplit(":", 1)[1],
}
with tarfile.open(out, "w") as tar:
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    members |= {f"blobs/{key.replace(':', '/')}": data for key, data in blobs.items()}
    for path, data in members.items():
        info = tarfile.TarInfo(path)
        info.size, info.mode = len(data), 0o644
        tar.addfile(info, io.BytesIO(data))
print(f"{name}: {packed['size'] // 1000} kB compressed")
