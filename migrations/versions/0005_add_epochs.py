"""Add the epoch of the database, `oma_epochs`"""

from __future__ import annotations

from alembic import context, op

from database.creation import create_missing_tables

revision = "0005"
down_revision: str | None = "0004"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    context.config.attributes["created"].extend(create_missing_tables(op.get_bind()))


def downgrade() -> None:
    """There is no way back: dropping a table would lose the journal. A backup is the way back."""
    raise NotImplementedError("the schema is not downgraded; restore the backup made before the upgrade")
