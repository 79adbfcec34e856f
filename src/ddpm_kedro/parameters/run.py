"""The parameter group of a run as a whole."""

from ddpm_kedro.parameters.base import Group, NotInFingerprint


class RunParameters(Group):
    """How ``kedro run`` runs the requested nodes."""

    repeat: NotInFingerprint[bool] = False
    """Whether nodes run although they are up to date. A finished training is trained again with ``training.resume``."""
