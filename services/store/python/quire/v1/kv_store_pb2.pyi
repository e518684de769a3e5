from quire.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ArenaRange(_message.Message):
    __slots__ = ["length", "offset"]
    LENGTH_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    length: int
    offset: int
    def __init__(self, offset: _Optional[int] = ..., length: _Optional[int] = ...) -> None: ...

class AttachArenaRequest(_message.Message):
    __slots__ = ["bytes", "device", "namespace"]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    device: DeviceBuffer
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., bytes: _Optional[int] = ..., device: _Optional[_Union[DeviceBuffer, _Mapping]] = ...) -> None: ...

class AttachArenaResponse(_message.Message):
    __slots__ = ["arena", "bytes", "socket", "token"]
    ARENA_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SOCKET_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    arena: bytes
    bytes: int
    socket: str
    token: bytes
    def __init__(self, socket: _Optional[str] = ..., token: _Optional[bytes] = ..., arena: _Optional[bytes] = ..., bytes: _Optional[int] = ...) -> None: ...

class BlockAnnounce(_message.Message):
    __slots__ = ["bytes", "index", "key", "parent"]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    PARENT_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    index: int
    key: bytes
    parent: bytes
    def __init__(self, key: _Optional[bytes] = ..., parent: _Optional[bytes] = ..., index: _Optional[int] = ..., bytes: _Optional[int] = ...) -> None: ...

class BlockData(_message.Message):
    __slots__ = ["arena_range", "block", "data", "layer", "levels", "object_bytes", "offset"]
    ARENA_RANGE_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    OBJECT_BYTES_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    arena_range: ArenaRange
    block: int
    data: bytes
    layer: int
    levels: int
    object_bytes: int
    offset: int
    def __init__(self, block: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., layer: _Optional[int] = ..., levels: _Optional[int] = ..., object_bytes: _Optional[int] = ..., arena_range: _Optional[_Union[ArenaRange, _Mapping]] = ...) -> None: ...

