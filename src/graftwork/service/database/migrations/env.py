"""What Alembic runs: all steps in the transaction of the connection that `migrate` hands over."""

from alembic import context

from graftwork.service.database.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # SQLite's tables change in a transaction too, which Alembic does not assume
    render_as_batch=True,
)
context.run_migrations()
