"""Whatever is raised while somebody else's SAE is read, is that SAE's fault, and named so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from actprobe.base.errors import ActprobeError, BadInput, bad_file


@contextlib.contextmanager
def blaming(name: str) -> Iterator[None]:
    """Turn what a library raises inside into BadInput of this SAE (`saes.NAME`).

    Errors that are meant for the user pass, those of BadInput with the name before them; so do
    failures of the machine (`errors.bad_file`).
    """
    try:
        yield
    except BadInput as e:
        raise (e if str(e).startswith(name) else BadInput(f"{name}: {e}")) from None
    except (ActprobeError, MemoryError):
        raise
    except Exception as e:
        raise bad_file(
            name, e, f"cannot be read ({type(e).__name__}; fetch its files again, or take it out of "
            "`saes`): ",
        ) from e  # fmt: skip
