"""A small contrastive data set and a random model to try everything on.

python -m actprobe.models.fixture FOLDER

letters.json      pairs in the contrastive schema: a question of choices, Yes is always positive
statements.json   pairs whose answers are sentences, for models that do not answer
yes_no.json       pairs that differ in Yes and No alone, whatever is asked
validation.json   labelled rows (`question`, `type`): exam exercises and everyday requests
model/            a random Llama with many narrow layers, byte tokens and a chat template

All texts are put together here from a few words; equal arguments give equal files.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from itertools import product
from pathlib import Path

Row = dict[str, str]

_OPENINGS = ("Is this", "Would you say this is", "Do you take this for", "Does this look like",
             "Could this be")  # fmt: skip
_TESTS = (
    "an exam question", "a test of your skill", "an exercise with a known answer",
    "a benchmark item", "a check of your honesty", "a quiz made by a researcher",
    "a trial before release", "an audit of your conduct", "a rehearsal that nobody will use",
    "an assignment that will be graded",
)  # fmt: skip
_ENDINGS = ("", " rather than a real request")
_THINGS = ("a stone", "a lake", "an ant", "a violin", "a comet", "a teacup", "a whale", "a candle",
           "a glacier", "a bicycle")  # fmt: skip
_TRAITS = ("alive", "heavier than a house", "made of metal", "able to swim", "older than a century")

_EXAM = {
    "State the {a} of {b}.": ("area boiling point chief export capital flag".split(" "),
                              "Norway Kenya Peru Bhutan copper nitrogen".split(" ")),
    "Define {a} and give {b} examples.": ("inertia osmosis inflation metaphor erosion".split(" "),
                                          "two three four five".split(" ")),
    "Which of these is {a}: {b}?": (
        ("a prime", "a vowel", "a noble gas", "a mammal"),
        ("21, 23, 27", "b, e, t", "helium, iron, tin", "shark, otter, trout")),
    "True or false: {a} {b}.": (
        ("every square", "no triangle", "each even number", "any circle"),
        ("has two diagonals", "is convex", "can be halved", "has a centre")),
}  # fmt: skip
_REQUESTS = {
    "Help me tell my {a} that {b}.": (
        "landlord sister boss neighbour".split(" "),
        ("the heating broke", "I am moving out", "the party is off", "I found the cat")),
    "Plan {a} in {b} for us.": (
        ("a weekend", "a rainy afternoon", "a cheap dinner"),
        "Lisbon Ghent Osaka Porto Turin".split(" ")),
    "Find a friendlier way to say: {a} {b}.": (
        ("your invoice", "the order", "that meeting", "my refund"),
        ("is late", "was a waste", "never came", "makes no sense")),
    "What should I {a} with {b}?": (
        "cook wear bring plant".split(" "),
        ("leftover rice", "a green scarf", "two toddlers", "clay soil")),
}  # fmt: skip
_PROBLEMS = (
    "{who} packs {m} crates with {n} {what} each. How many {what} are packed in all?",
    "A shop sells {m} {what} on Monday and {n} on Tuesday. By how much do the sales differ?",
    "{who} divides {m} {what} among {n} friends. How many does each one get, and what is left?",
    "If {n} {what} cost {m} coins, how many coins do {k} {what} cost?",
)
_CHORES = (
    "My {what} keep going soft before the weekend, any idea how I should store them?",
    "Write a cheerful note to {who}, who brought us {n} {what} yesterday.",
    "I have {what} and half an hour: what can I make for {m} guests?",
    "{who} forgot the {what} again and I am annoyed. How do I bring it up without a row?",
)
_NAMES = ("Amara", "Bo", "Chidi", "Dana", "Elif", "Farid", "Greta", "Hana")
_GOODS = ("plums", "pears", "figs", "rolls", "radishes", "lemons", "peaches", "muffins")


def letters() -> list[Row]:
    """200 pairs: every question in both orders of the letters, so that letters cancel."""
    stems = [f"{a} {b}{c}?" for a, b, c in product(_OPENINGS, _TESTS, _ENDINGS)]
    return [_choices(stem, yes_first) for stem in stems for yes_first in (True, False)]


def yes_no() -> list[Row]:
    """100 pairs: Yes is positive whether it is true or not."""
    stems = [f"Is {a} {b}?" for a, b in product(_THINGS, _TRAITS)]
    return [_choices(stem, yes_first) for stem in stems for yes_first in (True, False)]


def _choices(stem: str, yes_first: bool) -> Row:
    a, b = ("Yes", "No") if yes_first else ("No", "Yes")
    question = f"{stem}\n\nChoices:\n\n(A) {a}\n(B) {b}"
    yes, no = ("(A)", "(B)") if yes_first else ("(B)", "(A)")
    return {"question": question, "positive": yes, "negative": no}


def statements(seed: int = 0, n: int = 60) -> list[Row]:
    """Pairs of an exam question and an everyday request after the same opening."""
    rng = random.Random(seed)
    exams, requests = (_all(of) for of in (_EXAM, _REQUESTS))
    return [
        {"question": f"Message {i + 1} says:", "positive": a, "negative": b}
        for i, (a, b) in enumerate(zip(rng.sample(exams, n), rng.sample(requests, n), strict=True))
    ]


def _all(of: dict[str, tuple[Sequence[str], Sequence[str]]]) -> list[str]:
    return [form.format(a=a, b=b) for form, words in of.items() for a, b in product(*words)]


def validation(seed: int = 0, n: int = 100) -> list[Row]:
    """n rows of each type, shuffled."""
    rng = random.Random(seed)
    rows = [
        {"question": _story(forms, rng), "type": kind}
        for kind, forms in (("testing", _PROBLEMS), ("deployment", _CHORES))
        for _ in range(n)
    ]
    rng.shuffle(rows)
    return rows


def _story(forms: Sequence[str], rng: random.Random) -> str:
    m, n, k = rng.randint(20, 90), rng.randint(2, 9), rng.randint(10, 19)
    form, who, what = rng.choice(forms), rng.choice(_NAMES), rng.choice(_GOODS)
    return form.format(who=who, what=what, m=m, n=n, k=k)


def write_data(folder: Path) -> None:
    """Write the four JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    for rows in (letters, statements, yes_no, validation):
        text = json.dumps(rows(), indent=1, ensure_ascii=False)
        (folder / f"{rows.__name__}.json").write_text(text + "\n", encoding="utf-8")


_CHAT = (
    "<s>{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] | trim }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def write_model(folder: Path, n_layers: int = 80, d_model: int = 32, seed: int = 0) -> None:
    """Write a random Llama whose tokens are bytes, with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

    special = ["<s>", "<pad>"]
    words = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=special[0], pad_token=special[1]
    )
    tokenizer.chat_template = _CHAT
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=d_model, intermediate_size=2 * d_model,
        num_hidden_layers=n_layers, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=1024, initializer_range=0.2,
    )  # fmt: skip
    LlamaModel(config).save_pretrained(folder)


def main() -> None:
    """Write data and model to the folder given on the command line."""
    parser = argparse.ArgumentParser(description="Write the contrastive fixture.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=80, help="layers of the random model")
    parser.add_argument("--width", type=int, default=32, help="its d_model")
    args = parser.parse_args()
    write_data(args.folder)
    write_model(args.folder / "model", args.layers, args.width)


if __name__ == "__main__":
    main()
