import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "./database.ts";
import { DatabaseStartError, isForeignKeyViolation, isUniqueViolation, sqlState } from "./errors.ts";
import { migrate, type Migration, pendingMigrations, readMigrations } from "./migrate.ts";
import { openPglite } from "./pglite.ts";
import { openTestDatabases } from "./testing.ts";

const FIRST: Migration = { name: "0001_first", sql: "create table a (id text primary key); create table b (id int);" };
const SECOND: Migration = { name: "0002_second", sql: "alter table a add column v int not null default 7" };

describe.each(openTestDatabases())("database contract on $name", ({ name, openEmpty }) => {
  let db: Database;
  beforeAll(async () => {
    db = await openEmpty();
    await db.query("create table item (id text primary key, n bigint generated always as identity, v int)");
    await db.query("create table part (item_id text references item (id))");
  });
  afterAll(() => db.close());

  test("names its dialect", () => {
    expect(db.dialect).toBe(name);
  });

  test("values come back as documented", async () => {
    const [row] = await db.query(
      `select 'x'::text as t, true as b, false as f, 1::int2 as i2, 2::int4 as i4, 1.5::float8 as f8,
        9007199254740993::int8 as i8, 0.000000000001::numeric(38,12) as num, '2026-01-02T03:04:05.678Z'::timestamptz as ts,
        '\\x00ff10'::bytea as by, '{"a":[1,null]}'::jsonb as jb, '"s"'::json as js, null::text as nil,
        array['a','b "q" \\ c,}{',null]::text[] as ta, array[1,2]::int8[] as ia, array[]::text[] as ea, array[1.50]::numeric(5,2)[] as na,
        array[true,false] as ba, array['2026-01-02T00:00:00Z'::timestamptz] as tsa`,
    );
    expect(row).toStrictEqual({
      t: "x",
      b: true,
      f: false,
      i2: 1,
      i4: 2,
      f8: 1.5,
      i8: 9007199254740993n,
      num: "0.000000000001",
      ts: new Date("2026-01-02T03:04:05.678Z"),
      by: new Uint8Array([0, 255, 16]),
      jb: { a: [1, null] },
      js: "s",
      nil: null,
      ta: ["a", 'b "q" \\ c,}{', null],
      ia: [1n, 2n],
      ea: [],
      na: ["1.50"],
      ba: [true, false],
      tsa: [new Date("2026-01-02T00:00:00Z")],
    });
  });

  test("parameters go in as documented", async () => {
    const text = 'ü "q" \\ {a,b} \n null';
    const bytes = new Uint8Array([0, 1, 254, 255]);
    const at = new Date("2026-05-06T07:08:09.123Z");
    const [row] = await db.query(
      `select $1::text as t, $2::bool as b, $3::int8 as i, $4::numeric(38,12) as num, $5::timestamptz as ts, $6::bytea as by,
        $7::jsonb as j, $8::text[] as ta, $9::int8[] as ia, $10::text as nil, $11::int4 as n, $12::bytea[] as bya, $13::bool as f`,
      [
        text,
        true,
        9007199254740993n,
        "1.5",
        at,
        bytes,
        '{"k":"v"}',
        ["a", text, "", null],
        [1n, -2n],
        null,
        42,
        [bytes],
        false,
      ],
    );
    expect(row).toStrictEqual({
      t: text,
      b: true,
      i: 9007199254740993n,
      num: "1.500000000000",
      ts: at,
      by: bytes,
      j: { k: "v" },
      ta: ["a", text, "", null],
      ia: [1n, -2n],
      nil: null,
      n: 42,
      bya: [bytes],
      f: false,
    });
  });

  test("set-based statements with arrays", async () => {
    const rows = await db.query("select * from unnest($1::text[], $2::int8[]) as u (id, v)", [
      ["a", "b"],
      [1n, 2n],
    ]);
    expect(rows).toStrictEqual([
      { id: "a", v: 1n },
      { id: "b", v: 2n },
    ]);
  });

  test("a transaction commits, and rolls back whole when its function throws", async () => {
    await db.tx(async (tx) => {
      await tx.query("insert into item (id, v) values ('kept', 1)");
    });
    const failure = new Error("no");
    await expect(
      db.tx(async (tx) => {
        await tx.query("insert into item (id, v) values ('gone', 1)");
        throw failure;
      }),
    ).rejects.toBe(failure);
    expect(await db.query("select id from item where id in ('kept', 'gone')")).toStrictEqual([{ id: "kept" }]);
  });

  test("returns what the function returns, arrays and promises' values included", async () => {
    expect(await db.tx(async () => [1, 2])).toStrictEqual([1, 2]);
    expect(await db.snapshot(async (tx) => tx.query("select 1::int4 as one"))).toStrictEqual([{ one: 1 }]);
  });

  test("a failed statement fails the transaction even if its error is caught", async () => {
    const attempt = db.tx(async (tx) => {
      await tx.query("insert into item (id, v) values ('half', 1)");
      await tx.query("select 1/0").catch(() => {});
    });
    await expect(attempt).rejects.toThrow(Error);
    expect(await db.query("select id from item where id = 'half'")).toStrictEqual([]);
    expect(await db.query("select 1::int4 as one")).toStrictEqual([{ one: 1 }]);
  });

  test("errors tell their SQLSTATE and constraint", async () => {
    await db.query("insert into item (id) values ('dup')");
    const clash = await db.query("insert into item (id) values ('dup')").catch((error: unknown) => error);
    expect(isUniqueViolation(clash, "item_pkey")).toBe(true);
    expect(isUniqueViolation(clash, "other")).toBe(false);
    const orphan = await db.query("insert into part values ('nobody')").catch((error: unknown) => error);
    expect(isForeignKeyViolation(orphan)).toBe(true);
    expect(sqlState(await db.query("select nothing_here").catch((error: unknown) => error))).toBe("42703");
  });

  test("a snapshot sees one moment and cannot write", async () => {
    const attempt = db.snapshot((tx) => tx.query("insert into item (id) values ('ro')"));
    expect(sqlState(await attempt.catch((error: unknown) => error))).toBe("25006");
    const seen = await db.snapshot(async (tx) => {
      const before = await tx.query<{ count: bigint }>("select count(*) from item");
      // On PGlite this waits for the snapshot to end, on PostgreSQL it commits in between: neither may show.
      const write = db.query("insert into item (id) values ('during')");
      if (db.dialect === "postgres") await write;
      const after = await tx.query<{ count: bigint }>("select count(*) from item");
      return { before, after, write };
    });
    expect(seen.after).toStrictEqual(seen.before);
    await seen.write;
  });

  test("transactions of many callers at once all take effect", async () => {
    await db.query("insert into item (id, v) values ('counter', 0)");
    const add = (): Promise<void> =>
      db.tx(async (tx) => {
        const [row] = await tx.query<{ v: number }>("select v from item where id = 'counter' for update");
        await tx.query("update item set v = $1 where id = 'counter'", [row!.v + 1]);
      });
    await Promise.all(Array.from({ length: 25 }, add));
    expect(await db.query("select v from item where id = 'counter'")).toStrictEqual([{ v: 25 }]);
  });

  test("a serialization failure is tried again, a bounded number of times", async () => {
    let tries = 0;
    await db.tx(async (tx) => {
      tries += 1;
      if (tries < 3) await tx.query("do $$ begin raise exception 'again' using errcode = '40001'; end $$");
    });
    expect(tries).toBe(3);
    tries = 0;
    const hopeless = db.tx(async (tx) => {
      tries += 1;
      await tx.query("do $$ begin raise exception 'deadlock' using errcode = '40P01'; end $$");
    });
    expect(sqlState(await hopeless.catch((error: unknown) => error))).toBe("40P01");
    expect(tries).toBe(6);
  });

  test("a script runs several statements in its transaction", async () => {
    await db.tx((tx) =>
      db.script(tx, "create table s1 (a int); insert into s1 values (1); insert into s1 values (2);"),
    );
    expect(await db.query("select a from s1 order by a")).toStrictEqual([{ a: 1 }, { a: 2 }]);
    const broken = db.tx((tx) => db.script(tx, "create table s2 (a int); select nonsense from nowhere;"));
    await expect(broken).rejects.toThrow(/nowhere/);
    expect(await db.query("select to_regclass('s2')::text as t")).toStrictEqual([{ t: null }]);
  });

  test("listeners hear what was committed, and nothing else", async () => {
    const heard: string[] = [];
    let ready = 0;
    const { promise, resolve } = Promise.withResolvers<void>();
    const stop = await db.listen(
      "News Channel",
      (payload) => {
        heard.push(payload);
        if (payload === "last") resolve();
      },
      () => (ready += 1),
    );
    expect(ready).toBe(1);
    await db.tx((tx) => tx.query("select pg_notify('News Channel', 'first')"));
    await db
      .tx(async (tx) => {
        await tx.query("select pg_notify('News Channel', 'rolled back')");
        throw new Error("no");
      })
      .catch(() => {});
    await db.query("select pg_notify($1, $2)", ["News Channel", "last"]);
    await promise;
    expect(heard).toStrictEqual(["first", "last"]);
    await stop();
  });
});

