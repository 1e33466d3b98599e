-- What merchants set up. Ids are made by the server. `n` orders lists, `revision` is the feed's (see feed_state),
-- `version` is the etag. Nothing here is deleted by cascade: whoever deletes says so to the nodes.

-- One row. `master_key_id` tells which key the secrets in this database are sealed with; null before the first start.
create table installation (
  id boolean primary key default true check (id),
  master_key_id bytea
);
insert into installation default values;

create table merchant (
  id text collate "C" primary key,
  n bigint generated always as identity unique,
  name text collate "C" not null constraint merchant_name_key unique,
  disabled boolean not null default false,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null
);

-- Bearer tokens of the control plane. Only the digest of a secret is kept. `home_file` is set for those that the first
-- start writes into the home.
create table api_token (
  id text collate "C" primary key,
  n bigint generated always as identity,
  scope text not null check (scope in ('operator', 'merchant', 'node')),
  merchant_id text collate "C" references merchant (id),
  name text collate "C" not null,
  prefix text not null,
  digest bytea not null constraint api_token_digest_key unique,
  home_file text collate "C" constraint api_token_home_file_key unique,
  created_at timestamptz not null,
  last_used_at timestamptz,
  revoked_at timestamptz,
  check ((scope = 'merchant') = (merchant_id is not null))
);
create index api_token_list on api_token (merchant_id, n);

-- `credentials` is an encrypted envelope of tokenbill.v1.ProviderCredentials.
create table provider (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  name text collate "C" not null,
  format int not null,
  base_url text not null,
  credentials bytea,
  on_disconnect int not null,
  headers jsonb not null,
  region text not null,
  api_version text not null,
  disabled boolean not null default false,
  revision bigint not null,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint provider_name_key unique (merchant_id, name)
);
create index provider_list on provider (merchant_id, n);
create index provider_revision on provider (revision);

create table physical_model (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  provider_id text collate "C" not null constraint physical_model_provider_id_fkey references provider (id),
  name text collate "C" not null,
  upstream_name text not null,
  price_id text collate "C",
  max_output_tokens bigint not null,
  disabled boolean not null default false,
  revision bigint not null,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint physical_model_name_key unique (merchant_id, name)
);
create index physical_model_list on physical_model (merchant_id, n);
create index physical_model_by_provider on physical_model (provider_id, n);
create index physical_model_revision on physical_model (revision);

-- Prices are never changed, and outlive their Physical Model: usage that arrives late is priced with them.
-- `body` is a serialized tokenbill.v1.Price.
create table price (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  physical_model_id text collate "C" not null,
  body bytea not null,
  created_at timestamptz not null
);
create index price_list on price (physical_model_id, n);

-- `ve_template_id` may name a template that is gone.
create table virtual_endpoint (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  name text collate "C" not null,
  template boolean not null,
  ve_template_id text collate "C",
  disabled boolean not null default false,
  budget_mode int not null,
  exhausted_status int not null,
  low_balance numeric(38, 12) not null,
  offline_grace numeric(38, 12) not null,
  labels jsonb not null,
  revision bigint not null,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
create index virtual_endpoint_list on virtual_endpoint (merchant_id, n);
create index virtual_endpoint_templates on virtual_endpoint (merchant_id, n) where template;
create index virtual_endpoint_by_template on virtual_endpoint (ve_template_id, n) where ve_template_id is not null;
create index virtual_endpoint_revision on virtual_endpoint (revision);

-- Revoked keys stay, for the list; the feed leaves them out.
create table access_key (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  ve_id text collate "C" not null references virtual_endpoint (id),
  name text collate "C" not null,
  prefix text not null,
  digest bytea not null constraint access_key_digest_key unique,
  last_used_at timestamptz,
  revoked_at timestamptz,
  revision bigint not null,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
create index access_key_list on access_key (ve_id, n);
create index access_key_revision on access_key (revision);

-- `targets` is [{"pm": "pm_…", "tier": 0, "weight": 1}], `pm_ids` the same ids for the index. `deadlines` is
-- {"connect_ms": 0, "first_byte_ms": 0, "idle_ms": 0, "total_ms": 0}.
create table logical_model (
  id text collate "C" primary key,
  n bigint generated always as identity,
  merchant_id text collate "C" not null references merchant (id),
  ve_id text collate "C" not null references virtual_endpoint (id),
  name text collate "C" not null,
  targets jsonb not null,
  pm_ids text[] not null,
  deadlines jsonb not null,
  revision bigint not null,
  version bigint not null default 1,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  constraint logical_model_name_key unique (ve_id, name)
);
create index logical_model_list on logical_model (ve_id, n);
create index logical_model_revision on logical_model (revision);
create index logical_model_pm_ids on logical_model using gin (pm_ids);

-- First answers of creating calls. `owner` is a merchant's id or 'operator'; `response` is an encrypted envelope, since
-- an answer may hold a secret.
create table idempotency (
  owner text collate "C" not null,
  method text collate "C" not null,
  request_id text collate "C" not null,
  request_digest bytea not null,
  response bytea,
  created_at timestamptz not null,
  primary key (owner, method, request_id)
);
create index idempotency_age on idempotency (created_at);

-- An id in the server's form (prefix and 26 characters of base32) from 128 bits of SHA-256 over a random seed and a row
-- number, so that one statement can copy many rows.
create function derived_id(prefix text, seed text, n bigint) returns text
language sql immutable parallel safe
as $$
  select prefix || string_agg(substr('abcdefghijklmnopqrstuvwxyz234567', 1 + substring(hash.bits from 1 + 5 * i for 5)::int, 1), '' order by i)
  from (select ('x' || substr(encode(sha256(convert_to(seed || ':' || n, 'UTF8')), 'hex'), 1, 32))::bit(130) as bits) as hash,
    generate_series(0, 25) as i
$$;
