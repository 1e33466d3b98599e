/** The compiled forms that the route table hands out. Objects of Providers and Physical Models are updated in place. */

import type { UnitKind } from "../core/meters.ts";
import type { CompiledPrice } from "../core/pricing.ts";
import type { Bridges } from "./formats/index.ts";
import type { Health } from "./health.ts";
import type { RateLimits } from "./rates/rates.ts";
import type { RetryBudget } from "./retry_budget.ts";

/** Numbers equal `tokenbill.v1.ProviderFormat`. */
export const ProviderFormat = { OPENAI: 1, AZURE_OPENAI: 2, ANTHROPIC: 3, AWS_BEDROCK: 4 } as const;

/** Numbers equal `tokenbill.v1.BedrockApi`. */
export const BedrockApi = { CONVERSE: 1, OPENAI: 2, ANTHROPIC: 3 } as const;

/** Numbers equal `tokenbill.v1.ModelApi`. */
export const ModelApi = { CHAT_COMPLETIONS: 1, RESPONSES: 2 } as const;

/** Credentials of AWS, and where they come from. Empty strings are absent. */
export interface AwsAccount {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken: string;
  readonly roleArn: string;
  readonly externalId: string;
  /** The container or instance that this node runs in says who it is. */
  readonly nodeIdentity: boolean;
}

/** Client credentials of Entra ID. */
export interface EntraAccount {
  readonly tenantId: string;
  readonly clientId: string;
  readonly clientSecret: string;
}

/** What the formats other than OpenAI's need of a Provider besides its address and API key. */
export interface ProviderAccount {
  /** A number of `tokenbill.v1.ProviderDialect`, 0: known by the host. */
  readonly dialect: number;
  /** "": the format's own default. */
  readonly apiVersion: string;
  /** "": as the host says. */
  readonly region: string;
  /** A number of BedrockApi, never 0. */
  readonly bedrockApi: number;
  /** Null: there are no credentials of this kind. */
  readonly aws: AwsAccount | null;
  readonly entra: EntraAccount | null;
}

export interface RouteProvider {
  readonly id: string;
  /** False: not (yet) known, or removed. */
  present: boolean;
  disabled: boolean;
  format: number;
  /** Scheme, host and port. */
  origin: string;
  /** The path that API paths are appended to, without a slash at its end. */
  basePath: string;
  /** The query of the base URL with its `?`, or "". */
  baseQuery: string;
  apiKey: string;
  /** Replaced as a whole, by one with other contents only. */
  account: ProviderAccount;
  /** What its models serve, but for those that say so themselves. */
  bridges: Bridges;
  onDisconnect: number;
  /** Flat: lower-case name, value, … */
  headers: readonly string[];
  readonly health: Health;
  readonly retries: RetryBudget;
  /** How many Physical Models lead here. */
  refs: number;
}

/**
 * Picocredits per Unit, for admission: the dearest that each can be, whatever the size, the quality and the threshold;
 * `dear*` is the dearest meter of the family.
 */
export interface AdmissionRates {
  readonly input: bigint;
  readonly output: bigint;
  readonly dearInput: bigint;
  readonly dearOutput: bigint;
  readonly request: bigint;
  readonly image: bigint;
  /** Per thousandth of a second, as it is metered. */
  readonly second: bigint;
  readonly character: bigint;
  readonly toolCall: bigint;
}

export interface RoutePm {
  readonly id: string;
  present: boolean;
  disabled: boolean;
  provider: RouteProvider;
  upstreamName: string;
  price: CompiledPrice | null;
  /** The kinds of Units that its price covers, as `kindBits` gives them. */
  kinds: number;
  rates: AdmissionRates | null;
  /** 0: not known. */
  maxOutputTokens: number;
  /** The model that it is, "" if its upstream name tells. */
  family: string;
  /** Numbers of ModelApi; empty: as its Provider's dialect says. */
  apis: readonly number[];
  /** The kind of Unit that its Unit Limit counts; 0: it has none. */
  unitLimit: UnitKind | 0;
  creditLimited: boolean;
  /** It has a limit of either kind. */
  limited: boolean;
  /** Null: as fast as it likes. */
  rateLimits: RateLimits | null;
  /** Of its id, for sticky routing. */
  readonly seed: number;
  readonly health: Health;
  /** How many target groups lead here. */
  refs: number;
}

