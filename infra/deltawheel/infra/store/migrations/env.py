"""What Alembic runs for every command: the revisions, on the connection that it was given."""

from alembic import context

from deltawheel.infra.store import cycle_tables, judge_tables, ladder_tables, loop_tables, tables
from deltawheel.infra.store.schema import VERSION_TABLE

assert cycle_tables.CYCLES.metadata is tables.PROMPTS.metadata, "all tables are declared by now"
assert judge_tables.CALIBRATIONS.metadata is tables.PROMPTS.metadata, "all are declared by now"
assert ladder_tables.PROBES.metadata is tables.PROMPTS.metadata, "all tables are declared by now"
assert loop_tables.HALTS.metadata is tables.PROMPTS.metadata, "all tables are declared by now"

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=tables.PROMPTS.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
