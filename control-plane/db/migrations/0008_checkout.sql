-- From the link to a funded wallet: packs, payment accounts, sessions, payments, refunds, disputes, webhooks.
-- Amounts are in the currency's smallest unit. Numbers of states, methods and processors are those of tokenbill.v1.

-- Money that came in: `pay:<processor>:<account>:<its id of the payment>` and what it took back.
alter table transfer
  drop constraint transfer_debit_account_check,
  drop constraint transfer_credit_account_check,
  add constraint transfer_debit_account_check check (debit_account in ('wallet', 'usage', 'debt', 'adjustment', 'payment')),
  add constraint transfer_credit_account_check check (credit_account in ('wallet', 'usage', 'debt', 'adjustment', 'payment'));
alter table audit_checkpoint add column payment numeric(38, 12) not null default 0;

-- `told`: the wallet state that the merchant's webhooks last told (1 OK, 2 LOW, 3 EXHAUSTED).
alter table wallet add column told smallint not null default 1;
alter table virtual_endpoint add column frozen boolean not null default false;

create table credit_pack (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  ve_template_id text collate "C",
  label text not null,
  currency text not null,
  amount_minor bigint not null check (amount_minor > 0),
  credits numeric(38, 12) not null check (credits > 0),
  bonus numeric(38, 12) not null default 0 check (bonus >= 0),
  -- Both or neither: the payer chooses the amount.
  min_minor bigint check (min_minor > 0),
  max_minor bigint check (max_minor >= min_minor),
  disabled boolean not null default false,
  position int not null default 0,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  check ((min_minor is null) = (max_minor is null))
);
create index credit_pack_list on credit_pack (merchant_id, n);

-- `credentials` is an encrypted envelope of tokenbill.v1.PaymentCredentials; null for the sandbox, of which a merchant has
-- at most one account, made when it is first used.
create table payment_account (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  processor int not null,
  name text not null,
  credentials bytea,
  methods int[] not null,
  test boolean not null,
  hint text not null,
  disabled boolean not null default false,
  last_notified_at timestamptz,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
create index payment_account_list on payment_account (merchant_id, n);
create unique index payment_account_sandbox on payment_account (merchant_id) where processor = 3;

create table checkout_settings (
  merchant_id text collate "C" primary key references merchant (id),
  display_name text not null default '',
  return_url_prefixes text[] not null default '{}',
  auto_top_up_offered boolean not null default false,
  auto_top_up_threshold numeric(38, 12),
  auto_top_up_currency text,
  auto_top_up_daily_minor bigint,
  version bigint not null default 1,
  updated_at timestamptz not null
);

-- Only the digest of the secret is kept. `linked`: the payer may see the wallet.
create table checkout_session (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  ve_id text collate "C" not null,
  state int not null,
  secret_digest bytea not null constraint checkout_session_secret_key unique,
  linked boolean not null,
  automatic boolean not null default false,
  pack_id text collate "C",
  label text not null default '',
  currency text,
  amount_minor bigint,
  credits numeric(38, 12),
  bonus numeric(38, 12),
  metadata jsonb not null default '{}',
  return_url text not null default '',
  failure text not null default '',
  problem text not null default '',
  granted numeric(38, 12) not null default 0,
  refunded_minor bigint not null default 0,
  -- Before a dispute, to go back to when it is won.
  undisputed_state int,
  version bigint not null default 1,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  paid_at timestamptz,
  fulfilled_at timestamptz,
  updated_at timestamptz not null
);
create index checkout_session_list on checkout_session (merchant_id, n);
create index checkout_session_ve on checkout_session (ve_id, n);
-- OPEN, PENDING, FAILED: those that can expire.
create index checkout_session_expiry on checkout_session (expires_at) where state in (1, 2, 6);
-- Those that nothing was chosen in are deleted some time: anybody can make them.
create index checkout_session_idle on checkout_session (created_at) where pack_id is null;
-- One automatic top-up at a time: OPEN, PENDING, PAID.
create unique index checkout_session_automatic on checkout_session (ve_id) where automatic and state in (1, 2, 3);
create index checkout_session_automatic_list on checkout_session (ve_id, n) where automatic;

-- One attempt at one processor. `reference` is the processor's name for it while it is under way (a Checkout Session of
-- Stripe, our order number at WeChat); `settled_reference` that of the money (a PaymentIntent, a transaction).
-- `details` are what the processor's adapter keeps. `choice` tells one choice of the payer from another. `terms` are what
-- else was told the processor, so that it is told the same when it is asked again.
create table payment (
  id text collate "C" primary key,
  n bigint generated always as identity,
  session_id text collate "C" not null references checkout_session (id),
  merchant_id text collate "C" not null,
  ve_id text collate "C" not null,
  account_id text collate "C" not null references payment_account (id),
  processor int not null,
  method int not null,
  state int not null,
  choice text not null,
  terms jsonb not null default '{}',
  reference text collate "C",
  settled_reference text collate "C",
  details jsonb not null default '{}',
  action jsonb,
  currency text not null,
  amount_minor bigint not null check (amount_minor > 0),
  credits numeric(38, 12) not null check (credits > 0),
  bonus numeric(38, 12) not null default 0,
  failure text not null default '',
  auto_top_up boolean not null default false,
  transfer_id text collate "C",
  granted numeric(38, 12) not null default 0,
  refunded_minor bigint not null default 0,
  -- Credits taken back by refunds and lost disputes.
  taken numeric(38, 12) not null default 0,
  -- When the processor is asked next; null: it need not be asked any more.
  check_at timestamptz,
  checks int not null default 0,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint payment_reference_key unique (account_id, reference),
  constraint payment_settled_key unique (account_id, settled_reference)
);
create index payment_session on payment (session_id, n);
create index payment_ve on payment (ve_id, n);
create index payment_check on payment (check_at) where check_at is not null;
-- FAILED.
create index payment_declined on payment (ve_id, updated_at) where state = 5;

