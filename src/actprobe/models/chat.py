"""Chat templates: what they make of messages, and of a text that becomes a conversation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actprobe.base.errors import BadInput, ConfigError
from actprobe.models.segments import PART, ROLE, Rendered, Segment

Render = Callable[[str], Rendered]

_KEYS = ("add_generation_prompt", "fold_system")  # of `chat`; the first one of transformers too
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


class Template:
    """A model's chat template with the variables of the config, its day fixed.

    chat: `variables` of the model `name` in the config. Raises ConfigError when there is none, and
    for variables that are not the user's to give.
    """

    def __init__(self, tokenizer: Any, chat: Mapping[str, Any], name: str = "X") -> None:
        self.where = f"models.{name}.chat"
        self._tokenizer, self._variables = tokenizer, dict(chat["variables"])
        self._sources = {offered: self._source(offered) for offered in (False, True)}
        _check_variables(tokenizer, self._variables, f"{self.where}.variables")

    def _source(self, tools: bool) -> str:
        """The template's text: some models have one of its own for chats with tools."""
        tokenizer, where = self._tokenizer, self.where
        if not tokenizer.chat_template:
            raise ConfigError(
                f"{where}: this model's tokenizer has no chat template: it was not trained on "
                f"conversations; leave {where} out, or take the model's chat version"
            )
        try:
            source = tokenizer.get_chat_template(tools=[{}] if tools else None)
        except ValueError as e:  # several, none of them the default
            raise ConfigError(f"{where}: {e}") from None
        return _FIXED_DAY + source if "strftime_now" in source else source

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any] | None = None,
        prompt: bool = False,
    ) -> str:
        """The messages as one string; prompt: with what begins the assistant's answer.

        Raises whatever the template raises.
        """
        more = {"tools": list(tools)} if tools else {}
        return self._tokenizer.apply_chat_template(
            [dict(m) for m in messages],
            chat_template=self._sources[bool(tools)],
            tokenize=False,
            add_generation_prompt=prompt,
            **{**self._variables, **more},
        )


def template(tokenizer: Any, chat: Mapping[str, Any], name: str = "X") -> Render:
    """A function from a text to the rendered conversation and where the text stands in it.

    chat: `system`, `user`, `add_generation_prompt`, `answer_after`, `variables` of the model `name`
    in the config. Templates may strip white space around a message, or have no system role (the
    system text then stands before the user's); both are found out by rendering, not by the model's
    name. Raises ConfigError when there is no template, it fails whatever the text, or it does not
    show the user message, the function BadInput for a text that the template alters.
    """
    made = Template(tokenizer, chat, name)
    where = made.where
    before, after = chat["user"].split("{text}", 1)
    system, answer_after = chat["system"], chat["answer_after"]

    def render(user: str, system: str | None) -> str:
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages.append({"role": "user", "content": user})
        return made.render(messages, prompt=chat["add_generation_prompt"])

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
    turn = 0 if system is None else 1

    def rendered(text: str) -> Rendered:
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
        content, n = PART["content"], high - low
        segments = [
            Segment(low + shift, high + shift, low - len(before), n, ROLE["user"], turn, content)
        ]
        if answer:
            end, n = len(string), len(answer)
            at = len(text) - n
            segments.append(Segment(end, end + n, at, n, ROLE["assistant"], turn + 1, content))
        return string + answer, segments

    return rendered


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
