"""The file's tables and keys: each key is a field, its rule says what is allowed, its default what holds without it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from vx.config import rules
from vx.config.addresses import DEFAULT_PORT, Address, access_point_key, node_of
from vx.drawing import MaskStyle
from vx.jobs import Cut, Gaps
from vx.rights import Grant, Rights

_ANY_AGENT = "MMExportAgent.0"
"""The agent of a node for which none is configured: clients name one because there always is one."""


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """One place where a camera's recordings lie: `[[camera.archive]]`."""

    storage: rules.StorageName
    """Access point by which clients name this archive, always with the leading `hosts/`."""
    path: rules.RecordingPattern
    """Pattern of the files' paths (see vx.archive.pattern)."""
    timezone: rules.Timezone = "UTC"
    """The zone of the times in the files' names."""


class Mask(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a camera's picture that never leaves this server: `[[camera.mask]]`."""

    points: rules.Corners
    """Its corners, as fractions of the frame from the top left."""


class Camera(msgspec.Struct, frozen=True, kw_only=True):
    """A camera that clients may ask for: `[[camera]]`."""

    access_point: rules.CameraName
    """By which clients name it, always with the leading `hosts/`."""
    display_id: rules.Line = ""
    display_name: rules.Line = ""
    """For people; the access point where none is given."""
    location: rules.Line = ""
    """Where it hangs, in words, for text in pictures."""
    archive: tuple[Archive, ...] = ()
    """The first one is the default."""
    live: rules.LiveAddress | None = None
    """Where it can be seen live."""
    live_transport: Annotated[Literal["tcp", "udp"], rules.one_of("tcp", "udp")] = "tcp"
    """By which RTSP's packets come."""
    mask: tuple[Mask, ...] = ()

    def __post_init__(self) -> None:
        if not self.display_name:
            msgspec.structs.force_setattr(self, "display_name", access_point_key(self.access_point))

    def find_archive(self, storage: str) -> Archive | None:
        """The archive of this name, with or without `hosts/`; the camera's default for an empty one."""
        if not storage:
            return self.archive[0] if self.archive else None
        key = access_point_key(storage)
        return next((archive for archive in self.archive if access_point_key(archive.storage) == key), None)


class Lifetimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long sessions live: `[lifetimes]`."""

    live_stream_s: rules.Lifetime = 300
    """A running live stream that nobody asks about is stopped after this."""
    running_s: rules.Lifetime = 1800
    """Any other running session that nobody asks about is stopped after this."""
    completed_s: rules.Lifetime = 3600
    """A completed session's files are deleted after this."""
    removed_s: rules.Lifetime = 86400
    """A session without files is forgotten after this."""
    audit_s: rules.Lifetime = 366 * 86400
    """A line of the audit is dropped after this, when the server starts."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What the results of exports may take, and where they may go: `[results]`. A gigabyte is 1024 ** 3 bytes."""

    max_total_gb: rules.Gigabytes = 0
    """All results that are kept for download, and what running sessions will add; 0: no limit."""
    min_free_gb: rules.Gigabytes = 0.25
    """This much of the disk stays free."""
    external_roots: tuple[rules.Directory, ...] = ()
    """Clients may have results put into these directories and those below, and nowhere else."""

    @property
    def max_total(self) -> int:
        """`max_total_gb` in bytes."""
        return int(self.max_total_gb * (1 << 30))

    @property
    def min_free(self) -> int:
        """`min_free_gb` in bytes."""
        return int(self.min_free_gb * (1 << 30))


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """An export agent: a name by which clients say where an export is done, and its own limits: `[[agent]]`."""

    access_point: rules.AgentName
    directory: rules.Directory | None = None
    """Where it stores results for good when a client asks for that; without it, it can't."""
    max_running_sessions: Annotated[int, rules.number(int, 1, 1000)] | None = None
    """Beside the limit for all agents together, which it is where this is missing."""
    file_name_pattern: rules.FileNamePattern = "{Name}"
    """Of files that it stores and no client named: {Name} (camera and time), {Timestamp}, {SessionId}."""

    @property
    def node(self) -> str:
        return node_of(self.access_point)

    @property
    def index(self) -> int:
        return int(self.access_point.rpartition(".")[2])


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """The processes that do the media work: `[worker]`."""

    nice: Annotated[int, rules.number(int, 0, 19)] = 5
    memory_mb: Annotated[int, rules.number(int, 256, 1 << 20)] = 4096
    """Address space of each."""
    readable: tuple[rules.Directory, ...] = ()
    """What they may read beside the folders of their recordings: where symbolic links in those lead."""


class Media(msgspec.Struct, frozen=True, kw_only=True):
    """How clips are made: `[media]`."""

    cut: Annotated[Cut, rules.one_of("exact", "keyframe")] = "exact"
    """Begin and end with the very frame, by encoding what lies between it and the next key frame; or only copy, from
    the key frame before."""
    gaps: Annotated[Gaps, rules.one_of("keep", "split", "close")] = "keep"
    """Where nothing was recorded the last frame stands, a new file begins, or the file goes on with what comes next."""
    gap_s: Annotated[float, rules.number(float, 0, 86400)] = 1
    """A shorter gap is always kept."""
    threads: Annotated[int, rules.number(int, 0, 64)] = 0
    """For each decoder and encoder; 0: one for each core, 4 at most."""
    mask: Annotated[MaskStyle, rules.one_of("black", "mosaic")] = "black"
    """What masks look like."""
    virtual: Annotated[str, rules.one_of("auto", "never")] = "auto"
    """Whether clips that need no encoding are served from the recordings, where that can be, or always copied."""
    index_cache_mb: Annotated[int, rules.number(int, 0, 1 << 20)] = 64
    """What may be kept of recordings' tables, below `state_dir`, so that they are read once; 0: nothing."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """How live cameras are exported: `[live]`."""

    first_frame_timeout_s: Annotated[float, rules.number(float, 0.1, 3600)] = 10
    """A camera of which nothing was seen by then has failed; waiting for its key frame is included."""
    stall_timeout_s: Annotated[float, rules.number(float, 1, 3600)] = 10
    """A connection on which nothing came for so long is given up, and a new one made."""
    longest_pause_s: Annotated[float, rules.number(float, 0.5, 3600)] = 30
    """Before the next try to connect to a camera that is lost; the first pauses are shorter."""
    estimated_mbit_s: Annotated[float, rules.number(float, 0.01, 1000)] = 6
    """What a camera probably sends: by that the space for a live export is reckoned before it starts."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """Encryption of all TCP connections, TLS 1.2 and 1.3: `[tls]`. Where it is missing there is none."""

    certificate: rules.PemFile
    """The server's certificate, then those between it and a root that clients know."""
    key: rules.PemFile
    """The certificate's private key, without a passphrase."""
    client_ca: rules.PemFile | None = None
    """Clients must show a certificate of this authority; the name in it is their user's."""


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """What the users may do who have it: `[[role]]`. Nothing is granted that is not written down."""

    name: rules.Line
    cameras: tuple[rules.CameraPattern, ...] = ()
    """The role's cameras; whatever else it grants is for these alone."""
    live: rules.Flag = False
    """To export what they see now."""
    archive: rules.Flag = False
    """To export what was recorded."""
    archive_depth_h: Annotated[float, rules.number(float, 0, 10 * 366 * 24)] = 0
    """Only of the last so many hours; 0: all of it."""
    must_use_password: rules.Flag = False
    """Only clips that are encrypted."""
    may_see_unmasked: rules.Flag = False
    """Without the cameras' privacy masks."""
    supervisor: rules.Flag = False
    """To see and end everyone's sessions."""
    max_running_sessions: Annotated[int, rules.number(int, 1, 1000)] | None = None
    """Further ones of the same user wait."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Who may log in: `[[user]]`. With at least one, every call must say who makes it."""

    name: rules.UserName
    password_hash: rules.PasswordHash = ""
    """argon2id; without it there is no password, only a client certificate with the user's name."""
    roles: tuple[rules.Line, ...] = ()


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """The server's process: `[process]`."""

    user: rules.SystemUser | None = None
    """Started as root, it becomes this user once it listens and has read its key."""


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """What goes to stderr: `[log]`."""

    level: Annotated[str, rules.one_of("debug", "info", "warning", "error")] = "info"
    format: Annotated[str, rules.one_of("text", "json")] = "text"
    """Lines of text, or an object a line; each that is about a session has its id."""


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """What the server counts, for Prometheus: `[metrics]`."""

    listen: rules.Listen | None = None
    """Where it answers GET /metrics, over HTTP; it doesn't where this is missing."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    listen: tuple[rules.Listen, ...] = (Address("127.0.0.1", DEFAULT_PORT),)
    """Port 0 takes a free one."""
    state_dir: rules.Directory
    """Sessions and their files."""
    insecure: rules.Flag = False
    """Serve more than this machine although anybody may then take any recording."""
    shutdown_timeout_s: rules.Seconds = 30
    """How long calls under way may take after SIGTERM."""
    stop_timeout_s: rules.Seconds = 10
    """How long a worker may take to finalise after StopSession before it is killed."""
    max_running_sessions: Annotated[int, rules.number(int, 1, 1000)] = 4
    max_queued_sessions: Annotated[int, rules.number(int, 0, 10_000)] = 100
    """So many wait for their turn when that many run."""
    max_connections: Annotated[int, rules.number(int, 1, 100_000)] = 1000
    max_connections_per_address: Annotated[int, rules.number(int, 1, 100_000)] = 100
    """So many of them from one address; those from this machine itself are not counted."""
    max_streams_per_connection: Annotated[int, rules.number(int, 1, 10_000)] = 100
    max_message_kb: Annotated[int, rules.number(int, 64, 1 << 20)] = 4096
    """The largest request that is read."""
    keepalive_s: Annotated[float, rules.number(float, 1, 86400)] = 60
    """A connection that was silent for this long is asked whether it is still there."""
    lifetimes: Lifetimes = Lifetimes()
    worker: Worker = Worker()
    results: Results = Results()
    media: Media = Media()
    live: Live = Live()
    log: Log = Log()
    metrics: Metrics = Metrics()
    tls: Tls | None = None
    process: Process = Process()
    token_hours: Annotated[float, rules.number(float, 0.1, 10_000)] = 12
    """How long a login is good for."""
    role: tuple[Role, ...] = ()
    user: tuple[User, ...] = ()
    camera: tuple[Camera, ...] = ()
    agent: tuple[Agent, ...] = ()

    @property
    def database(self) -> Path:
        """Where sessions, tokens and the audit are kept."""
        return self.state_dir / "vx.sqlite"

    @property
    def index_dir(self) -> Path:
        """Where the tables of recordings are kept."""
        return self.state_dir / "index"

    def find_camera(self, access_point: str) -> Camera | None:
        """The camera of this name, with or without the leading `hosts/`."""
        key = access_point_key(access_point)
        return next((camera for camera in self.camera if access_point_key(camera.access_point) == key), None)

    def find_agent(self, access_point: str) -> Agent | None:
        """The agent of this name, with or without `hosts/`. A node for which none is configured has its number 0."""
        key = access_point_key(access_point)
        for agent in self.agent:
            if access_point_key(agent.access_point) == key:
                return agent
        node = node_of(access_point)
        is_known = any(node_of(camera.access_point) == node for camera in self.camera)
        is_configured = any(agent.node == node for agent in self.agent)
        if key == f"{node}/{_ANY_AGENT}" and is_known and not is_configured:
            return Agent(access_point=f"hosts/{key}")
        return None

    def default_agent(self, camera: Camera) -> Agent:
        """The agent with the lowest number on the camera's node."""
        node = node_of(camera.access_point)
        there = [agent for agent in self.agent if agent.node == node]
        return min(there, key=lambda agent: agent.index, default=Agent(access_point=f"hosts/{node}/{_ANY_AGENT}"))

    def rights_of(self, user: User) -> Rights:
        """What the user's roles come to, taken together."""
        roles = [role for role in self.role if role.name in user.roles]
        limits = [role.max_running_sessions for role in roles]
        known = [limit for limit in limits if limit is not None]
        return Rights(
            grants=tuple(
                Grant(
                    cameras=role.cameras,
                    live=role.live,
                    archive=role.archive,
                    archive_depth_us=round(role.archive_depth_h * 3_600_000_000) if role.archive_depth_h else None,
                    may_see_unmasked=role.may_see_unmasked,
                )
                for role in roles
            ),
            must_use_password=any(role.must_use_password for role in roles),
            supervisor=any(role.supervisor for role in roles),
            max_running_sessions=max(known) if known and len(known) == len(limits) else None,
        )
