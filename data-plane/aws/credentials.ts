/**
 * Credentials for accounts of AWS: at once where they are static or known, else asked for, kept and renewed ahead of their
 * end. Several requests that need the same ones wait for one call.
 */

import type { AwsAccount } from "../route_types.ts";
import { AwsCredentialsError } from "./credentials_error.ts";
import type { AwsFetch } from "./http.ts";
import { asksInRegionOf, nodeCredentials, type NodeIdentityContext } from "./node_identity.ts";
import type { Credentials } from "./sigv4.ts";
import { assumeRole, type ExpiringCredentials } from "./sts.ts";

/** Credentials are renewed this long before they end, while the old ones are still used. */
export const REFRESH_EARLY_MS = 5 * 60_000;
/** Those that end within this time are not used any more: a request must arrive with them. */
export const EXPIRY_MARGIN_MS = 10_000;
/** After a failure nobody is asked for so long; each further failure doubles it. */
export const BACKOFF_MS_MIN = 1_000;
export const BACKOFF_MS_MAX = 60_000;
/** Credentials younger than this are kept when they are refused: new ones would not be better. */
export const INVALIDATE_AGE_MS_MIN = 5_000;

/** Regions that this node's credentials are asked for in at a time; more is a mistake. */
const NODE_REGIONS_MAX = 64;

const SESSION_NAME = "tokenbill";

export interface AwsCredentialsOptions {
  readonly fetch: AwsFetch;
  /** Milliseconds since 1970, as AWS counts them. */
  readonly nowMs: () => number;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly readFile: (path: string) => Promise<string>;
  /** The operator lets Providers use this node's own identity. */
  readonly nodeIdentityAllowed: boolean;
  /** For tests: instead of the addresses of AWS. Scheme, host and port. */
  readonly stsOrigin?: string;
  readonly containerOrigin?: string;
  readonly instanceOrigin?: string;
}

/** Credentials that are kept and renewed. */
class Slot {
  private current: ExpiringCredentials | null = null;
  private fetchedMs = 0;
  private refreshing: Promise<Credentials> | null = null;
  private failures = 0;
  private retryAtMs = 0;
  private failure: AwsCredentialsError | null = null;
  private readonly nowMs: () => number;

  constructor(nowMs: () => number) {
    this.nowMs = nowMs;
  }

  get(load: () => Promise<ExpiringCredentials>): Credentials | Promise<Credentials> {
    const now = this.nowMs();
    const { current } = this;
    if (current === null || now >= current.expiresMs - EXPIRY_MARGIN_MS) {
      if (this.refreshing !== null) return this.refreshing;
      if (now < this.retryAtMs && this.failure !== null) return Promise.reject(this.failure);
      return this.refresh(load);
    }
    if (now >= current.expiresMs - REFRESH_EARLY_MS && this.refreshing === null && now >= this.retryAtMs) {
      this.refresh(load).catch((error: unknown) => {
        // It is kept for when the old ones end.
        if (!(error instanceof AwsCredentialsError)) throw error;
      });
    }
    return current.credentials;
  }

  /** True: new ones will be asked for. */
  invalidate(): boolean {
    if (this.current === null || this.nowMs() - this.fetchedMs < INVALIDATE_AGE_MS_MIN) return false;
    this.current = null;
    return true;
  }

  private refresh(load: () => Promise<ExpiringCredentials>): Promise<Credentials> {
    const refreshing = this.load(load).finally(() => {
      this.refreshing = null;
    });
    this.refreshing = refreshing;
    return refreshing;
  }

  private async load(load: () => Promise<ExpiringCredentials>): Promise<Credentials> {
    try {
      const loaded = await load();
      if (loaded.expiresMs - EXPIRY_MARGIN_MS <= this.nowMs())
        throw new AwsCredentialsError("aws_credentials_invalid_answer", "the credentials of AWS had already expired");
      this.current = loaded;
      this.fetchedMs = this.nowMs();
      this.failures = this.retryAtMs = 0;
      this.failure = null;
      return loaded.credentials;
    } catch (error) {
      if (!(error instanceof AwsCredentialsError)) throw error;
      this.failure = error;
      this.retryAtMs = this.nowMs() + Math.min(BACKOFF_MS_MIN * 2 ** this.failures, BACKOFF_MS_MAX);
      this.failures++;
      throw error;
    }
  }
}

export class AwsCredentials {
  private readonly options: AwsCredentialsOptions;
  private readonly context: NodeIdentityContext;
  /** This node's, by region where that decides who is asked: a region that does not exist must not fail the others. */
  private readonly nodes = new Map<string, Slot>();
  /** Accounts are replaced when they change, so what was kept for the old one goes with it. */
  private readonly roles = new WeakMap<AwsAccount, Slot>();
  /** Where an account's came from. */
  private readonly nodeOf = new WeakMap<AwsAccount, Slot>();
  private readonly statics = new WeakMap<AwsAccount, Credentials>();

  constructor(options: AwsCredentialsOptions) {
    this.options = options;
    const { fetch, nowMs, env, readFile, stsOrigin, containerOrigin, instanceOrigin } = options;
    this.context = { fetch, nowMs, env, readFile, stsOrigin, containerOrigin, instanceOrigin };
  }

  /**
   * Always the same object for the same credentials. At once, unless they have to be asked for.
   * @param region where the token service is asked; "" is only good for static credentials
   * @throws AwsCredentialsError also as the promise's rejection
   */
  get(account: AwsAccount, region: string): Credentials | Promise<Credentials> {
    if (account.roleArn === "") return this.source(account, region);
    if (region === "")
      throw new AwsCredentialsError("aws_no_credentials", "the Provider does not say its region of AWS");
    let slot = this.roles.get(account);
    if (slot === undefined) this.roles.set(account, (slot = new Slot(this.options.nowMs)));
    return slot.get(async () => {
      const source = await this.source(account, region);
      const { roleArn, externalId } = account;
      return await assumeRole(this.context, { roleArn, externalId, region, sessionName: SESSION_NAME }, source);
    });
  }

  /** The upstream refused them. True: new ones will be asked for; static ones stay as they are. */
  invalidate(account: AwsAccount): boolean {
    const role = this.roles.get(account)?.invalidate() ?? false;
    const node = this.nodeOf.get(account)?.invalidate() ?? false;
    return role || node;
  }

  private source(account: AwsAccount, region: string): Credentials | Promise<Credentials> {
    if (account.accessKeyId !== "") {
      let credentials = this.statics.get(account);
      if (credentials === undefined) {
        const { accessKeyId, secretAccessKey, sessionToken } = account;
        this.statics.set(account, (credentials = { accessKeyId, secretAccessKey, sessionToken }));
      }
      return credentials;
    }
    if (!account.nodeIdentity)
      throw new AwsCredentialsError("aws_no_credentials", "the Provider has no credentials of AWS");
    if (!this.options.nodeIdentityAllowed) {
      throw new AwsCredentialsError(
        "aws_node_identity_not_allowed",
        "the operator of this node does not allow Providers to use its own identity of AWS (AWS_NODE_IDENTITY)",
      );
    }
    const slot = this.nodeSlot(region);
    this.nodeOf.set(account, slot);
    return slot.get(() => nodeCredentials(this.context, region));
  }

  private nodeSlot(region: string): Slot {
    const key = asksInRegionOf(this.context) ? region : "";
    let slot = this.nodes.get(key);
    if (slot === undefined) {
      if (this.nodes.size >= NODE_REGIONS_MAX) this.nodes.clear();
      this.nodes.set(key, (slot = new Slot(this.options.nowMs)));
    }
    return slot;
  }
}
