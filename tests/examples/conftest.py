"""The folder that an example runs in."""

from tests.integration.conftest import folder

__all__ = ["folder"]
