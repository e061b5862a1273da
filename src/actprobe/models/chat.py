"""Chat templates: a text becomes a conversation, and it is known where the text stands in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from actprobe.errors import ActprobeError, BadInput

Segment = tuple[int, int, int]  # start and end in the rendered string, start in the row's text
Render = Callable[[str], tuple[str, list[Segment]]]

_MARK = "\u2063actprobe\u2063"  # stands for the user message to see what comes before it
# Some templates print the day on which they are rendered: this macro, put in front, hides the
# function that tells them, so that tokens are the same tomorrow.
_DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24"}
_FIXED_DAY = (
    "{%- macro strftime_now(form) -%}{{ form"
    + "".join(f"|replace('{k}', '{v}')" for k, v in _DAY.items())
    + " }}{%- endmacro %}{{ '' }}"
)


def template(tokenizer: Any, chat: Mapping[str, Any]) -> Render:
    """A function from a text to the rendered conversation and where the text stands in it.

    chat: `system`, `user`, `add_generation_prompt`, `answer_after`, `variables` of the config.
    Templates may strip white space around a message, or have no system role (the system text then
    stands before the user's); both are found out by rendering, not by the model's name. Raises
    ActprobeError when there is no template or it does not show the user message, the function
    BadInput for a text that the template alters.
    """
    if not tokenizer.chat_template:
        raise ActprobeError("chat: this model's tokenizer has no chat template")
    source = tokenizer.get_chat_template()
    if "strftime_now" in source:
        source = _FIXED_DAY + source
    before, after = chat["user"].split("{text}", 1)
    system, answer_after = chat["system"], chat["answer_after"]

    def render(user: str, system: str | None) -> str:
        messages = [] if system is None else [{"role": "system", "content": system}]
        return tokenizer.apply_chat_template(
            [*messages, {"role": "user", "content": user}],
            chat_template=source,
            tokenize=False,
            add_generation_prompt=chat["add_generation_prompt"],
            **chat["variables"],
        )

    if system is not None and not _takes_system(render, system):
        before, system = f"{system}\n\n{before}", None
    prefix, found, _ = render(_MARK, system).partition(_MARK)
    if not found:
        raise ActprobeError("chat: the chat template does not show the user message")

    def rendered(text: str) -> tuple[str, list[Segment]]:
        question, answer = text, ""
        if answer_after and answer_after in text:
            question, _, answer = text.rpartition(answer_after)
        user = f"{before}{question}{after}"
        string = render(user, system)
        shown = next((u for u in (user, user.strip()) if string.startswith(prefix + u)), None)
        if shown is None:
            raise BadInput(f"the chat template alters the text {text[:60]!r}")
        stripped = len(user) - len(user.lstrip()) if shown != user else 0
        # Where the question stands in the message, cut to what the template shows of it.
        low = max(len(before), stripped)
        high = min(len(before) + len(question), stripped + len(shown))
        shift = len(prefix) - stripped
        segments = [(low + shift, high + shift, low - len(before))]
        if answer:
            segments.append((len(string), len(string) + len(answer), len(text) - len(answer)))
        return string + answer, segments

    return rendered


def _takes_system(render: Callable[[str, str | None], str], system: str) -> bool:
    from jinja2 import TemplateError

    try:
        return system.strip() in render(_MARK, system)
    except TemplateError:
        return False
