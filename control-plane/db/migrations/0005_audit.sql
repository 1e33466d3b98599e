-- Audits and their results, and what becomes of alarms.

-- One audit. `beat_at` moves while it runs: a run that stopped beating was of a process that died.
create table audit_run (
  n bigint generated always as identity primary key,
  id text collate "C" not null unique,
  deep boolean not null,
  state text not null check (state in ('running', 'clean', 'broken', 'stopped', 'failed')),
  stop_asked boolean not null default false,
  started_at timestamptz not null,
  beat_at timestamptz not null,
  ended_at timestamptz,
  wallets_total bigint not null default 0,
  wallets bigint not null default 0,
  events bigint not null default 0,
  break_count int not null default 0,
  -- [{"invariant": "…", "subject": "…", "expected": "…", "found": "…"}], the first of them.
  breaks jsonb not null default '[]',
  reason text not null default ''
) with (fillfactor = 50);
-- One of each depth at a time, whatever replicas do.
create unique index audit_run_running on audit_run (deep) where state = 'running';
create index audit_run_deep on audit_run (deep, n);

-- The sums of a VE's ledger up to transfer `n`, so that the hourly audit reads only what is new: the ledger never changes
-- and transfers of one VE are posted one after the other.
create table audit_checkpoint (
  ve_id text collate "C" primary key,
  n bigint not null,
  wallet numeric(38, 12) not null,
  usage numeric(38, 12) not null,
  debt numeric(38, 12) not null,
  adjustment numeric(38, 12) not null
) with (fillfactor = 70);

-- `key` tells alarms of one kind apart that are raised once for as long as they last; null: raised each time.
alter table alarm
  add column key text collate "C",
  add column seen_at timestamptz,
  add column acknowledged_at timestamptz,
  add column note text not null default '',
  add column resolved_at timestamptz;
create unique index alarm_lasting on alarm (kind, key) where key is not null and resolved_at is null;
create index alarm_open on alarm (n) where acknowledged_at is null and resolved_at is null;
