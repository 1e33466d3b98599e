/** PURE. The maps behind RouteTable: upserts and removals of single resources, and the sharing of what is equal. */

import { stickyHash } from "../core/routing.ts";
import type {
  AccessKeyConfig,
  LogicalModelConfig,
  PhysicalModelConfig,
  ProviderConfig,
  Resource,
  VirtualEndpointConfig,
} from "../proto/gen/tokenbill/node/v1/config_pb.ts";
import type { Target } from "../proto/gen/tokenbill/v1/logical_model_pb.ts";
import { BudgetMode } from "../proto/gen/tokenbill/v1/virtual_endpoint_pb.ts";
import { bridgesOf } from "./formats/index.ts";
import { Health } from "./health.ts";
import { compileAccount, NO_ACCOUNT } from "./route_account.ts";
import { RetryBudget } from "./retry_budget.ts";
import {
  admissionRates,
  checkFormat,
  compileApiKey,
  compileBaseUrl,
  compileDeadlines,
  compileHeaders,
  compileLowBalance,
  compilePrice,
  compileRateLimits,
  compileRouting,
  compileTargetDeadlines,
  compileTiers,
  compileUnitKind,
  deadlinesKey,
  exhaustedStatus,
  groupKey,
  kindsOf,
  RejectError,
  routingKey,
  sortTargets,
} from "./route_compile.ts";
import type {
  RouteDeadlines,
  RouteGroup,
  RouteKey,
  RouteLm,
  RoutePm,
  RouteProvider,
  RouteRouting,
  RouteSpec,
  RouteVe,
} from "./route_types.ts";

/** Up to this many Logical Models of a VE are a list; more are a map. */
const LM_LIST_MAX = 16;
const DIGEST_BYTES = 32;
const OUTPUT_TOKENS_MAX = 1_000_000_000n;

export class Tables {
  readonly providers = new Map<string, RouteProvider>();
  readonly pms = new Map<string, RoutePm>();
  readonly ves = new Map<string, RouteVe>();
  readonly keys = new Map<string, RouteKey>();
  readonly digests = new Map<string, RouteKey>();
  readonly lms = new Map<string, RouteLm>();
  readonly groups = new Map<string, RouteGroup>();
  private readonly specs = new Map<string, RouteSpec>();
  private readonly checkoutPrefixes = new Map<string, string>();
  private readonly healthOf: (id: string) => Health | undefined;
  /** Logical Models whose new version is still to come within a delta. */
  private aside = new Map<string, RouteLm>();

  /** `healthOf`: what is known of a Physical Model or Provider already. */
  constructor(healthOf: (id: string) => Health | undefined) {
    this.healthOf = healthOf;
  }

  /** Takes a resource in. Returns why it cannot be used, or null; what was known of it before then stays. */
  upsert(resource: Resource): string | null {
    const kind = resource.kind;
    try {
      if (kind.case === undefined) throw new RejectError("its kind is not known to this node");
      if (kind.value.id === "") throw new RejectError("it has no id");
      if (kind.case === "provider") this.upsertProvider(kind.value);
      else if (kind.case === "physicalModel") this.upsertPm(kind.value);
      else if (kind.case === "virtualEndpoint") this.upsertVe(kind.value);
      else if (kind.case === "accessKey") this.upsertKey(kind.value);
      else this.upsertLm(kind.value);
      return null;
    } catch (error) {
      if (error instanceof RejectError) return error.message;
      throw error;
    }
  }

  /** Forgets a resource of any kind. */
  remove(id: string): void {
    const provider = this.providers.get(id);
    if (provider !== undefined) {
      provider.present = false;
      provider.apiKey = "";
      provider.account = NO_ACCOUNT;
      this.dropProvider(provider);
    }
    const pm = this.pms.get(id);
    if (pm !== undefined) {
      pm.present = false;
      this.dropPm(pm);
    }
    const ve = this.ves.get(id);
    if (ve !== undefined) {
      ve.present = false;
      this.dropVe(ve);
    }
    this.removeKey(id);
    this.removeLm(id);
  }

