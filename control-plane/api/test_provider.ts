/** One cheap real call to an upstream, and precisely what is wrong with it. */

import { ProviderFormat, type ProviderCredentials } from "../../proto/gen/tokenbill/v1/provider_pb.ts";
import { ProviderTestResult } from "../../proto/gen/tokenbill/v1/provider_service_pb.ts";
import { type Wire, wireOf } from "./test_provider_wires.ts";
import { createUpstreamClient, type UpstreamAnswer, type UpstreamClient } from "./upstream_client.ts";

export interface TestedUpstream {
  readonly format: number;
  readonly apiVersion: string;
  readonly baseUrl: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly credentials: Pick<ProviderCredentials, "apiKey" | "azureClientId">;
}

export interface TestOptions {
  readonly allowPrivate: boolean;
  now(): number;
  readonly signal: AbortSignal;
  /** For all calls of the test together. */
  readonly timeoutMs?: number;
}

export interface Verdict {
  readonly result: ProviderTestResult;
  /** Never holds anything that the upstream sent: it may repeat the key. */
  readonly message: string;
  readonly httpStatus: number;
  readonly durationMs: number;
}

export const TEST_TIMEOUT_MS = 10_000;
const MODEL_LIST_BYTES_MAX = 8 * 1024 * 1024;
const ANSWER_BYTES_MAX = 256 * 1024;

type Finding = Omit<Verdict, "durationMs">;

function finding(result: ProviderTestResult, message: string, httpStatus = 0): Finding {
  return { result, message, httpStatus };
}

const TLS_CODE =
  /^(ERR_TLS|ERR_SSL|CERT_|EPROTO$|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH)/;
const DNS_CODE = /^(ENOTFOUND|ENODATA|EAI_|ESERVFAIL|EBADNAME)/;
const CONNECT_CODE = /^(ECONN|EHOST|ENET|EADDR|EACCES|EPERM|EPIPE|UND_ERR_SOCKET)/;

/** The code of an error, or of the first of those that it stands for. */
function codeOf(error: unknown): string {
  if (typeof error !== "object" || error === null) return "";
  const { code, errors, cause } = error as { code?: unknown; errors?: unknown[]; cause?: unknown };
  if (typeof code === "string") return code;
  return codeOf(Array.isArray(errors) ? errors[0] : cause);
}

function tlsMessage(code: string): string {
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID")
    return "The certificate is for another host name: check the host in base_url.";
  if (code === "CERT_HAS_EXPIRED") return "The certificate has expired: its owner must renew it.";
  if (code === "EPROTO" || code.startsWith("ERR_SSL"))
    return "There is no usable TLS at this port: if the server speaks plain HTTP, use http:// in base_url.";
  return `The certificate is not trusted (${code}): install one of a public authority, or name your own with NODE_EXTRA_CA_CERTS.`;
}

function ofError(error: unknown): Finding {
  const code = codeOf(error);
  if (code === "TOKENBILL_ADDRESS_NOT_ALLOWED") {
    return finding(
      ProviderTestResult.ADDRESS_NOT_ALLOWED,
      "The host leads to an address that this deployment does not allow: private ones need ALLOW_PRIVATE_UPSTREAMS=true, link-local ones are never allowed.",
    );
  }
  if (DNS_CODE.test(code))
    return finding(
      ProviderTestResult.DNS_FAILED,
      `The host name does not resolve (${code}): check the host in base_url.`,
    );
  if (TLS_CODE.test(code)) return finding(ProviderTestResult.TLS_FAILED, tlsMessage(code));
  if (CONNECT_CODE.test(code)) {
    return finding(
      ProviderTestResult.CONNECT_FAILED,
      `No connection could be made, or it broke (${code}): check host and port in base_url, and that the server runs.`,
    );
  }
  if (code.startsWith("UND_ERR_") && code.endsWith("_TIMEOUT")) return timedOut();
  if (code.startsWith("HPE_"))
    return finding(
      ProviderTestResult.BAD_ANSWER,
      "The server does not speak HTTP at this port: if it expects TLS, use https:// in base_url.",
    );
  return finding(ProviderTestResult.BAD_ANSWER, `The call failed (${code === "" ? "no code" : code}).`);
}

