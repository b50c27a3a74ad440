"""The clouds to travel to."""

from __future__ import annotations

from tests.clouds.aws.conftest import _nothing_of_this_machine, aws, emulated  # noqa: F401 - fixtures
