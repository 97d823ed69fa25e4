"""What a judge raises, and what is raised about it."""

from __future__ import annotations


class Refused(Exception):
    """The run asks for what cannot be done: an unknown dataset, tensors that are not the model's.

    The text reaches the person who started the run, and ends the run. Name the thing that is wrong and what would be
    right.
    """


class WrongAnswer(Exception):
    """A judge returned what may not be sent. The text tells its author what to return instead."""


class Forgotten(Exception):
    """The session or the generation is not known, or not any more."""


class Cancelled(Exception):
    """Nobody waits for the answer any more."""
