"""curate explain: why one sample was kept or dropped."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("out")
@click.argument("uid")
@click.option("--pool", help="Where the pool is now.  [default: as in OUT/manifest.json]")
@click.option("--cache", help="Folder or URL of its features.  [default: POOL/_features]")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON: a list, one object a sample.")
def command(out: str, uid: str, pool: str | None, cache: str | None, as_json: bool) -> None:
    """Say why a sample of the dataset OUT was kept or dropped.

    UID is a sample's uid, enough of its start to tell it from others, or a key. Shows the verdict, what each
    filter asked and what was measured, and the samples it duplicates or is duplicated by.
    """
    from curate.report.explain import explain
    from curate.report.finished import open_finished, pool_of

    folder, manifest = open_finished(out)
    found = explain(folder, manifest, pool_of(manifest, pool, cache), uid)
    if as_json:
        click.echo(json.dumps([explanation.as_dict() for explanation in found], indent=2, ensure_ascii=False))
        return
    from curate.report.explain_text import as_text

    click.echo("\n\n".join(as_text(explanation) for explanation in found))