describe.each(openTestDatabases())("migrations on $name", ({ openEmpty }) => {
  let db: Database;
  beforeAll(async () => {
    db = await openEmpty();
  });
  afterAll(() => db.close());

  test("run once, in order, also when several start at once", async () => {
    const ran = await Promise.all([
      migrate(db, [FIRST, SECOND]),
      migrate(db, [FIRST, SECOND]),
      migrate(db, [FIRST, SECOND]),
    ]);
    expect(ran.flat().toSorted()).toStrictEqual(["0001_first", "0002_second"]);
    expect(await migrate(db, [FIRST, SECOND])).toStrictEqual([]);
    expect(await db.query("insert into a (id) values ('x') returning v")).toStrictEqual([{ v: 7 }]);
  });

  test("a newer database is refused with one clear line", async () => {
    const refused = migrate(db, [FIRST]);
    await expect(refused).rejects.toThrow(DatabaseStartError);
    await expect(migrate(db, [FIRST])).rejects.toThrow(
      /^the database is newer than this release: .*0002_second[^\n]*$/,
    );
  });

  test("an edited migration is refused with one clear line", async () => {
    const edited = { ...FIRST, sql: `${FIRST.sql} ` };
    await expect(migrate(db, [edited, SECOND])).rejects.toThrow(/^the migration 0001_first was edited[^\n]*$/);
  });

  test("a failing migration leaves nothing behind", async () => {
    const broken: Migration = { name: "0003_broken", sql: "create table c (id int); select oops;" };
    await expect(migrate(db, [FIRST, SECOND, broken])).rejects.toThrow(/oops/);
    expect(await db.query("select to_regclass('c')::text as t")).toStrictEqual([{ t: null }]);
    expect(await migrate(db, [FIRST, SECOND])).toStrictEqual([]);
  });
});

