/** How this node gets the credentials of upstream calls: where tokens come from, and who signs. */

import { readFile } from "node:fs/promises";
import { AwsCredentials } from "./aws/credentials.ts";
import { awsSigner } from "./aws/signer.ts";
import { entraTokens } from "./entra.ts";
import type { Settings } from "./settings.ts";
import { type UpstreamAuth, upstreamAuth } from "./upstream_auth.ts";

export function assembleAuth({ awsNodeIdentity }: Settings, now: () => number): UpstreamAuth {
  const credentials = new AwsCredentials({
    fetch,
    nowMs: Date.now,
    env: process.env,
    readFile: (path) => readFile(path, "utf8"),
    nodeIdentityAllowed: awsNodeIdentity,
  });
  return upstreamAuth(entraTokens({ fetch, now }), awsSigner(credentials, Date.now));
}
