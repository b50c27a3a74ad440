"""The small JSON description of a value in the artifact store, which travels in XCom."""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from airflow_stepops.errors import SpecError


@dataclass(frozen=True)
class ArtifactReference:
    """Where a value is, how to load it, and what its bytes must hash to.

    :param uri: URI of the object, under the root of its artifact store.
    :param materializer: name of the materializer that saved it.
    :param type: qualified name of the value's Python type, for people.
    :param blake3: hex digest (BLAKE3, 256 bits) of the object's bytes.
    :param size: length of the object in bytes.
    :param metadata: small JSON facts of the materializer (shape, columns, dtype …).
    """

    #: Version of the form, read by Airflow's XCom serializer.
    __version__: ClassVar[int] = 1

    uri: str
    materializer: str
    type: str
    blake3: str
    size: int
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def load(self) -> Any:
        """Load the value, whatever the artifact store, after checking its digest.

        :raises ArtifactNotFoundError: if the object is gone.
        :raises IntegrityError: if its bytes are not those that were saved.
        """
        from airflow_stepops.artifacts.values import load

        return load(self)

    def serialize(self) -> dict[str, Any]:
        """Return the JSON form (also called by Airflow for XCom)."""
        return dataclasses.asdict(self)

    @staticmethod
    def deserialize(data: object, version: int = 1) -> ArtifactReference:
        """Rebuild a reference from its JSON form.

        :raises SpecError: if that is no mapping, or a field is missing, unknown or of the wrong type.
        """
        if version > ArtifactReference.__version__:
            raise SpecError(
                f"artifact reference has version {version}; this airflow-stepops reads up to "
                f"{ArtifactReference.__version__}: upgrade it here."
            )
        if not isinstance(data, Mapping):
            raise SpecError(f"artifact reference: must be a mapping, not {type(data).__name__}.")
        types = {"uri": str, "materializer": str, "type": str, "blake3": str, "size": int, "metadata": dict}
        if set(data) != set(types):
            odd = sorted(set(data) ^ set(types))
            raise SpecError(f"artifact reference: missing or unknown fields {odd}.")
        for field, kind in types.items():
            if not isinstance(data[field], kind) or isinstance(data[field], bool):
                raise SpecError(f"artifact reference: {field}={reprlib.repr(data[field])} must be {kind.__name__}.")
        return ArtifactReference(**data)