create table refund (
  id text collate "C" primary key,
  n bigint generated always as identity,
  session_id text collate "C" not null references checkout_session (id),
  payment_id text collate "C" not null references payment (id),
  merchant_id text collate "C" not null,
  account_id text collate "C" not null references payment_account (id),
  state int not null,
  external boolean not null,
  reference text collate "C",
  amount_minor bigint not null check (amount_minor > 0),
  taken numeric(38, 12) not null,
  became_debt numeric(38, 12) not null,
  reason text not null,
  check_at timestamptz,
  checks int not null default 0,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint refund_reference_key unique (account_id, reference)
);
create index refund_session on refund (session_id, n);
create index refund_payment on refund (payment_id);
create index refund_check on refund (check_at) where check_at is not null;

-- `state`: 1 open, 2 won, 3 lost. `froze`: the VE was not frozen before, and is not to be afterwards if it is won.
create table dispute (
  id text collate "C" primary key,
  session_id text collate "C" not null references checkout_session (id),
  payment_id text collate "C" not null references payment (id),
  merchant_id text collate "C" not null,
  account_id text collate "C" not null references payment_account (id),
  reference text collate "C" not null,
  state int not null,
  amount_minor bigint not null,
  reason text not null,
  froze boolean not null default false,
  taken numeric(38, 12) not null default 0,
  became_debt numeric(38, 12) not null default 0,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint dispute_reference_key unique (account_id, reference)
);
create index dispute_session on dispute (session_id);
create index dispute_payment on dispute (payment_id);

-- The story of a session.
create table checkout_event (
  session_id text collate "C" not null references checkout_session (id),
  n bigint generated always as identity,
  at timestamptz not null,
  from_state int not null,
  to_state int not null,
  cause text not null,
  detail text not null,
  primary key (session_id, n)
);

-- What processors sent, and what became of it; no bodies. `verdict`: accepted, duplicate, ignored, or why it was rejected.
create table payment_notification (
  n bigint generated always as identity primary key,
  account_id text collate "C" not null,
  event_id text collate "C" not null,
  kind text not null,
  subject text not null,
  verdict text not null,
  received_at timestamptz not null
);
create unique index payment_notification_once on payment_notification (account_id, event_id) where verdict = 'accepted';
create index payment_notification_age on payment_notification (received_at);

