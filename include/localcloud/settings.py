"""Where the local cloud keeps its state and on which ports it listens."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from localcloud.errors import LocalCloudError

HOST = "127.0.0.1"
BUCKETS = ("modlake-ugc", "modlake-work", "modlake-lake", "modlake-quarantine")
CHECKOUT = Path(__file__).resolve().parents[2]
SEAWEEDFS_PORT_COUNT = 10

_S3_PORT = 8333
_REKOGNITION_PORT = 8334
_SEAWEEDFS_PORT_DISTANCE = 1000
# Without a limit the Go heap grew past 800 MB under load; half of this costs half the throughput.
_SEAWEEDFS_MEMORY_MIB = 512
_LEAST_MEMORY_MIB = 128
_MEMORY_WANTED = f"mebibytes, {_LEAST_MEMORY_MIB} or more"
_REGION = "us-east-1"
_ACCESS_KEY = "modlake"
_SECRET_KEY = "modlake-local-secret"  # noqa: S105 opens nothing but this machine's own cloud


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """One local cloud; two of them run side by side when their homes and ports differ.

    `seaweedfs_port` is the first of ten consecutive ports that SeaweedFS needs besides S3's. `bind_host` is
    for a container of its own, where the loopback address can't be reached from the others. With
    `s3_fault_proxy` the S3 port belongs to a proxy that misbehaves by plan, SeaweedFS's S3 is behind it.
    SeaweedFS keeps its heap below `seaweedfs_memory_mib` as long as it can; a million objects want 2048.
    """

    home: Path
    s3_port: int = _S3_PORT
    rekognition_port: int = _REKOGNITION_PORT
    seaweedfs_port: int = _S3_PORT + _SEAWEEDFS_PORT_DISTANCE
    region: str = _REGION
    access_key: str = _ACCESS_KEY
    secret_key: str = _SECRET_KEY
    bind_host: str = HOST
    s3_fault_proxy: bool = False
    seaweedfs_memory_mib: int = _SEAWEEDFS_MEMORY_MIB

    def __post_init__(self) -> None:
        object.__setattr__(self, "home", self.home.absolute())  # the servers run in another directory
        last = self.seaweedfs_port + SEAWEEDFS_PORT_COUNT - 1
        for variable, first, final in (
            ("MODLAKE_S3_PORT", self.s3_port, self.s3_port),
            ("MODLAKE_REKOGNITION_PORT", self.rekognition_port, self.rekognition_port),
            ("MODLAKE_SEAWEEDFS_PORT", self.seaweedfs_port, last),
        ):
            if first < 1 or final > 65535:
                raise LocalCloudError(f"{variable}={first} is no usable port: set it to 1024..65000")
        if self.seaweedfs_memory_mib < _LEAST_MEMORY_MIB:
            raise LocalCloudError(
                f"MODLAKE_SEAWEEDFS_MEMORY_MIB={self.seaweedfs_memory_mib} is too little: "
                f"set it to {_MEMORY_WANTED}"
            )
        ports = [self.s3_port, self.rekognition_port, *self.internal_ports.values()]
        if self.s3_fault_proxy:
            ports.append(self.seaweedfs_s3_port)
        if len(set(ports)) != len(ports):
            raise LocalCloudError(
                f"the local cloud's ports overlap: S3 {self.s3_port}, Rekognition {self.rekognition_port}, "
                f"SeaweedFS {self.seaweedfs_port}..{last}: set MODLAKE_S3_PORT, MODLAKE_REKOGNITION_PORT "
                f"or MODLAKE_SEAWEEDFS_PORT so that they differ"
            )

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> CloudSettings:
        """Read MODLAKE_HOME, MODLAKE_S3_PORT, MODLAKE_REKOGNITION_PORT, MODLAKE_SEAWEEDFS_PORT,
        MODLAKE_REGION, MODLAKE_ACCESS_KEY, MODLAKE_SECRET_KEY, MODLAKE_BIND_HOST,
        MODLAKE_S3_FAULT_PROXY (1 for yes) and MODLAKE_SEAWEEDFS_MEMORY_MIB.

        Raises LocalCloudError when a port is not a number, out of range, or used twice, or when the memory
        is no number, or too little.
        """
        s3_port = _port(env, "MODLAKE_S3_PORT", _S3_PORT)
        return cls(
            home=Path(env.get("MODLAKE_HOME") or CHECKOUT / ".modlake"),
            s3_port=s3_port,
            rekognition_port=_port(env, "MODLAKE_REKOGNITION_PORT", _REKOGNITION_PORT),
            seaweedfs_port=_port(env, "MODLAKE_SEAWEEDFS_PORT", s3_port + _SEAWEEDFS_PORT_DISTANCE),
            region=env.get("MODLAKE_REGION") or _REGION,
            access_key=env.get("MODLAKE_ACCESS_KEY") or _ACCESS_KEY,
            secret_key=env.get("MODLAKE_SECRET_KEY") or _SECRET_KEY,
            bind_host=env.get("MODLAKE_BIND_HOST") or HOST,
            s3_fault_proxy=env.get("MODLAKE_S3_FAULT_PROXY") == "1",
            seaweedfs_memory_mib=_number(
                env, "MODLAKE_SEAWEEDFS_MEMORY_MIB", _SEAWEEDFS_MEMORY_MIB, _MEMORY_WANTED
            ),
        )

    def to_environment(self) -> dict[str, str]:
        """The variables that `from_environment` reads back as these settings."""
        return {
            "MODLAKE_HOME": str(self.home),
            "MODLAKE_S3_PORT": str(self.s3_port),
            "MODLAKE_REKOGNITION_PORT": str(self.rekognition_port),
            "MODLAKE_SEAWEEDFS_PORT": str(self.seaweedfs_port),
            "MODLAKE_REGION": self.region,
            "MODLAKE_ACCESS_KEY": self.access_key,
            "MODLAKE_SECRET_KEY": self.secret_key,
            "MODLAKE_BIND_HOST": self.bind_host,
            "MODLAKE_S3_FAULT_PROXY": "1" if self.s3_fault_proxy else "",
            "MODLAKE_SEAWEEDFS_MEMORY_MIB": str(self.seaweedfs_memory_mib),
        }

    @property
    def cloud_dir(self) -> Path:
        return self.home / "cloud"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def s3_data_dir(self) -> Path:
        return self.cloud_dir / "seaweedfs"

    @property
    def answers_dir(self) -> Path:
        """Answer books that are added while the cloud runs."""
        return self.cloud_dir / "answers"

    @property
    def credentials_file(self) -> Path:
        """SeaweedFS's identities; the Rekognition stand-in knows the same keys."""
        return self.cloud_dir / "s3.json"

    @property
    def s3_endpoint(self) -> str:
        return f"http://{HOST}:{self.s3_port}"

    @property
    def seaweedfs_s3_port(self) -> int:
        """Where SeaweedFS itself speaks S3."""
        last = self.seaweedfs_port + SEAWEEDFS_PORT_COUNT - 1
        return last if self.s3_fault_proxy else self.s3_port

    @property
    def seaweedfs_endpoint(self) -> str:
        """S3 without the faults."""
        return f"http://{HOST}:{self.seaweedfs_s3_port}"

    @property
    def rekognition_endpoint(self) -> str:
        return f"http://{HOST}:{self.rekognition_port}"

    @property
    def internal_ports(self) -> dict[str, int]:
        """SeaweedFS's own ports by the name of their `weed mini` option."""
        options = (
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
            "admin.port",
            "admin.port.grpc",
            "s3.port.grpc",
        )
        return {option: self.seaweedfs_port + offset for offset, option in enumerate(options)}


def _port(env: Mapping[str, str], variable: str, default: int) -> int:
    return _number(env, variable, default, "a free port")


def _number(env: Mapping[str, str], variable: str, default: int, wanted: str) -> int:
    text = env.get(variable) or str(default)
    try:
        return int(text)
    except ValueError:
        raise LocalCloudError(f"{variable}={text!r} is not a number: set it to {wanted}") from None