describe("postgres alone", () => {
  let db: Database;
  beforeAll(async () => {
    db = await openTestDatabases()
      .find((database) => database.name === "postgres")!
      .openEmpty();
  });
  afterAll(() => db.close());

  test("a lost listening connection subscribes again and says so", async () => {
    const ready = Promise.withResolvers<void>();
    const news = Promise.withResolvers<string>();
    let count = 0;
    const stop = await db.listen("again", news.resolve, () => {
      count += 1;
      if (count === 2) ready.resolve();
    });
    await db.query(
      `select pg_terminate_backend(pid) from pg_stat_activity
       where pid <> pg_backend_pid() and datname = current_database() and query ilike 'listen%'`,
    );
    await ready.promise;
    await db.query("select pg_notify('again', 'back')");
    expect(await news.promise).toBe("back");
    await stop();
  });
});

describe("the migrations of this release", () => {
  test("are numbered without gaps", () => {
    const names = readMigrations().map((migration) => migration.name);
    expect(names.length).toBeGreaterThan(0);
    expect(names.map((name) => Number(name.slice(0, 4)))).toStrictEqual(names.map((_, index) => index + 1));
  });

  test.each(openTestDatabases())("0007 keeps what was there, on $name", async ({ openEmpty }) => {
    const db = await openEmpty();
    try {
      const all = readMigrations();
      await migrate(
        db,
        all.filter(({ name }) => name < "0007"),
      );
      const at = "2026-01-01T00:00:00Z";
      await db.query(`insert into merchant (id, name, created_at, updated_at) values ('m', 'm', '${at}', '${at}')`);
      await db.query(
        `insert into provider (id, merchant_id, name, format, base_url, on_disconnect, headers, region, api_version, revision,
           created_at, updated_at) values ('p', 'm', 'p', 1, 'http://u', 1, '{}', '', '', 1, '${at}', '${at}')`,
      );
      await db.query(
        `insert into physical_model (id, merchant_id, provider_id, name, upstream_name, max_output_tokens, revision, created_at,
           updated_at) values ('x', 'm', 'p', 'x', 'x', 0, 1, '${at}', '${at}')`,
      );
      await db.query(
        `insert into virtual_endpoint (id, merchant_id, name, template, budget_mode, exhausted_status, low_balance,
           offline_grace, labels, revision, created_at, updated_at)
         select 'v' || n, 'm', 'v', false, 1, 429, 0, 0, '{}', 1, '${at}', '${at}' from generate_series(1, 2) n`,
      );
      const units = Array.from({ length: 11 }, (_, index) => `units_${index + 1}`);
      await db.query(
        `insert into usage_daily (merchant_id, ve_id, day, logical_model, physical_model_id, access_key_id, requests,
           estimated_requests, credits, ${units.join(", ")})
         values ('m', 'v1', '2026-01-01', 'l', 'x', 'k', 1, 0, 5, ${units.map(() => 3).join(", ")})`,
      );
      expect(await migrate(db, all)).toContain("0007_formats");
      expect(
        await db.query("select units_11::int as a, units_12::int as b, units_15::int as c from usage_daily"),
      ).toStrictEqual([{ a: 3, b: 0, c: 0 }]);
      expect(await db.query("select dialect, bedrock_api, family, apis from provider, physical_model")).toStrictEqual([
        { dialect: 0, bedrock_api: 0, family: "", apis: [] },
      ]);
      await db.query("update virtual_endpoint set passthrough_provider_id = 'p' where id = 'v1'");
      await expect(db.query("update virtual_endpoint set passthrough_provider_id = 'p'")).rejects.toThrow(/unique/);
      await expect(db.query("delete from provider")).rejects.toThrow(/foreign key/);
    } finally {
      await db.close();
    }
  });

  test("one that would run out of order is refused", () => {
    const applied = [{ name: "0002_second", checksum: "" }];
    expect(() => pendingMigrations([FIRST, SECOND], applied)).toThrow(DatabaseStartError);
  });
});

describe("the embedded store in a home", () => {
  const home = mkdtempSync(join(tmpdir(), "tokenbill-db-"));
  afterAll(() => rmSync(home, { recursive: true, force: true }));
  const holder = `
    import { openPglite } from ${JSON.stringify(new URL("./pglite.ts", import.meta.url).href)};
    const db = await openPglite(${JSON.stringify(home)});
    await db.query("create table if not exists held (v int)");
    await db.query("insert into held values (1)");
    process.send("open");
    setInterval(() => {}, 1000);
  `;

  test("belongs to one process; the lock of a killed one does not stay, and its writes do", async () => {
    const child = spawn(process.execPath, ["--input-type=module", "-e", holder], {
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    await once(child, "message");
    await expect(openPglite(home)).rejects.toThrow(new RegExp(`is in use by process ${child.pid}`));
    child.kill("SIGKILL");
    await once(child, "exit");
    const db = await openPglite(home);
    expect(await db.query("select v from held")).toStrictEqual([{ v: 1 }]);
    await expect(openPglite(home)).rejects.toThrow(DatabaseStartError);
    await db.close();
    const again = await openPglite(home);
    expect(await again.query("select v from held")).toStrictEqual([{ v: 1 }]);
    await again.close();
  });
});
