-- What starts again with each day, week or month of a merchant: limits of Physical Models, and budgets of VEs.

alter table merchant add column time_zone text not null default 'UTC';

-- `next_budget_reset_at` is null for templates, whose wallets are never filled.
alter table virtual_endpoint
  add column budget_reset_credits numeric(38, 12),
  add column budget_reset_period int,
  add column next_budget_reset_at timestamptz,
  add check ((budget_reset_credits is null) = (budget_reset_period is null)),
  add check (next_budget_reset_at is null or budget_reset_period is not null);
create index virtual_endpoint_budget_reset on virtual_endpoint (next_budget_reset_at) where next_budget_reset_at is not null;

-- One limit of one Physical Model, in Units or in Credits (`kind` is tokenbill.v1.LimitKind). Amounts are decimals of what
-- it counts. `used` is what requests that arrived since `counts_from` used, `leased` the sum of its leases; available is
-- what is left of `amount` after both, or nothing. Never changed without a lock on the row.
create table limit_account (
  physical_model_id text collate "C" not null references physical_model (id),
  kind int not null check (kind in (1, 2)),
  merchant_id text collate "C" not null references merchant (id),
  -- tokenbill.v1.UnitKind; 0 for a limit in Credits.
  unit int not null check ((kind = 1) = (unit > 0)),
  -- tokenbill.v1.Period; 0: it never starts again.
  period int not null,
  -- A copy of the merchant's, so that a report need not read it.
  time_zone text not null,
  amount numeric(38, 12) not null check (amount > 0),
  used numeric(38, 12) not null default 0 check (used >= 0),
  leased numeric(38, 12) not null default 0 check (leased >= 0),
  counts_from timestamptz not null,
  -- When the count starts again.
  ends_at timestamptz,
  primary key (physical_model_id, kind),
  check ((period = 0) = (ends_at is null))
) with (fillfactor = 70);
create index limit_account_end on limit_account (ends_at) where ends_at is not null;
create index limit_account_merchant on limit_account (merchant_id);

-- What one boot may use of a limit without asking. Guarded by the lock of the limit's row.
create table limit_lease (
  physical_model_id text collate "C" not null,
  kind int not null,
  boot_id text collate "C" not null references node_boot,
  amount numeric(38, 12) not null check (amount >= 0),
  ttl_ms bigint not null,
  primary key (physical_model_id, kind, boot_id),
  foreign key (physical_model_id, kind) references limit_account
) with (fillfactor = 70);
create index limit_lease_boot on limit_lease (boot_id);
