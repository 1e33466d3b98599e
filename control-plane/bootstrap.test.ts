import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pino from "pino";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { bootstrap, openSecrets } from "./bootstrap.ts";
import type { Database } from "./db/database.ts";
import { openTestDatabases } from "./db/testing.ts";
import { HomeError } from "./home.ts";
import { digest } from "./secrets.ts";
import { findApiToken } from "./store/api_token.ts";

const FILES = ["merchant.token", "operator.token", "node.token"];

describe.each(openTestDatabases())("the first start on $name", ({ open }) => {
  let db: Database;
  let home: string;
  beforeEach(async () => {
    db = await open();
    home = mkdtempSync(join(tmpdir(), "tokenbill-home-"));
  });
  afterEach(async () => {
    await db.close();
    rmSync(home, { recursive: true, force: true });
  });

  const lines: string[] = [];
  const log = pino({ level: "info" }, { write: (line: string) => void lines.push(line) });
  const random = (count: number): Uint8Array => new Uint8Array(randomBytes(count));
  const optionsOf = (nodeToken: string | null = null, masterKey: Uint8Array | null = null) => ({
    db,
    settings: { home, masterKey, nodeToken },
    random,
    now: () => 1_800_000_000_000,
    log,
  });
  const read = (file: string): string => readFileSync(join(home, file), "utf8").trim();

  test("makes one merchant and a token of each scope, once, even when several start at once", async () => {
    await Promise.all([bootstrap(optionsOf()), bootstrap(optionsOf()), bootstrap(optionsOf())]);
    const before = FILES.map(read);
    await bootstrap(optionsOf());
    expect(FILES.map(read)).toStrictEqual(before);
    expect(await db.query("select name from merchant")).toStrictEqual([{ name: "default" }]);
    const scopes = await Promise.all(before.map(async (secret) => (await findApiToken(db, digest(secret)))?.scope));
    expect(scopes).toStrictEqual(["merchant", "operator", "node"]);
    for (const secret of before) expect(lines.join("")).not.toContain(secret);
  });

  test("takes over the tokens of a home whose database is new", async () => {
    writeFileSync(join(home, "node.token"), "tbn_given_to_many_nodes\n");
    writeFileSync(join(home, "operator.token"), "not a token of ours\n");
    await bootstrap(optionsOf());
    expect(read("node.token")).toBe("tbn_given_to_many_nodes");
    expect((await findApiToken(db, digest("tbn_given_to_many_nodes")))?.scope).toBe("node");
    expect(read("operator.token")).toMatch(/^tbo_[a-z2-7]{52}$/);
  });

  test("NODE_TOKEN opens node calls besides the one in the home", async () => {
    await bootstrap(optionsOf("tbn_from_the_environment"));
    await bootstrap(optionsOf("tbn_from_the_environment"));
    expect((await findApiToken(db, digest("tbn_from_the_environment")))?.scope).toBe("node");
    expect((await findApiToken(db, digest(read("node.token"))))?.scope).toBe("node");
    const [row] = await db.query<{ prefix: string }>("select prefix from api_token where name = 'NODE_TOKEN'");
    expect(row!.prefix.length).toBeLessThan(8);
  });

  test("a new NODE_TOKEN replaces the one before for good, and nothing else", async () => {
    await bootstrap(optionsOf("tbn_the_first_one"));
    await bootstrap(optionsOf("tbn_the_second_one"));
    const scopeOf = async (secret: string) => (await findApiToken(db, digest(secret)))?.scope;
    expect(await scopeOf("tbn_the_first_one")).toBeUndefined();
    await bootstrap(optionsOf("tbn_the_first_one"));
    expect(lines.at(-1)).toContain("NODE_TOKEN was replaced");
    expect(await scopeOf("tbn_the_first_one")).toBeUndefined();
    expect(await scopeOf("tbn_the_second_one")).toBe("node");
    await bootstrap(optionsOf());
    expect(await scopeOf("tbn_the_second_one")).toBe("node");
    const kept = await Promise.all(FILES.map((file) => scopeOf(read(file))));
    expect(kept).toStrictEqual(["merchant", "operator", "node"]);
  });

  test("a home token is rotated by deleting its row and its file", async () => {
    await bootstrap(optionsOf());
    for (const file of ["operator.token", "node.token"]) {
      const before = read(file);
      await db.query("delete from api_token where home_file = $1", [file]);
      rmSync(join(home, file));
      await bootstrap(optionsOf());
      expect(read(file)).not.toBe(before);
      expect(await findApiToken(db, digest(before))).toBeNull();
      expect(await findApiToken(db, digest(read(file)))).not.toBeNull();
    }
  });

  test("the master key is made once, and no other is accepted", async () => {
    const first = await openSecrets(optionsOf());
    expect((await openSecrets(optionsOf())).keyId).toStrictEqual(first.keyId);
    const given = new Uint8Array(Buffer.from(read("master.key"), "base64"));
    expect((await openSecrets(optionsOf(null, given))).keyId).toStrictEqual(first.keyId);
    await expect(openSecrets(optionsOf(null, new Uint8Array(32)))).rejects.toThrow(HomeError);
    writeFileSync(join(home, "master.key"), "broken");
    await expect(openSecrets(optionsOf())).rejects.toThrow(/does not hold 32 bytes/);
    rmSync(join(home, "master.key"));
    await expect(openSecrets(optionsOf())).rejects.toThrow(/which is missing/);
  });
});