class BlockState(_message.Message):
    __slots__ = ["bytes", "codec", "fetch_us", "levels", "run", "state", "tier"]
    class State(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    BYTES_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    FETCH_US_FIELD_NUMBER: _ClassVar[int]
    HIT: BlockState.State
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    MISS: BlockState.State
    PENDING: BlockState.State
    RUN_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    codec: str
    fetch_us: int
    levels: int
    run: int
    state: BlockState.State
    tier: _common_pb2.Tier
    def __init__(self, state: _Optional[_Union[BlockState.State, str]] = ..., tier: _Optional[_Union[_common_pb2.Tier, str]] = ..., levels: _Optional[int] = ..., codec: _Optional[str] = ..., bytes: _Optional[int] = ..., fetch_us: _Optional[int] = ..., run: _Optional[int] = ...) -> None: ...

class Decode(_message.Message):
    __slots__ = ["dtype"]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    dtype: _common_pb2.DType
    def __init__(self, dtype: _Optional[_Union[_common_pb2.DType, str]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ["force", "keys", "namespace"]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    force: bool
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., keys: _Optional[_Iterable[bytes]] = ..., force: bool = ...) -> None: ...

class DeleteResponse(_message.Message):
    __slots__ = ["deleted"]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: int
    def __init__(self, deleted: _Optional[int] = ...) -> None: ...

class DeviceBuffer(_message.Message):
    __slots__ = ["device_uuid", "ipc_handle", "offset"]
    DEVICE_UUID_FIELD_NUMBER: _ClassVar[int]
    IPC_HANDLE_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    device_uuid: bytes
    ipc_handle: bytes
    offset: int
    def __init__(self, ipc_handle: _Optional[bytes] = ..., offset: _Optional[int] = ..., device_uuid: _Optional[bytes] = ...) -> None: ...

class GetMiss(_message.Message):
    __slots__ = ["block", "code", "message"]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    block: int
    code: int
    message: str
    def __init__(self, block: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ["arena", "arena_ranges", "blocks", "decode", "lease_id", "max_bits", "max_relative_error", "namespace", "order", "part"]
    class Order(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    ARENA_FIELD_NUMBER: _ClassVar[int]
    ARENA_RANGES_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    BY_BLOCK: GetRequest.Order
    BY_LAYER: GetRequest.Order
    BY_LEVEL: GetRequest.Order
    DECODE_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    MAX_BITS_FIELD_NUMBER: _ClassVar[int]
    MAX_RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    arena: bytes
    arena_ranges: _containers.RepeatedCompositeFieldContainer[ArenaRange]
    blocks: _containers.RepeatedCompositeFieldContainer[BlockAnnounce]
    decode: Decode
    lease_id: int
    max_bits: int
    max_relative_error: float
    namespace: Namespace
    order: GetRequest.Order
    part: _common_pb2.Part
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., blocks: _Optional[_Iterable[_Union[BlockAnnounce, _Mapping]]] = ..., part: _Optional[_Union[_common_pb2.Part, _Mapping]] = ..., order: _Optional[_Union[GetRequest.Order, str]] = ..., max_bits: _Optional[int] = ..., max_relative_error: _Optional[float] = ..., decode: _Optional[_Union[Decode, _Mapping]] = ..., lease_id: _Optional[int] = ..., arena: _Optional[bytes] = ..., arena_ranges: _Optional[_Iterable[_Union[ArenaRange, _Mapping]]] = ...) -> None: ...

class GetResponse(_message.Message):
    __slots__ = ["data", "miss"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    MISS_FIELD_NUMBER: _ClassVar[int]
    data: BlockData
    miss: GetMiss
    def __init__(self, data: _Optional[_Union[BlockData, _Mapping]] = ..., miss: _Optional[_Union[GetMiss, _Mapping]] = ...) -> None: ...

class LookupRequest(_message.Message):
    __slots__ = ["all", "keys", "lease_ms", "namespace", "packed_keys", "part", "runs"]
    ALL_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    LEASE_MS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PACKED_KEYS_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    all: bool
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    lease_ms: int
    namespace: Namespace
    packed_keys: bytes
    part: _common_pb2.Part
    runs: bool
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., keys: _Optional[_Iterable[bytes]] = ..., part: _Optional[_Union[_common_pb2.Part, _Mapping]] = ..., lease_ms: _Optional[int] = ..., all: bool = ..., packed_keys: _Optional[bytes] = ..., runs: bool = ...) -> None: ...

class LookupResponse(_message.Message):
    __slots__ = ["blocks", "lease_id", "prefix_blocks"]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    LEASE_ID_FIELD_NUMBER: _ClassVar[int]
    PREFIX_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedCompositeFieldContainer[BlockState]
    lease_id: int
    prefix_blocks: int
    def __init__(self, blocks: _Optional[_Iterable[_Union[BlockState, _Mapping]]] = ..., prefix_blocks: _Optional[int] = ..., lease_id: _Optional[int] = ...) -> None: ...

class Namespace(_message.Message):
    __slots__ = ["fingerprint", "tenant"]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    fingerprint: bytes
    tenant: str
    def __init__(self, tenant: _Optional[str] = ..., fingerprint: _Optional[bytes] = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ["keys", "namespace"]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class PinResponse(_message.Message):
    __slots__ = ["pinned"]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    pinned: int
    def __init__(self, pinned: _Optional[int] = ...) -> None: ...

class PrefetchRequest(_message.Message):
    __slots__ = ["keys", "namespace", "tier"]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    namespace: Namespace
    tier: _common_pb2.Tier
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., keys: _Optional[_Iterable[bytes]] = ..., tier: _Optional[_Union[_common_pb2.Tier, str]] = ...) -> None: ...

class PrefetchResponse(_message.Message):
    __slots__ = ["queued"]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    queued: int
    def __init__(self, queued: _Optional[int] = ...) -> None: ...

class PutAnnounce(_message.Message):
    __slots__ = ["arena", "blocks", "encode", "namespace", "part", "priority", "ttl_ms"]
    ARENA_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    ENCODE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    arena: bytes
    blocks: _containers.RepeatedCompositeFieldContainer[BlockAnnounce]
    encode: str
    namespace: Namespace
    part: _common_pb2.Part
    priority: int
    ttl_ms: int
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., blocks: _Optional[_Iterable[_Union[BlockAnnounce, _Mapping]]] = ..., part: _Optional[_Union[_common_pb2.Part, _Mapping]] = ..., encode: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., priority: _Optional[int] = ..., arena: _Optional[bytes] = ...) -> None: ...

class PutRequest(_message.Message):
    __slots__ = ["announce", "data"]
    ANNOUNCE_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    announce: PutAnnounce
    data: BlockData
    def __init__(self, announce: _Optional[_Union[PutAnnounce, _Mapping]] = ..., data: _Optional[_Union[BlockData, _Mapping]] = ...) -> None: ...

class PutResponse(_message.Message):
    __slots__ = ["result", "wanted"]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    WANTED_FIELD_NUMBER: _ClassVar[int]
    result: PutResult
    wanted: PutWanted
    def __init__(self, wanted: _Optional[_Union[PutWanted, _Mapping]] = ..., result: _Optional[_Union[PutResult, _Mapping]] = ...) -> None: ...

class PutResult(_message.Message):
    __slots__ = ["block", "code", "message", "stored_bytes"]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    block: int
    code: int
    message: str
    stored_bytes: int
    def __init__(self, block: _Optional[int] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., stored_bytes: _Optional[int] = ...) -> None: ...

class PutWanted(_message.Message):
    __slots__ = ["blocks"]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    blocks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, blocks: _Optional[_Iterable[int]] = ...) -> None: ...

class RegisterLayoutRequest(_message.Message):
    __slots__ = ["layout"]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    layout: _common_pb2.Layout
    def __init__(self, layout: _Optional[_Union[_common_pb2.Layout, _Mapping]] = ...) -> None: ...

class RegisterLayoutResponse(_message.Message):
    __slots__ = ["fingerprint"]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    fingerprint: bytes
    def __init__(self, fingerprint: _Optional[bytes] = ...) -> None: ...

class TouchRequest(_message.Message):
    __slots__ = ["keys", "namespace"]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class TouchResponse(_message.Message):
    __slots__ = ["touched"]
    TOUCHED_FIELD_NUMBER: _ClassVar[int]
    touched: int
    def __init__(self, touched: _Optional[int] = ...) -> None: ...

class UnpinRequest(_message.Message):
    __slots__ = ["keys", "namespace"]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedScalarFieldContainer[bytes]
    namespace: Namespace
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., keys: _Optional[_Iterable[bytes]] = ...) -> None: ...

