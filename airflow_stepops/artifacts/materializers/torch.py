"""torch state dicts as safetensors: data without code."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer

_BLOCK = 8 * 1024 * 1024


class TorchMaterializer(Materializer):
    """Dicts of text to dense ``torch.Tensor``, such as a module's state dict. Tensors come back on the CPU."""

    name: ClassVar[str] = "torch"
    extension: ClassVar[str] = ".safetensors"

    def handles(self, value: Any) -> bool:
        """Whether the value is a dict of dense tensors that share no memory, and safetensors can be imported."""
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(value, dict) or not value:
            return False
        if not all(type(key) is str and type(item) in _tensors(torch) for key, item in value.items()):
            return False
        tensors = list(value.values())
        if any(tensor.layout is not torch.strided for tensor in tensors):
            return False
        storages = [tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()]
        return len(set(storages)) == len(storages) and _has_safetensors()

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write safetensors."""
        from safetensors.torch import save_file

        with tempfile.NamedTemporaryFile(suffix=self.extension) as spool:
            save_file({key: tensor.detach().contiguous() for key, tensor in value.items()}, spool.name)
            with Path(spool.name).open("rb") as written:
                shutil.copyfileobj(written, file, _BLOCK)
        return {"tensors": len(value), "parameters": sum(tensor.numel() for tensor in value.values())}

    def load(self, path: Path, metadata: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Read safetensors into a dict in the order of the file."""
        from safetensors.torch import load_file

        return load_file(path)


def _tensors(torch: Any) -> tuple[type, ...]:
    return (torch.Tensor, torch.nn.Parameter)


def _has_safetensors() -> bool:
    from importlib.util import find_spec

    return find_spec("safetensors") is not None


MATERIALIZER = TorchMaterializer()