/** True if requests may be sent there: known, enabled and priced. */
export function routable(pm: RoutePm): boolean {
  const provider = pm.provider;
  return pm.present && !pm.disabled && pm.price !== null && provider.present && !provider.disabled;
}

/** One priority tier: targets with a weight first, with running sums of their weights; then those of weight 0. */
export interface RouteTier {
  readonly tier: number;
  readonly pms: readonly RoutePm[];
  /** `cumulative[i]` is the sum of the weights of `pms[0..i]`; its length is the number of weighted targets. */
  readonly cumulative: readonly number[];
}

/** The targets of a Logical Model; shared by all Logical Models with equal ones. */
export interface RouteGroup {
  readonly key: string;
  readonly tiers: readonly RouteTier[];
  /** Every Physical Model once. */
  readonly pms: readonly RoutePm[];
  refs: number;
}

/** Milliseconds; 0 means the default. */
export interface RouteDeadlines {
  readonly connectMs: number;
  readonly firstByteMs: number;
  readonly firstContentMs: number;
  readonly idleMs: number;
  readonly totalMs: number;
}

/** Where the key of a sticky request is looked for; numbers equal `tokenbill.v1.StickySource`. */
export const StickySource = { USER: 1, PROMPT_CACHE_KEY: 2, HEADER: 3 } as const;

export interface RouteSticky {
  readonly sources: readonly number[];
  /** Lower case; "" if no source is a header. */
  readonly header: string;
}

export interface RouteRouting {
  /** 0: no hedging. */
  readonly hedgeAfterMs: number;
  /** Null: requests do not stick. */
  readonly sticky: RouteSticky | null;
}

/** What equal Logical Models of different VEs share. */
export interface RouteSpec {
  readonly key: string;
  readonly name: string;
  readonly group: RouteGroup;
  readonly deadlines: RouteDeadlines;
  /** Of targets that say something themselves, merged with `deadlines`; null: none does. */
  readonly targetDeadlines: ReadonlyMap<RoutePm, RouteDeadlines> | null;
  readonly routing: RouteRouting;
  refs: number;
}

export interface RouteLm {
  readonly id: string;
  readonly ve: RouteVe;
  readonly spec: RouteSpec;
  readonly createUnixS: number;
}

export interface RouteVe {
  readonly id: string;
  present: boolean;
  disabled: boolean;
  name: string;
  /** True: BUDGET_MODE_STRICT. */
  strict: boolean;
  /** The HTTP status when the wallet is empty. */
  exhaustedStatus: number;
  /** Most URLs end with the VE's id; then only what stands before it is kept, shared by all VEs. See checkout_link.ts. */
  checkoutPrefix: string;
  checkoutEndsWithId: boolean;
  /** Picocredits. */
  lowBalance: bigint;
  /** Null: as fast as they like. */
  rateLimits: RateLimits | null;
  /** Answers explain themselves in `x-tokenbill-*` headers. */
  explainHeaders: boolean;
  /** The Provider of its files, uploads, batches and vector stores; "": none. */
  passthroughProviderId: string;
  /** Its 32 bytes as latin1 text, which is smaller than a buffer; "": ids and checkout links cannot be signed. */
  pinSecret: string;
  /** Few: a list that is searched. Many: a map by name. */
  lms: RouteLm[] | Map<string, RouteLm>;
  /** `lms[i].spec` while `lms` is a list: specs are shared and thus in the processor's cache, Logical Models are not. */
  specs: RouteSpec[];
  /** Keys and Logical Models that point here. */
  refs: number;
}

export interface RouteKey {
  readonly id: string;
  readonly ve: RouteVe;
  /** Standard base64 of the SHA-256 of the secret. */
  readonly digest: string;
  /** Null: as fast as it likes. */
  readonly rateLimits: RateLimits | null;
}