function timedOut(): Finding {
  return finding(
    ProviderTestResult.TIMEOUT,
    "Nothing came back in time: check host and port in base_url, and that no firewall is in between.",
  );
}

/** The verdict that a status alone allows, or null. */
function ofStatus(status: number): Finding | null {
  if (status === 401)
    return finding(
      ProviderTestResult.UNAUTHORIZED,
      "The upstream refuses the API key: set another one with UpdateProvider.",
      status,
    );
  if (status === 403) {
    return finding(
      ProviderTestResult.UNAUTHORIZED,
      "The upstream forbids this call to the API key: check the key's permissions, project and region.",
      status,
    );
  }
  if (status === 402)
    return finding(ProviderTestResult.LIMITED, "The upstream account has no money left: top it up there.", status);
  if (status === 429)
    return finding(
      ProviderTestResult.LIMITED,
      "The upstream limits the account: wait, or raise its quota there.",
      status,
    );
  if (status >= 300 && status < 400) {
    return finding(
      ProviderTestResult.BAD_ANSWER,
      "The upstream redirects, and redirects are not followed: set base_url to where it leads.",
      status,
    );
  }
  if (status >= 500 && status !== 501)
    return finding(
      ProviderTestResult.BAD_ANSWER,
      `The upstream failed with HTTP ${status}: try again, or ask its operator.`,
      status,
    );
  return null;
}

function parseJson(body: Uint8Array | null): unknown {
  try {
    return body === null ? undefined : (JSON.parse(Buffer.from(body).toString("utf8")) as unknown);
  } catch {
    return undefined;
  }
}

/** The ids in `{"data": [{"id": …}]}`, or null when it is something else. */
function modelIds(body: Uint8Array | null): Set<string> | null {
  const data = (parseJson(body) as { data?: unknown } | undefined)?.data;
  if (!Array.isArray(data)) return null;
  return new Set(
    data.map((entry: unknown) => (entry as { id?: unknown } | null)?.id).filter((id) => typeof id === "string"),
  );
}

class ProviderTest {
  readonly #upstream: TestedUpstream;
  readonly #wire: Wire;
  readonly #client: UpstreamClient;
  readonly #signal: AbortSignal;

  constructor(upstream: TestedUpstream, wire: Wire, client: UpstreamClient, signal: AbortSignal) {
    this.#upstream = upstream;
    this.#wire = wire;
    this.#client = client;
    this.#signal = signal;
  }