  /** Frees the name of a Logical Model that is about to be replaced. */
  setAside(lmId: string): void {
    const lm = this.lms.get(lmId);
    if (lm === undefined) return;
    this.detach(lm);
    this.aside.set(lmId, lm);
  }

  /** Puts back what was set aside and got no new version (because that was rejected), where its name is still free. */
  dropAside(): void {
    if (this.aside.size === 0) return;
    for (const lm of this.aside.values()) {
      if (find(lm.ve, lm.spec.name) === undefined) attach(lm);
      else this.forgetLm(lm);
    }
    this.aside = new Map();
  }

  private upsertProvider(config: ProviderConfig): void {
    const base = compileBaseUrl(config.baseUrl);
    const format = checkFormat(config.format);
    const apiKey = compileApiKey(config);
    const headers = compileHeaders(config.headers);
    const provider = this.provider(config.id);
    const account = compileAccount(config, provider.account);
    const before = { ...provider };
    Object.assign(provider, {
      ...base,
      format,
      apiKey,
      account,
      headers,
      present: true,
      disabled: config.disabled,
      onDisconnect: config.onDisconnect,
    });
    provider.bridges = bridgesOf(provider, []);
    // What it was refused or not reached by may be mended: nobody should wait for the end of a cooldown then.
    const sameAddress = before.origin === base.origin && before.basePath === base.basePath;
    const same = sameAddress && before.apiKey === apiKey && before.account === account;
    if (before.present && !same) provider.health.retry();
  }

  private upsertPm(config: PhysicalModelConfig): void {
    if (config.providerId === "") throw new RejectError("it names no Provider");
    if (config.upstreamName === "") throw new RejectError("it has no upstream_name");
    const price = compilePrice(config.price);
    const unitLimit = compileUnitKind(config.unitLimitUnit);
    const rateLimits = compileRateLimits(config.rateLimits);
    const pm = this.pm(config.id);
    if (pm.present && pm.upstreamName !== config.upstreamName) pm.health.retry();
    const provider = this.provider(config.providerId);
    if (pm.provider !== provider) {
      provider.refs++;
      if (pm.provider !== UNKNOWN_PROVIDER) {
        pm.provider.refs--;
        this.dropProvider(pm.provider);
      }
      pm.provider = provider;
    }
    const max = config.maxOutputTokens;
    pm.present = true;
    pm.disabled = config.disabled;
    pm.upstreamName = config.upstreamName;
    pm.price = price;
    pm.kinds = price === null ? 0 : kindsOf(price);
    pm.rates = price === null ? null : admissionRates(price);
    pm.maxOutputTokens = max > 0n && max <= OUTPUT_TOKENS_MAX ? Number(max) : 0;
    pm.family = config.family;
    pm.apis = config.apis;
    pm.unitLimit = unitLimit;
    pm.creditLimited = config.creditLimited;
    pm.limited = unitLimit !== 0 || config.creditLimited;
    pm.rateLimits = rateLimits;
  }

  private upsertVe(config: VirtualEndpointConfig): void {
    const lowBalance = compileLowBalance(config.lowBalanceCredits);
    const rateLimits = compileRateLimits(config.rateLimits);
    const ve = this.ve(config.id);
    const url = config.checkoutUrl;
    const endsWithId = url.endsWith(config.id);
    ve.present = true;
    ve.disabled = config.disabled;
    ve.name = config.name;
    ve.strict = config.budgetMode === BudgetMode.STRICT;
    ve.exhaustedStatus = exhaustedStatus(config.exhaustedStatus);
    ve.checkoutEndsWithId = endsWithId;
    ve.checkoutPrefix = this.sharedPrefix(endsWithId ? url.slice(0, -config.id.length) : url, endsWithId);
    ve.lowBalance = lowBalance;
    ve.rateLimits = rateLimits;
    ve.explainHeaders = config.explainHeaders;
    ve.passthroughProviderId = config.passthroughProviderId;
    ve.pinSecret = Buffer.from(config.pinSecret).toString("latin1");
  }

