import postgres from "postgres";
import { expect, test } from "vitest";
import { postgresUrl } from "./postgres.ts";

test("every call gives an empty database of its own on a real server", async () => {
  const [first, second] = await Promise.all([postgresUrl(), postgresUrl()]);
  expect(first).not.toBe(second);
  const a = postgres(first, { max: 1 });
  const b = postgres(second, { max: 1 });
  try {
    await a`create table only_here (n int)`;
    const [version] = await a`select current_setting('server_version_num')::int as n`;
    expect(version!["n"]).toBeGreaterThanOrEqual(150000);
    const tables = await b`select 1 from pg_tables where schemaname = 'public'`;
    expect(tables).toHaveLength(0);
  } finally {
    await Promise.all([a.end(), b.end()]);
  }
});
