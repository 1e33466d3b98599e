-- The feed's counter, wallets and their ledger, leases, usage. Ids are compared byte by byte (collate "C"): every process
-- must lock rows in one order, whatever the locale of the database.

-- One row. The revision is advanced inside the writing transaction, so revision order is commit order.
create table feed_state (
  id boolean primary key default true check (id),
  -- The life of this database.
  epoch text not null default 'ep_' || replace(gen_random_uuid()::text, '-', ''),
  revision bigint not null default 0,
  -- Tombstones up to this revision may be gone: an older cursor needs a snapshot.
  tombstone_floor bigint not null default 0
);
insert into feed_state default values;

-- A resource that was deleted, for nodes that still have it.
create table tombstone (
  id text collate "C" primary key,
  revision bigint not null,
  removed_at timestamptz not null default now()
);
create index tombstone_revision on tombstone (revision);
create index tombstone_removed_at on tombstone (removed_at);

-- The money of one VE; outlives the VE. available = purchased + debt - settled - escrowed.
create table wallet (
  ve_id text collate "C" primary key,
  merchant_id text collate "C" not null,
  purchased numeric(38, 12) not null default 0 check (purchased >= 0),
  settled numeric(38, 12) not null default 0 check (settled >= 0),
  escrowed numeric(38, 12) not null default 0 check (escrowed >= 0),
  debt numeric(38, 12) not null default 0 check (debt >= 0),
  created_at timestamptz not null,
  updated_at timestamptz not null,
  check (purchased + debt - settled - escrowed >= 0)
) with (fillfactor = 70);

-- The ledger: double entry, append-only. Every index costs each report a row for each VE: the reference is what makes a
-- transfer happen once, the pair is how a VE's ledger is read; ids and `n` are unique as they are made.
create table transfer (
  n bigint generated always as identity,
  id text collate "C" not null,
  merchant_id text collate "C" not null,
  ve_id text collate "C" not null,
  debit_account text not null check (debit_account in ('wallet', 'usage', 'debt', 'adjustment')),
  credit_account text not null check (credit_account in ('wallet', 'usage', 'debt', 'adjustment')),
  credits numeric(38, 12) not null check (credits > 0),
  reference text collate "C" not null unique,
  reason text not null default '',
  posted_at timestamptz not null,
  primary key (ve_id, n),
  check (debit_account <> credit_account)
);

create function refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'the ledger is append-only' using errcode = 'restrict_violation';
end
$$;
create trigger transfer_append_only before update or delete or truncate on transfer
  for each statement execute function refuse_change();

-- One run of a node, and how far its reports have come. Locked first by every report.
create table node_boot (
  boot_id text collate "C" primary key,
  node_id text not null,
  last_seq bigint not null default 0,
  last_record_no bigint not null default 0,
  -- Any report renews the leases of the boot.
  last_report_at timestamptz not null,
  closed boolean not null default false
) with (fillfactor = 50);

-- Credits of one VE that one boot may spend without asking. Guarded by the wallet row's lock.
create table lease (
  ve_id text collate "C" not null references wallet,
  boot_id text collate "C" not null references node_boot,
  credits numeric(38, 12) not null check (credits >= 0),
  ttl_ms bigint not null,
  primary key (ve_id, boot_id)
) with (fillfactor = 70);
create index lease_boot on lease (boot_id);

-- Every finished request, by day of arrival. `body` is the node's UsageRecord as journaled; `credits` is our figure.
create sequence usage_event_n;
create table usage_event (
  n bigint not null default nextval('usage_event_n'),
  -- Microseconds since 1970.
  arrive_us bigint not null,
  id text collate "C" not null,
  merchant_id text collate "C" not null,
  ve_id text collate "C" not null,
  access_key_id text collate "C" not null,
  logical_model text collate "C" not null,
  physical_model_id text collate "C" not null,
  credits numeric(38, 12) not null check (credits >= 0),
  boot_id text collate "C" not null,
  record_no bigint not null,
  node_id text not null,
  -- Empty if it cost nothing.
  transfer_id text collate "C" not null,
  body bytea not null
) partition by range (arrive_us);
create table usage_event_default partition of usage_event default;
create index usage_event_merchant on usage_event (merchant_id, arrive_us, n);
create index usage_event_ve on usage_event (ve_id, arrive_us, n);
create index usage_event_physical_model on usage_event (physical_model_id, arrive_us, n);
create index usage_event_id on usage_event (id);

-- Sums by day (UTC, of arrival). units_<m> is the quantity of the meter with number m.
create table usage_daily (
  merchant_id text collate "C" not null,
  ve_id text collate "C" not null,
  day date not null,
  logical_model text collate "C" not null,
  physical_model_id text collate "C" not null,
  access_key_id text collate "C" not null,
  requests bigint not null,
  estimated_requests bigint not null,
  credits numeric(38, 12) not null,
  units_1 numeric(38, 0) not null,
  units_2 numeric(38, 0) not null,
  units_3 numeric(38, 0) not null,
  units_4 numeric(38, 0) not null,
  units_5 numeric(38, 0) not null,
  units_6 numeric(38, 0) not null,
  units_7 numeric(38, 0) not null,
  units_8 numeric(38, 0) not null,
  units_9 numeric(38, 0) not null,
  units_10 numeric(38, 0) not null,
  units_11 numeric(38, 0) not null,
  primary key (ve_id, day, logical_model, physical_model_id, access_key_id)
) with (fillfactor = 70);
create index usage_daily_merchant on usage_daily (merchant_id, day);

-- A record that could not be billed, kept as it came for a person to look at.
create table usage_quarantine (
  boot_id text collate "C" not null,
  record_no bigint not null,
  node_id text not null,
  reason text not null,
  body bytea not null,
  received_at timestamptz not null,
  primary key (boot_id, record_no)
);

-- Something that must never happen, and did.
create table alarm (
  n bigint generated always as identity primary key,
  kind text not null,
  subject text not null,
  detail jsonb not null,
  raised_at timestamptz not null
);

-- What each node last said about its configuration.
create table node_status (
  node_id text primary key,
  boot_id text not null,
  epoch text not null,
  revision bigint not null,
  rejected jsonb not null,
  reported_at timestamptz not null
);
