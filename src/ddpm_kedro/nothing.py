"""The output of a node that has nothing to save: Kedro does not accept None."""

from enum import Enum
from typing import Literal


class Nothing(Enum):
    """The type of NOTHING: an enumeration has one object per value, also after a copy."""

    NOTHING = "nothing to save"

    def __bool__(self) -> Literal[False]:
        """Return False, so that hooks test ``if data``."""
        return False


NOTHING = Nothing.NOTHING
