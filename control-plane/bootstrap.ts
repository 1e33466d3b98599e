/** The first start: a master key, the merchant `default`, and tokens for it, the operator and nodes. Safe to repeat. */

import { join } from "node:path";
import type { Logger } from "pino";
import type { Database, Tx } from "./db/database.ts";
import {
  HomeError,
  MASTER_KEY_FILE,
  MERCHANT_TOKEN_FILE,
  NODE_TOKEN_FILE,
  OPERATOR_TOKEN_FILE,
  readHomeFile,
  readMasterKey,
  writeHomeFile,
} from "./home.ts";
import { newId, newSecret, type RandomBytes, secretPrefix } from "./ids.ts";
import { createSecrets, digest, type Secrets } from "./secrets.ts";
import type { Settings } from "./settings.ts";
import {
  findHomeToken,
  findTokenState,
  hasApiToken,
  insertApiToken,
  revokeOtherNodeTokens,
  type TokenScope,
} from "./store/api_token.ts";
import { lockMasterKeyId, setMasterKeyId } from "./store/installation.ts";
import { findMerchantByName, insertMerchant } from "./store/merchant.ts";

export const DEFAULT_MERCHANT = "default";

/** Held while the first start writes, so that two replicas do not both make tokens. */
const BOOTSTRAP_LOCK = 7_306_085_144n;

export interface BootstrapOptions {
  readonly db: Database;
  readonly settings: Pick<Settings, "home" | "masterKey" | "nodeToken">;
  readonly random: RandomBytes;
  readonly now: () => number;
  readonly log: Logger;
}

/**
 * The key that secrets at rest are sealed with: from the settings, or the home, where it is made at the very first start.
 * The database knows its id, so that no two replicas use two keys.
 * @throws HomeError when it is missing, or is not the one that the database was set up with
 */
export async function openSecrets({ db, settings, random, log }: BootstrapOptions): Promise<Secrets> {
  const path = join(settings.home, MASTER_KEY_FILE);
  return db.tx(async (tx) => {
    const keyId = await lockMasterKeyId(tx);
    let key = settings.masterKey ?? readMasterKey(settings.home);
    if (key === null) {
      if (keyId !== null)
        throw new HomeError(
          `TOKENBILL_MASTER_KEY: the database was set up with a master key, which is missing: set it, or restore ${path}`,
        );
      key = random(32);
      writeHomeFile(settings.home, MASTER_KEY_FILE, Buffer.from(key).toString("base64"));
      log.info({ path }, "made the master key: keep a backup, without it stored credentials are lost");
    }
    const secrets = createSecrets(key, random);
    if (keyId === null) await setMasterKeyId(tx, secrets.keyId);
    else if (!Buffer.from(keyId).equals(secrets.keyId)) {
      throw new HomeError("TOKENBILL_MASTER_KEY: the database was set up with another master key: set that one");
    }
    return secrets;
  });
}

interface HomeToken {
  readonly file: string;
  readonly scope: TokenScope;
  readonly prefix: string;
  readonly name: string;
}

const HOME_TOKENS: readonly HomeToken[] = [
  { file: MERCHANT_TOKEN_FILE, scope: "merchant", prefix: "tbt_", name: "first start" },
  { file: OPERATOR_TOKEN_FILE, scope: "operator", prefix: "tbo_", name: "operator" },
  { file: NODE_TOKEN_FILE, scope: "node", prefix: "tbn_", name: "nodes" },
];

async function defaultMerchant(tx: Tx, options: BootstrapOptions): Promise<string> {
  const found = await findMerchantByName(tx, DEFAULT_MERCHANT);
  if (found !== null) return found.id;
  const row = { id: newId("mer_", options.random), name: DEFAULT_MERCHANT, now: new Date(options.now()) };
  return (await insertMerchant(tx, row)).id;
}

async function ensureToken(tx: Tx, token: HomeToken, options: BootstrapOptions): Promise<void> {
  const { settings, log, random, now } = options;
  const path = join(settings.home, token.file);
  const inFile = readHomeFile(settings.home, token.file);
  const stored = await findHomeToken(tx, token.file);
  if (stored !== null) {
    if (inFile === null) {
      log.warn(
        { path },
        `the database knows this token, but its file is not in this home: copy it here, or, if it is lost, delete the row ${stored.id} of api_token and start again for a new one`,
      );
    } else if (!Buffer.from(digest(inFile)).equals(stored.digest)) {
      log.warn({ path }, "the file does not hold the token that the database knows");
    }
    return;
  }
  // A file from before the database was made anew still says what its users were given.
  const known = inFile !== null && inFile.startsWith(token.prefix) && !(await hasApiToken(tx, digest(inFile)));
  const secret = known ? inFile : newSecret(token.prefix, random);
  if (!known) writeHomeFile(settings.home, token.file, secret);
  await insertApiToken(tx, {
    id: newId("tok_", random),
    scope: token.scope,
    merchantId: token.scope === "merchant" ? await defaultMerchant(tx, options) : null,
    name: token.name,
    prefix: secretPrefix(secret),
    digest: digest(secret),
    homeFile: token.file,
    now: new Date(now()),
  });
  log.info({ path }, known ? "took the token from its file" : "made a token and wrote it to its file");
}

const NODE_TOKEN_NAME = "NODE_TOKEN";

/**
 * NODE_TOKEN: a token that nodes elsewhere may use, besides the one in the home. A new one replaces the one before, for
 * good: a replica that still has the old setting must not bring it back.
 */
async function ensureNodeToken(tx: Tx, { settings, random, now, log }: BootstrapOptions): Promise<void> {
  const secret = settings.nodeToken;
  if (secret === null) return;
  const known = await findTokenState(tx, digest(secret));
  if (known !== null && known.revoked_at !== null) {
    log.warn("NODE_TOKEN was replaced by another and no longer opens anything: set the present one, or a new one");
    return;
  }
  const ended = await revokeOtherNodeTokens(tx, NODE_TOKEN_NAME, digest(secret), new Date(now()));
  if (ended > 0) log.info({ ended }, "NODE_TOKEN is a new one: the one before no longer opens anything");
  if (known !== null) return;
  await insertApiToken(tx, {
    id: newId("tok_", random),
    scope: "node",
    merchantId: null,
    name: NODE_TOKEN_NAME,
    prefix: secretPrefix(secret).slice(0, Math.floor(secret.length / 4)),
    digest: digest(secret),
    homeFile: null,
    now: new Date(now()),
  });
}

/** Makes what is missing. Files are written before the commit: a token in the database always was in a file. */
export async function bootstrap(options: BootstrapOptions): Promise<void> {
  await options.db.tx(async (tx) => {
    await tx.query("select pg_advisory_xact_lock($1::bigint)", [BOOTSTRAP_LOCK]);
    for (const token of HOME_TOKENS) await ensureToken(tx, token, options);
    await ensureNodeToken(tx, options);
  });
}