class UnpinResponse(_message.Message):
    __slots__ = ["unpinned"]
    UNPINNED_FIELD_NUMBER: _ClassVar[int]
    unpinned: int
    def __init__(self, unpinned: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ["from_sequence", "namespace", "run"]
    FROM_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    from_sequence: int
    namespace: Namespace
    run: int
    def __init__(self, namespace: _Optional[_Union[Namespace, _Mapping]] = ..., from_sequence: _Optional[int] = ..., run: _Optional[int] = ...) -> None: ...

class WatchResponse(_message.Message):
    __slots__ = ["fingerprint", "key", "kind", "levels", "run", "sequence", "tier"]
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = []
    DEGRADED: WatchResponse.Kind
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    MOVED: WatchResponse.Kind
    REMOVED: WatchResponse.Kind
    RUN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    STORED: WatchResponse.Kind
    TIER_FIELD_NUMBER: _ClassVar[int]
    fingerprint: bytes
    key: bytes
    kind: WatchResponse.Kind
    levels: int
    run: int
    sequence: int
    tier: _common_pb2.Tier
    def __init__(self, sequence: _Optional[int] = ..., kind: _Optional[_Union[WatchResponse.Kind, str]] = ..., key: _Optional[bytes] = ..., tier: _Optional[_Union[_common_pb2.Tier, str]] = ..., levels: _Optional[int] = ..., fingerprint: _Optional[bytes] = ..., run: _Optional[int] = ...) -> None: ...
