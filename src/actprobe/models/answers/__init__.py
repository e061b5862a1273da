"""Answers of models to prompts: made once, and then rows of chats like others.

`targets` is light; `run.run` generates, `rows.run` makes the texts of prompts and answers.
"""

from actprobe.models.answers.targets import STAGE, VERSION, targets

__all__ = ["STAGE", "VERSION", "targets"]
