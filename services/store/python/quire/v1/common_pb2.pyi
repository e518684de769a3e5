from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

BF16: DType
DESCRIPTOR: _descriptor.FileDescriptor
DISK: Tier
F16: DType
F32: DType
GPU: Tier
HOST: Tier
KEY: StreamKind
LATENT: StreamKind
REDIS: Tier
TIER_NONE: Tier
VALUE: StreamKind

class LayerLayout(_message.Message):
    __slots__ = ["streams"]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    streams: _containers.RepeatedCompositeFieldContainer[StreamLayout]
    def __init__(self, streams: _Optional[_Iterable[_Union[StreamLayout, _Mapping]]] = ...) -> None: ...

class Layout(_message.Message):
    __slots__ = ["block_tokens", "codebook_id", "dtype", "layers", "model_digest", "rope_state", "rotation_id", "rotation_seed"]
    BLOCK_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CODEBOOK_ID_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    MODEL_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROPE_STATE_FIELD_NUMBER: _ClassVar[int]
    ROTATION_ID_FIELD_NUMBER: _ClassVar[int]
    ROTATION_SEED_FIELD_NUMBER: _ClassVar[int]
    block_tokens: int
    codebook_id: int
    dtype: DType
    layers: _containers.RepeatedCompositeFieldContainer[LayerLayout]
    model_digest: bytes
    rope_state: str
    rotation_id: int
    rotation_seed: int
    def __init__(self, model_digest: _Optional[bytes] = ..., dtype: _Optional[_Union[DType, str]] = ..., rope_state: _Optional[str] = ..., rotation_id: _Optional[int] = ..., rotation_seed: _Optional[int] = ..., codebook_id: _Optional[int] = ..., block_tokens: _Optional[int] = ..., layers: _Optional[_Iterable[_Union[LayerLayout, _Mapping]]] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ["head_begin", "head_end", "layer_begin", "layer_end"]
    HEAD_BEGIN_FIELD_NUMBER: _ClassVar[int]
    HEAD_END_FIELD_NUMBER: _ClassVar[int]
    LAYER_BEGIN_FIELD_NUMBER: _ClassVar[int]
    LAYER_END_FIELD_NUMBER: _ClassVar[int]
    head_begin: int
    head_end: int
    layer_begin: int
    layer_end: int
    def __init__(self, layer_begin: _Optional[int] = ..., layer_end: _Optional[int] = ..., head_begin: _Optional[int] = ..., head_end: _Optional[int] = ...) -> None: ...

class StreamLayout(_message.Message):
    __slots__ = ["dim", "heads", "kind", "sliding_window"]
    DIM_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SLIDING_WINDOW_FIELD_NUMBER: _ClassVar[int]
    dim: int
    heads: int
    kind: StreamKind
    sliding_window: int
    def __init__(self, kind: _Optional[_Union[StreamKind, str]] = ..., heads: _Optional[int] = ..., dim: _Optional[int] = ..., sliding_window: _Optional[int] = ...) -> None: ...

class StreamKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class DType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []

class Tier(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = []
