/** What is true of the whole database. */

import type { Tx } from "../db/database.ts";

/** Which master key the secrets in this database are sealed with; null before the first start. Locks until the end. */
export async function lockMasterKeyId(tx: Tx): Promise<Uint8Array | null> {
  const [row] = await tx.query<{ master_key_id: Uint8Array | null }>(
    "select master_key_id from installation for update",
  );
  return row!.master_key_id;
}

export async function setMasterKeyId(tx: Tx, keyId: Uint8Array): Promise<void> {
  await tx.query("update installation set master_key_id = $1", [keyId]);
}
