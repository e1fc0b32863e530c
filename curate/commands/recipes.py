"""curate recipes: the recipes that come with curate."""

from __future__ import annotations

import click
import yaml

from curate.errors import RequestError
from curate.recipe import DEFAULT, builtin_recipes


@click.command()
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """List the built-in recipes, or print the YAML of the one called NAME, to start your own from."""
    recipes = builtin_recipes()
    if name is not None:
        if name not in recipes:
            raise RequestError(f"NAME: no built-in recipe {name!r}; there are {', '.join(sorted(recipes))}")
        click.echo(recipes[name].rstrip("\n"))
        return
    for known, text in sorted(recipes.items(), key=lambda item: (item[0] != DEFAULT, item[0])):
        description = " ".join((yaml.safe_load(text).get("description") or "").split())
        click.echo(click.style(known, bold=True) + (" (used without -r)" if known == DEFAULT else ""))
        click.echo(click.wrap_text(description, width=88, initial_indent="  ", subsequent_indent="  "))
