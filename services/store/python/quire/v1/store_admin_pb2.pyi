from quire.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class DeleteTenantRequest(_message.Message):
    __slots__ = ["tenant"]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class DeleteTenantResponse(_message.Message):
    __slots__ = ["blocks"]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    blocks: int
    def __init__(self, blocks: _Optional[int] = ...) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ["deadline_ms"]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    def __init__(self, deadline_ms: _Optional[int] = ...) -> None: ...

class DrainResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class GetQuotaRequest(_message.Message):
    __slots__ = ["tenant"]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    def __init__(self, tenant: _Optional[str] = ...) -> None: ...

class InjectFaultRequest(_message.Message):
    __slots__ = ["count", "parameter", "point"]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    POINT_FIELD_NUMBER: _ClassVar[int]
    count: int
    parameter: int
    point: str
    def __init__(self, point: _Optional[str] = ..., count: _Optional[int] = ..., parameter: _Optional[int] = ...) -> None: ...

class InjectFaultResponse(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class Quota(_message.Message):
    __slots__ = ["bytes", "tenant"]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    tenant: str
    def __init__(self, tenant: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class StatsRequest(_message.Message):
    __slots__ = []
    def __init__(self) -> None: ...

class StatsResponse(_message.Message):
    __slots__ = ["blocks_deleted", "blocks_evicted", "blocks_stored", "checksum_failures", "hit_tokens", "layouts", "lookups", "miss_tokens", "put_sessions", "raw_bytes_stored", "tiers", "uptime_ms", "version"]
    BLOCKS_DELETED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_EVICTED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_STORED_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FAILURES_FIELD_NUMBER: _ClassVar[int]
    HIT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    LAYOUTS_FIELD_NUMBER: _ClassVar[int]
    LOOKUPS_FIELD_NUMBER: _ClassVar[int]
    MISS_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PUT_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_STORED_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_MS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    blocks_deleted: int
    blocks_evicted: int
    blocks_stored: int
    checksum_failures: int
    hit_tokens: int
    layouts: int
    lookups: int
    miss_tokens: int
    put_sessions: int
    raw_bytes_stored: int
    tiers: _containers.RepeatedCompositeFieldContainer[TierStats]
    uptime_ms: int
    version: str
    def __init__(self, tiers: _Optional[_Iterable[_Union[TierStats, _Mapping]]] = ..., lookups: _Optional[int] = ..., hit_tokens: _Optional[int] = ..., miss_tokens: _Optional[int] = ..., blocks_stored: _Optional[int] = ..., blocks_evicted: _Optional[int] = ..., blocks_deleted: _Optional[int] = ..., checksum_failures: _Optional[int] = ..., raw_bytes_stored: _Optional[int] = ..., put_sessions: _Optional[int] = ..., layouts: _Optional[int] = ..., version: _Optional[str] = ..., uptime_ms: _Optional[int] = ...) -> None: ...

class TierStats(_message.Message):
    __slots__ = ["blocks", "capacity_bytes", "raw_bytes", "tier", "used_bytes"]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    USED_BYTES_FIELD_NUMBER: _ClassVar[int]
    blocks: int
    capacity_bytes: int
    raw_bytes: int
    tier: _common_pb2.Tier
    used_bytes: int
    def __init__(self, tier: _Optional[_Union[_common_pb2.Tier, str]] = ..., capacity_bytes: _Optional[int] = ..., used_bytes: _Optional[int] = ..., blocks: _Optional[int] = ..., raw_bytes: _Optional[int] = ...) -> None: ...

class VerifyRequest(_message.Message):
    __slots__ = ["bytes_per_second", "tier"]
    BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    bytes_per_second: int
    tier: _common_pb2.Tier
    def __init__(self, tier: _Optional[_Union[_common_pb2.Tier, str]] = ..., bytes_per_second: _Optional[int] = ...) -> None: ...

class VerifyResponse(_message.Message):
    __slots__ = ["blocks", "bytes", "failures", "progress", "unreadable"]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    UNREADABLE_FIELD_NUMBER: _ClassVar[int]
    blocks: int
    bytes: int
    failures: int
    progress: float
    unreadable: int
    def __init__(self, blocks: _Optional[int] = ..., bytes: _Optional[int] = ..., failures: _Optional[int] = ..., progress: _Optional[float] = ..., unreadable: _Optional[int] = ...) -> None: ...
