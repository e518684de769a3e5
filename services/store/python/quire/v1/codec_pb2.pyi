from quire.v1 import common_pb2 as _common_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CodecData(_message.Message):
    __slots__ = ["block", "data", "last"]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    block: int
    data: bytes
    last: bool
    def __init__(self, block: _Optional[int] = ..., data: _Optional[bytes] = ..., last: bool = ...) -> None: ...

class DecodeRequest(_message.Message):
    __slots__ = ["data", "start"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    data: CodecData
    start: DecodeStart
    def __init__(self, start: _Optional[_Union[DecodeStart, _Mapping]] = ..., data: _Optional[_Union[CodecData, _Mapping]] = ...) -> None: ...

class DecodeStart(_message.Message):
    __slots__ = ["dtype", "layout", "max_bits", "part"]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_BITS_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    dtype: _common_pb2.DType
    layout: _common_pb2.Layout
    max_bits: int
    part: _common_pb2.Part
    def __init__(self, layout: _Optional[_Union[_common_pb2.Layout, _Mapping]] = ..., part: _Optional[_Union[_common_pb2.Part, _Mapping]] = ..., dtype: _Optional[_Union[_common_pb2.DType, str]] = ..., max_bits: _Optional[int] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ["codec", "layout", "part"]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    codec: str
    layout: _common_pb2.Layout
    part: _common_pb2.Part
    def __init__(self, layout: _Optional[_Union[_common_pb2.Layout, _Mapping]] = ..., part: _Optional[_Union[_common_pb2.Part, _Mapping]] = ..., codec: _Optional[str] = ...) -> None: ...

class DescribeResponse(_message.Message):
    __slots__ = ["codec", "fingerprint", "header_bytes", "k_bits", "object_bytes", "raw_bytes", "v_bits"]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    HEADER_BYTES_FIELD_NUMBER: _ClassVar[int]
    K_BITS_FIELD_NUMBER: _ClassVar[int]
    OBJECT_BYTES_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    V_BITS_FIELD_NUMBER: _ClassVar[int]
    codec: str
    fingerprint: bytes
    header_bytes: int
    k_bits: _containers.RepeatedScalarFieldContainer[float]
    object_bytes: _containers.RepeatedScalarFieldContainer[int]
    raw_bytes: int
    v_bits: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, codec: _Optional[str] = ..., fingerprint: _Optional[bytes] = ..., raw_bytes: _Optional[int] = ..., header_bytes: _Optional[int] = ..., object_bytes: _Optional[_Iterable[int]] = ..., k_bits: _Optional[_Iterable[float]] = ..., v_bits: _Optional[_Iterable[float]] = ...) -> None: ...

class EncodeRequest(_message.Message):
    __slots__ = ["data", "start"]
    DATA_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    data: CodecData
    start: EncodeStart
    def __init__(self, start: _Optional[_Union[EncodeStart, _Mapping]] = ..., data: _Optional[_Union[CodecData, _Mapping]] = ...) -> None: ...

class EncodeStart(_message.Message):
    __slots__ = ["codec", "dtype", "first_block", "layout", "part"]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    FIRST_BLOCK_FIELD_NUMBER: _ClassVar[int]
    LAYOUT_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    codec: str
    dtype: _common_pb2.DType
    first_block: int
    layout: _common_pb2.Layout
    part: _common_pb2.Part
    def __init__(self, layout: _Optional[_Union[_common_pb2.Layout, _Mapping]] = ..., part: _Optional[_Union[_common_pb2.Part, _Mapping]] = ..., codec: _Optional[str] = ..., dtype: _Optional[_Union[_common_pb2.DType, str]] = ..., first_block: _Optional[int] = ...) -> None: ...
