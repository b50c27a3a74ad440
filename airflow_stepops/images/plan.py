"""What goes into an image, as data: its digest is the image's name, known before anything is built."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

from airflow_stepops.images.cache import key_of

#: Changes when images of equal parts are put together in another way.
_FORMAT = 1

REQUIREMENTS, RUNTIME, CODE = "requirements", "runtime", "code"

#: Our layers, in the order in which they lie on the base: what changes most is on top.
LAYERS = (REQUIREMENTS, RUNTIME, CODE)


def folder(layer: str) -> str:
    """Return the folder of a layer in the image, without a slash in front."""
    return f"opt/stepops/{layer}"


def history_of(layer: str) -> str:
    """Return the text in the image's history by which a layer of ours is known."""
    return f"airflow-stepops: {layer} layer"


@dataclass(frozen=True)
class Machine:
    """What wheels must fit.

    :param platform: ``os/architecture``.
    :param python: minor version, such as ``"3.12"``.
    :param here: whether it is this very machine and Python, rather than any Linux of the platform.
    """

    platform: str
    python: str
    here: bool = False


@dataclass(frozen=True)
class ImagePlan:
    """What goes into one image.

    :param base: pinned reference of the base, or the tag of a base that the engine builds; ``None`` for no base.
    :param requirements: lines for the installer, credentials masked.
    :param runtime: digest of what the runtime layer is made of.
    :param code: digest of the user's files.
    """

    base: str | None
    machine: Machine
    requirements: tuple[str, ...]
    runtime: str
    code: str

    @cached_property
    def digest(self) -> str:
        """``sha256:<hex>`` over everything in the plan."""
        return f"sha256:{key_of(_FORMAT, asdict(self))}"

    @property
    def tag(self) -> str:
        """Name of the image in its repository."""
        return f"stepops-{self.digest.removeprefix('sha256:')[:32]}"

    def __str__(self) -> str:
        rows = {
            "base": self.base or "none: this machine's Python",
            "platform": f"{self.machine.platform}, Python {self.machine.python}",
            REQUIREMENTS: ", ".join(self.requirements) or "none",
            RUNTIME: self.runtime,
            CODE: self.code,
            "tag": self.tag,
        }
        return "\n".join(f"{name:<13} {text}" for name, text in rows.items())


def environment(base: list[str]) -> list[str]:
    """Return the environment of an image: the base's, with our folders in front.

    :param base: ``NAME=value`` entries of the base's config.
    """
    values = dict(entry.partition("=")[::2] for entry in base)
    ours = [f"/{folder(layer)}" for layer in (CODE, REQUIREMENTS, RUNTIME)]
    values["PYTHONPATH"] = ":".join(filter(None, [*ours, values.get("PYTHONPATH")]))
    path = values.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    values["PATH"] = f"/{folder(REQUIREMENTS)}/bin:{path}"
    return [f"{name}={value}" for name, value in values.items()]
