"""The first schema: the stream, its pairs, the pool's log, cycles, promotions and leases."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make every table with its indexes."""
    op.create_table(
        "assignments",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("num_slots", sa.Integer(), nullable=False),
        sa.Column("accepted_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", "round", name="pk_assignments"),
    )
    op.create_index("ix_assignments_wheel_expires_at", "assignments", ["wheel", "expires_at"])
    op.create_table(
        "closings",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("outcome", KEY, nullable=False),
        sa.Column("cause", KEY, nullable=True),
        sa.Column("closed_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", "round", "attempt", name="pk_closings"),
    )
    op.create_index(
        "ix_closings_wheel_outcome_cause_prompt_id_round_attempt",
        "closings",
        ["wheel", "outcome", "cause", "prompt_id", "round", "attempt"],
    )
    op.create_table(
        "cycles",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("cycle_id", KEY, nullable=False),
        sa.Column("trigger", KEY, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("requested_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("verdict", KEY, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("cycle_id", name="pk_cycles"),
    )
    op.create_index("ix_cycles_wheel_requested_at", "cycles", ["wheel", "requested_at"])
    op.create_table(
        "dead_letters",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("letter_id", KEY, nullable=False),
        sa.Column("topic", KEY, nullable=False),
        sa.Column("service", KEY, nullable=False),
        sa.Column("died_at", MOMENT, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("letter_id", name="pk_dead_letters"),
    )
    op.create_index("ix_dead_letters_wheel_died_at", "dead_letters", ["wheel", "died_at"])
    op.create_table(
        "judgements",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("trace_id", KEY, nullable=False),
        sa.Column("judge_revision", KEY, nullable=False),
        sa.Column("rubric_digest", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("judged_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "trace_id", "judge_revision", "rubric_digest", name="pk_judgements"
        ),
    )
    op.create_index("ix_judgements_prompt_id_round", "judgements", ["prompt_id", "round"])
    op.create_index("ix_judgements_wheel_judged_at", "judgements", ["wheel", "judged_at"])
    op.create_table(
        "leases",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("name", KEY, nullable=False),
        sa.Column("token", KEY, nullable=False),
        sa.Column("lease_until", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("wheel", "name", name="pk_leases"),
    )
    op.create_table(
        "pairs",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("pair_id", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("domain", KEY, nullable=False),
        sa.Column("rubric_digest", KEY, nullable=False),
        sa.Column("chosen_generator", KEY, nullable=False),
        sa.Column("rejected_generator", KEY, nullable=False),
        sa.Column("order_delta", sa.Float(), nullable=False),
        sa.Column("generator_delta", sa.Float(), nullable=False),
        sa.Column("accepted_at", MOMENT, nullable=False),
        sa.Column("paired_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pair_id", name="pk_pairs"),
    )
    op.create_index("ix_pairs_prompt_id_round", "pairs", ["prompt_id", "round"])
    op.create_index("ix_pairs_wheel_pair_id", "pairs", ["wheel", "pair_id"])
    op.create_index("ix_pairs_wheel_paired_at", "pairs", ["wheel", "paired_at"])
    op.create_table(
        "pool_events",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("event_id", KEY, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_pool_events"),
        sa.UniqueConstraint("wheel", "event_id", name="uq_pool_events_wheel_event_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "promotions",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("promotion_id", KEY, nullable=False),
        sa.Column("cycle_id", KEY, nullable=False),
        sa.Column("promoted_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("promotion_id", name="pk_promotions"),
    )
    op.create_table(
        "prompt_failures",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("failed_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", "round", "attempt", name="pk_prompt_failures"),
    )
    op.create_table(
        "prompts",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("domain", KEY, nullable=False),
        sa.Column("accepted_at", MOMENT, nullable=False),
        sa.Column("closed_at", MOMENT, nullable=True),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("prompt_id", "round", name="pk_prompts"),
    )
    op.create_index(
        "ix_prompts_open",
        "prompts",
        ["wheel", "accepted_at"],
        unique=False,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_index("ix_prompts_wheel_accepted_at", "prompts", ["wheel", "accepted_at"])
    op.create_table(
        "quarantine",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("pair_id", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("quarantined_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("pair_id", name="pk_quarantine"),
    )
    op.create_index("ix_quarantine_prompt_id_round", "quarantine", ["prompt_id", "round"])
    op.create_table(
        "slot_ends",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", KEY, nullable=False),
        sa.Column("trace_id", KEY, nullable=True),
        sa.Column("judge_revision", KEY, nullable=True),
        sa.Column("rubric_digest", KEY, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("prompt_id", "round", "slot", "attempt", name="pk_slot_ends"),
    )
    op.create_index("ix_slot_ends_wheel_kind", "slot_ends", ["wheel", "kind"])
    op.create_table(
        "standstills",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("wheel", "began_at", name="pk_standstills"),
    )
    op.create_table(
        "traces",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("trace_id", KEY, nullable=False),
        sa.Column("prompt_id", KEY, nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("generator", KEY, nullable=False),
        sa.Column("generator_revision", KEY, nullable=False),
        sa.Column("text_digest", KEY, nullable=False),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        sa.Column("accepted_at", MOMENT, nullable=False),
        sa.Column("generated_at", MOMENT, nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", name="pk_traces"),
    )
    op.create_index("ix_traces_prompt_id_round_slot", "traces", ["prompt_id", "round", "slot"])
    op.create_index(
        "ix_traces_wheel_generated_at_completion_tokens",
        "traces",
        ["wheel", "generated_at", "completion_tokens"],
    )
    op.create_table(
        "watches",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("wheel", name="pk_watches"),
    )
    op.create_table(
        "cycle_steps",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("cycle_id", KEY, nullable=False),
        sa.Column("name", KEY, nullable=False),
        sa.Column("state", KEY, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("token", KEY, nullable=True),
        sa.Column("lease_until", MOMENT, nullable=True),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["cycle_id"], ["cycles.cycle_id"], name="fk_cycle_steps_cycle_id_cycles"
        ),
        sa.PrimaryKeyConstraint("cycle_id", "name", name="pk_cycle_steps"),
    )
    op.create_table(
        "pair_deltas",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("pair_id", KEY, nullable=False),
        sa.Column("dimension", KEY, nullable=False),
        sa.Column("rubric_digest", KEY, nullable=False),
        sa.Column("judge_revision", KEY, nullable=False),
        sa.Column("paired_at", MOMENT, nullable=False),
        sa.Column("delta", sa.Float(), nullable=False),
        sa.Column("variance", sa.Float(), nullable=True),
        sa.ForeignKeyConstraint(
            ["pair_id"], ["pairs.pair_id"], name="fk_pair_deltas_pair_id_pairs"
        ),
        sa.PrimaryKeyConstraint("pair_id", "dimension", name="pk_pair_deltas"),
    )
    op.create_index(
        "ix_pair_deltas_ranked",
        "pair_deltas",
        [
            "wheel",
            "rubric_digest",
            "judge_revision",
            "dimension",
            sa.text("delta DESC"),
            "pair_id",
            "paired_at",
        ],
    )
    op.create_table(
        "quarantine_reasons",
        sa.Column("wheel", KEY, nullable=False),
        sa.Column("pair_id", KEY, nullable=False),
        sa.Column("expectation", KEY, nullable=False),
        sa.ForeignKeyConstraint(
            ["pair_id"], ["quarantine.pair_id"], name="fk_quarantine_reasons_pair_id_quarantine"
        ),
        sa.PrimaryKeyConstraint("pair_id", "expectation", name="pk_quarantine_reasons"),
    )
    op.create_index(
        "ix_quarantine_reasons_wheel_expectation", "quarantine_reasons", ["wheel", "expectation"]
    )


def downgrade() -> None:
    """Drop them all, and what they hold."""
    for table in (
        "quarantine_reasons",
        "pair_deltas",
        "cycle_steps",
        "watches",
        "traces",
        "standstills",
        "slot_ends",
        "quarantine",
        "prompts",
        "prompt_failures",
        "promotions",
        "pool_events",
        "pairs",
        "leases",
        "judgements",
        "dead_letters",
        "cycles",
        "closings",
        "assignments",
    ):
        op.drop_table(table)
