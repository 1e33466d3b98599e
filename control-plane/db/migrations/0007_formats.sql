-- Every upstream format, every endpoint, every Unit.

-- Quantities of the meters that came with it. Sums from before have none of them.
alter table usage_daily
  add column units_12 numeric(38, 0) not null default 0,
  add column units_13 numeric(38, 0) not null default 0,
  add column units_14 numeric(38, 0) not null default 0,
  add column units_15 numeric(38, 0) not null default 0;

-- Numbers of tokenbill.v1.ProviderDialect and BedrockApi; 0 where the schema's default holds.
alter table provider
  add column dialect int not null default 0,
  add column bedrock_api int not null default 0;

-- `apis` are numbers of tokenbill.v1.ModelApi; empty: as the Provider's dialect says.
alter table physical_model
  add column family text not null default '',
  add column apis int[] not null default '{}';

-- All that is stored at an account is open to the VE that it is passed through for, so a Provider serves one VE at most.
-- A Provider that is named here is not deleted.
alter table virtual_endpoint
  add column passthrough_provider_id text collate "C"
    constraint virtual_endpoint_passthrough_fkey references provider (id),
  add constraint virtual_endpoint_passthrough_key unique (passthrough_provider_id);
