"""Chat templates: a text becomes a conversation, and it is known where the text stands in it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from actprobe.errors import BadInput, ConfigError

Segment = tuple[int, int, int]  # start and end in the rendered string, start in the row's text
Render = Callable[[str], tuple[str, list[Segment]]]

_KEYS = ("add_generation_prompt",)  # of `chat` and of transformers alike
_MARK = "\u2063actprobe\u2063"  # stands for the user message to see what comes before it
# Some templates print the day on which they are rendered: this macro, put in front, hides the
# function that tells them, so that tokens are the same tomorrow.
_DAY = {
    "%F": "2024-07-26", "%T": "%H:%M:%S", "%R": "%H:%M", "%D": "%m/%d/%y",
    "%d": "26", "%-d": "26", "%e": "26", "%b": "Jul", "%B": "July", "%m": "07", "%-m": "7",
    "%Y": "2024", "%y": "24", "%A": "Friday", "%a": "Fri", "%j": "208",
    "%H": "12", "%I": "12", "%p": "PM", "%M": "00", "%S": "00",
}  # fmt: skip
_FIXED_DAY = (
    "{%- macro strftime_now(form) -%}{{ form"
    + "".join(f"|replace('{k}', '{v}')" for k, v in _DAY.items())
    + " }}{%- endmacro %}{{ '' }}"
)


def template(tokenizer: Any, chat: Mapping[str, Any], name: str = "X") -> Render:
    """A function from a text to the rendered conversation and where the text stands in it.

    chat: `system`, `user`, `add_generation_prompt`, `answer_after`, `variables` of the model `name`
    in the config. Templates may strip white space around a message, or have no system role (the
    system text then stands before the user's); both are found out by rendering, not by the model's
    name. Raises ConfigError when there is no template, it fails whatever the text, or it does not
    show the user message, the function BadInput for a text that the template alters.
    """
    where = f"models.{name}.chat"
    source = _source(tokenizer, where)
    _check_variables(tokenizer, chat["variables"], f"{where}.variables")
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
    try:
        prefix, found, _ = render(_MARK, system).partition(_MARK)
    except Exception as e:
        raise ConfigError(
            f"{where}: the model's chat template fails: {type(e).__name__}: {e}; what it asks for "
            f"can be given, e.g. {where}.variables: {{tools: []}}"
        ) from e
    if not found:
        raise ConfigError(f"{where}: the model's chat template does not show the user message")

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


def _source(tokenizer: Any, where: str) -> str:
    """The template's text, its day fixed."""
    if not tokenizer.chat_template:
        raise ConfigError(
            f"{where}: this model's tokenizer has no chat template: it was not trained on "
            f"conversations; leave {where} out, or take the model's chat version"
        )
    try:
        source = tokenizer.get_chat_template()
    except ValueError as e:  # several, none of them the default
        raise ConfigError(f"{where}: {e}") from None
    return _FIXED_DAY + source if "strftime_now" in source else source


def _check_variables(tokenizer: Any, variables: Mapping[str, Any], where: str) -> None:
    """Refuse variables that have the name of something that is ours to give."""
    taken = {
        *inspect.signature(tokenizer.apply_chat_template).parameters,
        "messages",
        "conversations",
    }
    for word in sorted((taken - {"tools", "documents", "kwargs"}) & set(variables)):
        hint = "write it as a key of `chat`" if word in _KEYS else "the template gets its own"
        raise ConfigError(f"{where}: {word!r} is no variable of a template; {hint}")


def _takes_system(render: Callable[[str, str | None], str], system: str) -> bool:
    try:
        return system.strip() in render(_MARK, system)
    except Exception:  # of the template, which says so in ways of its own
        return False
