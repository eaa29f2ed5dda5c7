"""`bulkbind schema`."""

from __future__ import annotations

import click

from bulkbind.app.schema import config_schema, manifest_schema
from bulkbind.cli import options
from bulkbind.cli.running import explained, print_json

_SCHEMAS = {"manifest": manifest_schema, "config": config_schema}


@options.command("schema")
@click.argument("what", type=click.Choice(list(_SCHEMAS)))
def command(what: str) -> None:
    """Print the JSON Schema of manifests (YAML and JSON) or of settings files.

    An editor with a YAML language server completes and checks a file that begins with
    `# yaml-language-server: $schema=manifest.schema.json`.

    \b
    Examples:
      bulkbind schema manifest > manifest.schema.json
      bulkbind schema config > config.schema.json
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        print_json(_SCHEMAS[what]())
