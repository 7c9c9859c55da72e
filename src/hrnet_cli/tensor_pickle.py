"""Reads the tensors of a PyTorch file and nothing else; no code the file names is ever run.

`torch.load(weights_only=True)` refuses a whole file for one foreign object among its metadata:
the loss history of MMEngine, a NumPy scalar, an argparse namespace. Published weights are full of
them, so this reader puts an inert object in the place of each and goes on. Nothing is imported by
name: the only calls a file can cause are those of `_RebuildTensor`, `_TakeFirst` and `_Dict`.
Both forms of `torch.save` are read: the zip archive (since torch 1.6) and the older plain stream.
"""

import pickle
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch

# First of the five pickles in an old file (torch/serialization.py, MAGIC_NUMBER).
STREAM_MAGIC = 0x1950A86A20F9469CFC6C
STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

# Gives the elements of one storage as a flat tensor: called with its key, type and length.
ReadStorage = Callable[[str, torch.dtype, int], torch.Tensor]
# Flat storage, offset, size and stride, in elements.
TensorParts = tuple[torch.Tensor, int, Sequence[int], Sequence[int]]


def load(path: Path) -> object:
    """Return the object a PyTorch file holds, foreign parts replaced by inert objects.

    Args:
        path: File written by `torch.save`, zip archive or stream.

    Raises:
        pickle.UnpicklingError: It is not such a file. A damaged one may raise whatever reading
            garbage raises, as with `pickle.load`.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return _load_archive(archive)
    with path.open("rb") as stream:
        return _load_stream(stream)


class _Inert:
    """Stands for a foreign class, function or object, and swallows all a pickle can do to it.

    It defines ``__setstate__``, so no state ever reaches its attributes.
    """

    __slots__ = ()

    def __new__(cls, *_args: object, **_kwargs: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *_args: object, **_kwargs: object) -> object:
        return _Inert()

    def __setstate__(self, _state: object) -> None:
        pass

    def __setitem__(self, _key: object, _value: object) -> None:
        pass

    def append(self, _item: object) -> None:
        pass

    def extend(self, _items: object) -> None:
        pass

    def add(self, _item: object) -> None:
        pass


class _RebuildTensor(_Inert):
    """Makes a tensor of (flat storage, offset, size, stride, ...); torch checks the bounds."""

    __slots__ = ()

    def __call__(self, *args: object, **_kwargs: object) -> torch.Tensor:
        flat, offset, size, stride = cast("TensorParts", args[:4])
        return torch.as_strided(flat, size, stride, offset)


class _TakeFirst(_Inert):
    """Makes of (tensor, requires_grad, hooks), a parameter, the tensor."""

    __slots__ = ()

    def __call__(self, *args: object, **_kwargs: object) -> object:
        return args[0]


class _Dict(dict[Any, Any]):
    """Stands for OrderedDict, without the attributes that a pickle could set on it."""

    __slots__ = ()

    def __setstate__(self, _state: object) -> None:
        pass


_KNOWN = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _TakeFirst(),
    ("torch._utils", "_rebuild_parameter_with_state"): _TakeFirst(),
    **{("torch", name): dtype for name, dtype in STORAGE_DTYPES.items()},
}


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles without importing: every name but those of `_KNOWN` becomes `_Inert`."""

    def __init__(self, stream: IO[bytes], read_storage: ReadStorage) -> None:
        super().__init__(stream, encoding="utf-8")
        self._read_storage = read_storage
        self._storages: dict[str, torch.Tensor] = {}

    def find_class(self, module_name: str, global_name: str, /) -> object:
        return _KNOWN.get((module_name, global_name), _Inert)

    def persistent_load(self, pid: object, /) -> torch.Tensor:
        """Return the storage that ('storage', dtype, key, device, length, ...) names."""
        if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError("expected the description of a storage")
        _, dtype, key, _, length, *view = pid
        if any(view) or not (isinstance(dtype, torch.dtype) and isinstance(key, str)):
            raise pickle.UnpicklingError(f"storage {key} has a type or view that is not supported")
        if key not in self._storages:
            self._storages[key] = self._read_storage(key, dtype, length)
        return self._storages[key]


def _load_archive(archive: zipfile.ZipFile) -> object:
    names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise pickle.UnpicklingError(f"archive holds {len(names)} data.pkl, expected one")
    folder = names[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist():
        byte_order = archive.read(f"{folder}byteorder").decode()
        if byte_order != sys.byteorder:
            raise pickle.UnpicklingError(f"byte order is {byte_order}, expected {sys.byteorder}")

    def read_storage(key: str, dtype: torch.dtype, length: int) -> torch.Tensor:
        return _flat_tensor(archive.read(f"{folder}data/{key}"), dtype, length)

    with archive.open(names[0]) as stream:
        return _TensorUnpickler(stream, read_storage).load()


def _load_stream(stream: BinaryIO) -> object:
    """Return the object of an old file: three headers, the object, storage keys, the storages."""
    storages: dict[str, torch.Tensor] = {}

    def reserve(key: str, dtype: torch.dtype, length: int) -> torch.Tensor:
        storages[key] = torch.empty(length, dtype=dtype)
        return storages[key]

    def next_pickle() -> object:
        return _TensorUnpickler(stream, reserve).load()

    magic, _protocol, _system = next_pickle(), next_pickle(), next_pickle()
    if magic != STREAM_MAGIC:
        raise pickle.UnpicklingError("does not start like a file of torch.save")
    tree = next_pickle()
    keys = cast("list[str]", next_pickle())
    if set(keys) != storages.keys():
        raise pickle.UnpicklingError("does not list the storages it uses")
    for key in keys:
        storage = storages[key]
        length = int.from_bytes(stream.read(8), "little")
        data = stream.read(length * storage.itemsize)
        storage.copy_(_flat_tensor(data, storage.dtype, len(storage)))
    return tree


def _flat_tensor(data: bytes, dtype: torch.dtype, length: int) -> torch.Tensor:
    if len(data) != length * dtype.itemsize:
        raise pickle.UnpicklingError(f"storage of {len(data)} bytes, expected {length} of {dtype}")
    if not data:
        return torch.empty(0, dtype=dtype)
    # As bytes first: where torch.frombuffer refuses a length it does not give the buffer back. A
    # bytearray, because torch warns of memory that cannot be written.
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).view(dtype)