  private upsertKey(config: AccessKeyConfig): void {
    if (config.digest.length !== DIGEST_BYTES) throw new RejectError(`its digest is not ${DIGEST_BYTES} bytes long`);
    if (config.veId === "") throw new RejectError("it names no VE");
    const digest = Buffer.from(config.digest.buffer, config.digest.byteOffset, DIGEST_BYTES).toString("base64");
    const rateLimits = compileRateLimits(config.rateLimits);
    const holder = this.digests.get(digest);
    if (holder !== undefined && holder.id !== config.id) throw new RejectError("another key has the same digest");
    this.removeKey(config.id);
    const key: RouteKey = { id: config.id, ve: this.ve(config.veId), digest, rateLimits };
    key.ve.refs++;
    this.keys.set(key.id, key);
    this.digests.set(digest, key);
  }

  private upsertLm(config: LogicalModelConfig): void {
    if (config.name === "") throw new RejectError("it has no name");
    if (config.veId === "") throw new RejectError("it names no VE");
    const targets = sortTargets(config.targets);
    const deadlines = compileDeadlines(config.deadlines);
    const routing = compileRouting(config.routing);
    const ve = this.ve(config.veId);
    const holder = find(ve, config.name);
    if (holder !== undefined && holder.id !== config.id)
      throw new RejectError("another Logical Model of the VE has this name");
    const before = this.lms.get(config.id);
    const lm: RouteLm = {
      id: config.id,
      ve,
      spec: this.spec(config.name, targets, deadlines, routing),
      createUnixS: Number(config.createUnixS),
    };
    lm.spec.refs++;
    ve.refs++;
    if (before !== undefined) {
      if (!this.aside.delete(before.id)) this.detach(before);
      this.forgetLm(before);
    }
    this.lms.set(lm.id, lm);
    attach(lm);
  }

  private removeKey(id: string): void {
    const key = this.keys.get(id);
    if (key === undefined) return;
    this.keys.delete(id);
    this.digests.delete(key.digest);
    key.ve.refs--;
    this.dropVe(key.ve);
  }

  private removeLm(id: string): void {
    const lm = this.lms.get(id);
    if (lm === undefined) return;
    this.detach(lm);
    this.forgetLm(lm);
  }

  private detach(lm: RouteLm): void {
    const lms = lm.ve.lms;
    if (Array.isArray(lms)) {
      const at = lms.indexOf(lm);
      if (at < 0) return;
      lms.splice(at, 1);
      lm.ve.specs.splice(at, 1);
    } else if (lms.get(lm.spec.name) === lm) {
      lms.delete(lm.spec.name);
    }
  }

  private forgetLm(lm: RouteLm): void {
    if (this.lms.get(lm.id) === lm) this.lms.delete(lm.id);
    lm.ve.refs--;
    this.dropVe(lm.ve);
    const spec = lm.spec;
    if (--spec.refs > 0) return;
    this.specs.delete(spec.key);
    const group = spec.group;
    if (--group.refs > 0) return;
    this.groups.delete(group.key);
    for (const pm of group.pms) {
      pm.refs--;
      this.dropPm(pm);
    }
  }

  private spec(name: string, sorted: readonly Target[], deadlines: RouteDeadlines, routing: RouteRouting): RouteSpec {
    const targets = groupKey(sorted);
    const key = `${deadlinesKey(deadlines)};${routingKey(routing)};${targets}\n${name}`;
    let spec = this.specs.get(key);
    if (spec === undefined) {
      const group = this.group(targets, sorted);
      const targetDeadlines = compileTargetDeadlines(sorted, group.pms, deadlines);
      spec = { key, name, group, deadlines, targetDeadlines, routing, refs: 0 };
      spec.group.refs++;
      this.specs.set(key, spec);
    }
    return spec;
  }

