# SPDX-License-Identifier: MIT
"""Command-line flags made from the fields of :class:`RunConfig`, so that none can be forgotten."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Optional, get_type_hints

import typer

from adamwprune.experiment.errors import ExperimentError
from adamwprune.experiment.fields import common_fields, field_types, group_of, parse
from adamwprune.training.config import RunConfig


def with_fields(names: Iterable[str], *, defaults: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a command one flag for each named field; those that were given reach it as the dict ``fields``.

    ``defaults`` says whether the flags show the fields' own defaults or leave what is not given to a configuration.
    """
    parameters = [_parameter(name, defaults) for name in names]
    wanted = {parameter.name for parameter in parameters}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(**arguments: Any) -> Any:
            given = {name: arguments.pop(name) for name in wanted}
            return command(fields={name: value for name, value in given.items() if value is not None}, **arguments)

        hints = get_type_hints(command, include_extras=True)
        own = [
            parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command).parameters.values()
            if parameter.name != "fields"
        ]
        signature = inspect.Signature([*own, *parameters])
        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in signature.parameters.values()}
        wrapper.__name__, wrapper.__doc__ = command.__name__, command.__doc__
        return wrapper

    return decorate


def all_fields() -> tuple[str, ...]:
    """Every field, for a single run."""
    return tuple(field_types())


def matrix_fields() -> tuple[str, ...]:
    """The fields that all runs of a matrix share."""
    return common_fields()


def _parameter(name: str, defaults: bool) -> inspect.Parameter:
    kind, _ = field_types()[name]
    field = next(f for f in dataclasses.fields(RunConfig) if f.name == name)
    flag = f"--{name.replace('_', '-')}"
    declaration = f"{flag}/--no-{name.replace('_', '-')}" if kind is bool else flag
    shown = f" (default {_word(field.default)})" if defaults and field.default is not None else ""
    number = kind in (int, float)
    option = typer.Option(
        declaration,
        help=field.metadata["help"] + shown,
        rich_help_panel=group_of(name),
        show_default=False,
        parser=_parser(name) if number else None,
        metavar=kind.__name__.upper() if number else None,
    )
    annotation = Annotated[Optional[kind], option]  # type: ignore[valid-type]  # noqa: UP045
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _parser(name: str) -> Callable[[str], Any]:
    def number(text: str) -> Any:
        try:
            return parse(name, text)
        except ExperimentError as error:
            raise typer.BadParameter(str(error)) from None

    return number


def _word(default: Any) -> str:
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)
