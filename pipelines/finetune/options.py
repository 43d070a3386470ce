"""Options that every command on labelled data has, as typer wants them declared."""

from typing import Annotated

import typer

TextColumn = Annotated[
    str | None, typer.Option(help="Column with the text. Default: by its usual names.", show_default=False)
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column with the label. Default: by its usual names.", show_default=False)
]
Language = Annotated[str | None, typer.Option(help="Language of all records.", show_default=False)]
OnError = Annotated[
    str | None, typer.Option(help="Records that cannot be used: fail (default) or quarantine.", show_default=False)
]
Device = Annotated[str | None, typer.Option(help="auto (default), cpu or cuda.", show_default=False)]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
