"""`bulkbind schema`."""

from __future__ import annotations

import click

from bulkbind.app.output_schema import OUTPUTS
from bulkbind.app.schema import config_schema, manifest_schema
from bulkbind.cli import options
from bulkbind.cli.running import explained, print_json

_SCHEMAS = {"manifest": manifest_schema, "config": config_schema, **OUTPUTS}


@options.command("schema")
@click.argument("name", type=options.Choice(list(_SCHEMAS)), metavar="NAME")
def command(name: str) -> None:
    """Print a JSON Schema: of what goes in, or of what `--json` and logs put out.

    \b
    manifest, config  a manifest in YAML or JSON, a settings file: for an editor that checks YAML,
                      in a file that begins with
                      # yaml-language-server: $schema=manifest.schema.json
    summary           what run, resume and report print, and summary.json
    plan, status, validate, undo, verify, runs, doctor
                      what these commands print
    settings          what config prints
    inbox             what run --archive prints, and inbox.json
    events            a log line
    error             what stands there instead after a fatal error

    What scripts may rely on: `bulkbind help scripting`.

    \b
    Examples:
      bulkbind schema manifest > manifest.schema.json
      bulkbind schema summary | jq .properties.counts
    """  # noqa: D301  # click's mark for a block that is not wrapped
    with explained():
        print_json(_SCHEMAS[name]())