-- A payment method that a payer saved; `credentials` is an encrypted envelope of the processor's own names for it.
create table auto_top_up (
  ve_id text collate "C" primary key,
  merchant_id text collate "C" not null references merchant (id),
  enabled boolean not null,
  threshold numeric(38, 12) not null check (threshold > 0),
  pack_id text collate "C" not null constraint auto_top_up_pack_fkey references credit_pack (id),
  currency text not null,
  daily_minor bigint not null check (daily_minor > 0),
  account_id text collate "C" not null references payment_account (id),
  credentials bytea not null,
  label text not null,
  -- When the payer saved it: what became of a charge before that is no news of it.
  saved_at timestamptz not null default now(),
  failures int not null default 0,
  last_failure text not null default '',
  -- A charge was begun, and it is not yet known here what became of it: an automatic session newer than `last_session_id`
  -- tells, if there is one.
  charging boolean not null default false,
  last_session_id text collate "C",
  -- Not before this. After a failure it is later; while a charge is under way, when to look what became of it.
  try_at timestamptz not null,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
create index auto_top_up_due on auto_top_up (try_at) where enabled;

-- Payment methods that are saved no more, until the processor has forgotten them too. Sealed as they were in auto_top_up.
create table forgotten_method (
  n bigint generated always as identity primary key,
  merchant_id text collate "C" not null references merchant (id),
  ve_id text collate "C" not null,
  account_id text collate "C" not null references payment_account (id) on delete cascade,
  credentials bytea not null,
  tries int not null default 0,
  try_at timestamptz not null
);
create index forgotten_method_due on forgotten_method (try_at);
create index forgotten_method_account on forgotten_method (account_id);

-- The sandbox's own books, as a processor would keep them elsewhere. `state`: pending, paid, declined, closed. The id opens
-- the payment's page; `charge_id` names the money.
create table sandbox_payment (
  id text collate "C" primary key,
  account_id text collate "C" not null,
  payment_id text collate "C" not null unique,
  charge_id text collate "C" not null unique,
  state text not null check (state in ('pending', 'paid', 'declined', 'closed')),
  currency text not null,
  amount_minor bigint not null check (amount_minor > 0),
  refunded_minor bigint not null default 0 check (refunded_minor between 0 and amount_minor),
  merchant_name text not null,
  description text not null,
  return_url text not null,
  save_method boolean not null,
  -- The saved method that it made.
  method_id text collate "C",
  dispute_id text collate "C",
  dispute_state text check (dispute_state in ('open', 'won', 'lost')),
  -- When a payment that was approved with a delay becomes paid.
  pay_at timestamptz,
  paid_at timestamptz,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  check ((state = 'paid') = (paid_at is not null))
);
-- `refund_id`: ours, if it was asked for here and not at the sandbox.
create table sandbox_refund (
  id text collate "C" primary key,
  sandbox_payment_id text collate "C" not null references sandbox_payment (id),
  refund_id text collate "C" unique,
  amount_minor bigint not null check (amount_minor > 0),
  created_at timestamptz not null
);
create index sandbox_refund_payment on sandbox_refund (sandbox_payment_id);
create table sandbox_method (
  id text collate "C" primary key,
  account_id text collate "C" not null,
  declines boolean not null,
  created_at timestamptz not null
);
-- What the sandbox has still to tell; a row goes when it was heard. `copies` are sent side by side.
create table sandbox_notification (
  id text collate "C" primary key,
  sandbox_payment_id text collate "C" not null references sandbox_payment (id),
  kind text not null,
  refund_id text collate "C" references sandbox_refund (id),
  copies int not null check (copies between 1 and 10),
  attempts int not null default 0,
  send_at timestamptz not null,
  created_at timestamptz not null
);
create index sandbox_notification_due on sandbox_notification (send_at);

-- `secret` and `old_secret` are encrypted envelopes.
create table webhook_endpoint (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  url text not null,
  description text not null,
  event_types text[] not null,
  secret bytea not null,
  old_secret bytea,
  old_secret_until timestamptz,
  disabled boolean not null default false,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
create index webhook_endpoint_list on webhook_endpoint (merchant_id, n);

-- Written in the transaction that makes it true. `fanned_out`: deliveries were made.
create table webhook_event (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null,
  type text not null,
  ve_id text collate "C" not null,
  session_id text collate "C" not null,
  body text not null,
  fanned_out boolean not null default false,
  created_at timestamptz not null
);
create index webhook_event_list on webhook_event (merchant_id, n);
create index webhook_event_ve on webhook_event (ve_id, n);
create index webhook_event_fresh on webhook_event (n) where not fanned_out;
create index webhook_event_age on webhook_event (created_at);

create table webhook_delivery (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null,
  event_id text collate "C" not null references webhook_event (id) on delete cascade,
  endpoint_id text collate "C" not null references webhook_endpoint (id) on delete cascade,
  state int not null,
  attempts int not null default 0,
  -- Null when it has ended. While somebody sends it, when another may take it over.
  try_at timestamptz,
  created_at timestamptz not null
);
create index webhook_delivery_list on webhook_delivery (merchant_id, n);
create index webhook_delivery_event on webhook_delivery (event_id);
create index webhook_delivery_endpoint on webhook_delivery (endpoint_id, n);
create index webhook_delivery_due on webhook_delivery (endpoint_id, try_at, n) where try_at is not null;
create index webhook_delivery_pending on webhook_delivery (n) where try_at is not null;
create table webhook_attempt (
  delivery_id text collate "C" not null references webhook_delivery (id) on delete cascade,
  n bigint generated always as identity,
  at timestamptz not null,
  status int not null,
  error text not null,
  duration_ms int not null,
  primary key (delivery_id, n)
);
