-- Time that counts against a boot that does not report: only while the control plane is there to be reported to, and never
-- because a clock jumped. Advanced by the sweep of every replica, by what has passed since the last tick, a little at most.
create table service_clock (
  id boolean primary key default true check (id),
  ms bigint not null default 0,
  -- By the clock of the database.
  ticked_at timestamptz not null default clock_timestamp()
) with (fillfactor = 50);
insert into service_clock default values;

-- The service clock at the last report, which renews the leases of the boot. `last_report_at` is for people.
alter table node_boot add column last_report_ms bigint not null default 0;
-- Leases of the boot were taken back, and no report that they would have covered has come since.
alter table node_boot add column leases_taken boolean not null default false;

-- Rows of wallets and boots are never deleted, and a lease is written under the locks of both. Looking both up again for every
-- new lease took a third of the time of a report of many VEs.
alter table lease drop constraint lease_ve_id_fkey, drop constraint lease_boot_id_fkey;
