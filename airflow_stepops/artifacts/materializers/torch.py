"""torch state dicts as safetensors: data without code."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from airflow_stepops.artifacts.materializers import Materializer

_BLOCK = 8 * 1024 * 1024
#: Safetensors keeps no order of its own: it is in the file's header, beside whether the dict was an ordered one.
_ORDER = "order"
_ORDERED = "ordered"


class TorchMaterializer(Materializer):
    """Dicts of text to dense ``torch.Tensor``, such as a module's state dict. Tensors come back on the CPU."""

    name: ClassVar[str] = "torch"
    extension: ClassVar[str] = ".safetensors"

    def handles(self, value: Any) -> bool:
        """Whether the value is a dict of plain tensors that share no memory, and safetensors can be imported."""
        torch = sys.modules.get("torch")
        if torch is None or type(value) not in (dict, OrderedDict) or not value:
            return False
        if not all(type(key) is str and type(item) is torch.Tensor for key, item in value.items()):
            return False
        if any(item.layout is not torch.strided or item.requires_grad for item in value.values()):
            return False
        storages = [item.untyped_storage().data_ptr() for item in value.values() if item.numel()]
        return len(set(storages)) == len(storages) and _has_safetensors()

    def save(self, value: Any, file: BinaryIO) -> dict[str, Any]:
        """Write safetensors, through a file beside."""
        from safetensors.torch import save_file

        header = {_ORDER: json.dumps(list(value)), _ORDERED: str(isinstance(value, OrderedDict))}
        with tempfile.NamedTemporaryFile(suffix=self.extension) as spool:
            save_file({key: tensor.contiguous() for key, tensor in value.items()}, spool.name, header)
            with Path(spool.name).open("rb") as written:
                shutil.copyfileobj(written, file, _BLOCK)
        return {"tensors": len(value), "parameters": sum(tensor.numel() for tensor in value.values())}

    def load(self, file: BinaryIO, metadata: Mapping[str, Any]) -> Any:  # noqa: ARG002
        """Read the tensors in the order that they had."""
        from safetensors import safe_open

        with safe_open(file.name, framework="pt") as tensors:
            header = tensors.metadata()
            kind = OrderedDict if header[_ORDERED] == "True" else dict
            return kind((key, tensors.get_tensor(key).clone()) for key in json.loads(header[_ORDER]))


def _has_safetensors() -> bool:
    from importlib.util import find_spec

    return find_spec("safetensors") is not None


MATERIALIZER = TorchMaterializer()
