-- How requests find their way, and how fast they may come.

-- `routing` is {"hedge_after_ms": 0, "sticky": {"sources": [1], "header": ""}}, its `sticky` null where requests do not
-- stick (sources are tokenbill.v1.StickySource). Null: nothing beyond tiers and weights. From here on `deadlines` has
-- "first_content_ms" as well, and a target in `targets` may have "deadlines" of its own, with a "total_ms" of 0. Rows from
-- before have neither.
alter table logical_model add column routing jsonb;

-- {"requests_per_minute": 0, "tokens_per_minute": 0, "concurrent_requests": 0}, where 0 is no such limit. Null: no limit at
-- all. Nothing looks for one of the figures by itself: they are set, read and sent to nodes together.
alter table virtual_endpoint
  add column rate_limits jsonb,
  add column explain_headers boolean not null default false;
alter table access_key add column rate_limits jsonb;
alter table physical_model add column rate_limits jsonb;