  private group(key: string, sorted: readonly Target[]): RouteGroup {
    let group = this.groups.get(key);
    if (group !== undefined) return group;
    const pms = sorted.map((target) => this.pm(target.physicalModelId));
    for (const pm of pms) pm.refs++;
    group = { key, tiers: compileTiers(sorted, pms), pms, refs: 0 };
    this.groups.set(key, group);
    return group;
  }

  private provider(id: string): RouteProvider {
    let provider = this.providers.get(id);
    if (provider === undefined) this.providers.set(id, (provider = emptyProvider(id, this.healthOf(id))));
    return provider;
  }

  private pm(id: string): RoutePm {
    let pm = this.pms.get(id);
    if (pm === undefined) {
      pm = {
        id,
        present: false,
        disabled: false,
        provider: UNKNOWN_PROVIDER,
        upstreamName: "",
        price: null,
        kinds: 0,
        rates: null,
        maxOutputTokens: 0,
        family: "",
        apis: [],
        unitLimit: 0,
        creditLimited: false,
        limited: false,
        rateLimits: null,
        seed: stickyHash(id),
        health: this.healthOf(id) ?? new Health(),
        refs: 0,
      };
      this.pms.set(id, pm);
    }
    return pm;
  }

  private ve(id: string): RouteVe {
    let ve = this.ves.get(id);
    if (ve === undefined) {
      ve = {
        id,
        present: false,
        disabled: false,
        name: "",
        strict: false,
        exhaustedStatus: exhaustedStatus(0),
        checkoutPrefix: "",
        checkoutEndsWithId: false,
        lowBalance: 0n,
        rateLimits: null,
        explainHeaders: false,
        passthroughProviderId: "",
        pinSecret: "",
        lms: [],
        specs: [],
        refs: 0,
      };
      this.ves.set(id, ve);
    }
    return ve;
  }

  private sharedPrefix(prefix: string, share: boolean): string {
    if (!share) return prefix;
    const shared = this.checkoutPrefixes.get(prefix);
    if (shared !== undefined) return shared;
    this.checkoutPrefixes.set(prefix, prefix);
    return prefix;
  }

  private dropProvider(provider: RouteProvider): void {
    if (!provider.present && provider.refs <= 0) this.providers.delete(provider.id);
  }

  private dropPm(pm: RoutePm): void {
    if (pm.present || pm.refs > 0) return;
    if (!this.pms.delete(pm.id) || pm.provider === UNKNOWN_PROVIDER) return;
    pm.provider.refs--;
    this.dropProvider(pm.provider);
  }

  private dropVe(ve: RouteVe): void {
    if (!ve.present && ve.refs <= 0) this.ves.delete(ve.id);
  }
}

function emptyProvider(id: string, health?: Health): RouteProvider {
  return {
    id,
    present: false,
    disabled: false,
    format: 0,
    origin: "",
    basePath: "",
    baseQuery: "",
    apiKey: "",
    account: NO_ACCOUNT,
    bridges: {},
    onDisconnect: 0,
    headers: [],
    health: health ?? new Health(),
    retries: new RetryBudget(),
    refs: 0,
  };
}

/** Where a Physical Model stands that is named but has not arrived. */
const UNKNOWN_PROVIDER: RouteProvider = emptyProvider("");

function find(ve: RouteVe, name: string): RouteLm | undefined {
  return Array.isArray(ve.lms) ? ve.lms.find((lm) => lm.spec.name === name) : ve.lms.get(name);
}

function attach(lm: RouteLm): void {
  const ve = lm.ve;
  if (!Array.isArray(ve.lms)) {
    ve.lms.set(lm.spec.name, lm);
    return;
  }
  ve.lms.push(lm);
  ve.specs.push(lm.spec);
  if (ve.lms.length <= LM_LIST_MAX) return;
  ve.lms = new Map(ve.lms.map((each) => [each.spec.name, each]));
  ve.specs = [];
}