  #call(method: "GET" | "POST", path: string, bodyBytesMax: number, json?: object): Promise<UpstreamAnswer> {
    const { baseUrl, headers, credentials } = this.#upstream;
    const all: Record<string, string> = { ...headers, accept: "application/json", "user-agent": "tokenbill" };
    Object.assign(all, this.#wire.headers(credentials.apiKey));
    if (json !== undefined) all["content-type"] = "application/json";
    const body = json === undefined ? undefined : JSON.stringify(json);
    return this.#client.call({
      method,
      url: `${baseUrl}${path}`,
      headers: all,
      body,
      bodyBytesMax,
      signal: this.#signal,
    });
  }

  async run(model: string): Promise<Finding> {
    const { name, listPath, baseUrlHint } = this.#wire;
    const { status, body } = await this.#call("GET", listPath, MODEL_LIST_BYTES_MAX);
    const bad = ofStatus(status);
    if (bad !== null) return bad;
    if (status === 404 || status === 405 || status === 501) return this.#withoutList(model, status);
    if (status !== 200)
      return finding(
        ProviderTestResult.BAD_ANSWER,
        `The upstream answered its list of models with HTTP ${status}.`,
        status,
      );
    const ids = modelIds(body);
    if (ids === null && body !== null) {
      return finding(
        ProviderTestResult.BAD_ANSWER,
        `What answers is no ${name}: check that base_url ends where its paths begin; ${baseUrlHint}`,
        status,
      );
    }
    if (model === "") return finding(ProviderTestResult.OK, "The upstream answered as it should.", status);
    if (this.#wire.modelPath === null) return this.#answer(model);
    // Some list their models with a prefix that they do not ask for.
    if (ids !== null && (ids.has(model) || ids.has(`models/${model}`)))
      return finding(ProviderTestResult.OK, "The upstream answered as it should, and knows the model.", status);
    return this.#oneModel(this.#wire.modelPath(model));
  }

  /** Lists may be cut or filtered, so a missing model is asked for by name. */
  async #oneModel(path: string): Promise<Finding> {
    const { status } = await this.#call("GET", path, ANSWER_BYTES_MAX);
    if (status === 200)
      return finding(ProviderTestResult.OK, "The upstream answered as it should, and knows the model.", status);
    return ofStatus(status) ?? modelNotFound(status);
  }

  /** Without a list of models, one token is the cheapest proof. */
  #withoutList(model: string, listStatus: number): Finding | Promise<Finding> {
    if (model !== "") return this.#answer(model);
    return this.#pathNotFound(
      listStatus,
      " If it has no list of models, give upstream_name to test with an answer of one token.",
    );
  }

  /** An answer of one token. */
  async #answer(model: string): Promise<Finding> {
    const messages = [{ role: "user", content: "Hi" }];
    const { status, body } = await this.#call("POST", this.#wire.probePath(model), ANSWER_BYTES_MAX, {
      model,
      messages,
      max_tokens: 1,
    });
    const bad = ofStatus(status);
    if (bad !== null) return bad;
    const parsed = parseJson(body);
    const answer = typeof parsed === "object" && parsed !== null ? (parsed as Record<string, unknown>) : {};
    if (status === 200) {
      if (this.#wire.isAnswer(answer))
        return finding(ProviderTestResult.OK, "The upstream answered as it should, and knows the model.", status);
      return finding(
        ProviderTestResult.BAD_ANSWER,
        `The upstream's answer is none of the ${this.#wire.name}: check base_url.`,
        status,
      );
    }
    const text = JSON.stringify(answer["error"] ?? "").toLowerCase();
    if (status === 400 && (text.includes("max_tokens") || text.includes("operationnotsupported")))
      return finding(ProviderTestResult.OK, "The upstream answered, and knows the model.", status);
    if (/model|deployment/.test(text)) return modelNotFound(status);
    if (status === 404 || status === 405 || status === 501) return this.#pathNotFound(status, "");
    return finding(
      ProviderTestResult.BAD_ANSWER,
      `The upstream answered a one-token request with HTTP ${status}.`,
      status,
    );
  }

  #pathNotFound(status: number, more: string): Finding {
    return finding(
      ProviderTestResult.PATH_NOT_FOUND,
      `The upstream knows no such path: ${this.#wire.baseUrlHint}${more}`,
      status,
    );
  }
}

function modelNotFound(status: number): Finding {
  return finding(
    ProviderTestResult.MODEL_NOT_FOUND,
    "The upstream answers, but does not know this model: check upstream_name, and that the account may use it.",
    status,
  );
}

/** Why nothing is called; null: it is. */
function untested({ format, credentials }: TestedUpstream): Finding | null {
  const byNodes = (what: string): Finding =>
    finding(
      ProviderTestResult.ONLY_BY_NODES,
      `${what} tried by the nodes alone: send a request to a VE that leads here, and see its attempts in the request log.`,
    );
  if (format === ProviderFormat.AWS_BEDROCK) return byNodes("Accounts of AWS Bedrock are");
  if (format === ProviderFormat.AZURE_OPENAI && credentials.azureClientId !== "")
    return byNodes("Credentials of Entra ID are");
  return null;
}

/** Never throws for what an upstream or the network does. `model` empty: only the account is tested. */
export async function testProvider(upstream: TestedUpstream, model: string, options: TestOptions): Promise<Verdict> {
  const startMs = options.now();
  const done = (found: Finding): Verdict => ({
    ...found,
    durationMs: Math.max(0, Math.round(options.now() - startMs)),
  });
  const wire = wireOf(upstream);
  const reason = untested(upstream);
  if (reason !== null) return done(reason);
  if (wire === null)
    return done(finding(ProviderTestResult.FORMAT_NOT_ROUTABLE, "This release does not know the Provider's format."));
  const timeout = AbortSignal.timeout(options.timeoutMs ?? TEST_TIMEOUT_MS);
  const client = createUpstreamClient(options.allowPrivate);
  try {
    return done(await new ProviderTest(upstream, wire, client, AbortSignal.any([timeout, options.signal])).run(model));
  } catch (error) {
    if (options.signal.aborted) throw error;
    return done(timeout.aborted ? timedOut() : ofError(error));
  } finally {
    await client.close();
  }
}
