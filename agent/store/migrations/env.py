"""Run the migrations on the connection that the store passes in, inside the store's own
transaction."""

from alembic import context

from agent.store.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,
)
context.run_migrations()
